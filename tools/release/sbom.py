"""Software bills of materials, in CycloneDX's JSON: the packages that an installation consists of."""

from __future__ import annotations

import json
import re
import tomllib
from datetime import UTC, datetime
from importlib.metadata import distributions
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote
from uuid import NAMESPACE_URL, uuid5

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from release.source import Source


class Package(NamedTuple):
    kind: str
    """Of package URLs: pypi, cargo, deb."""
    name: str
    version: str

    @property
    def url(self) -> str:
        name = f"debian/{self.name}" if self.kind == "deb" else self.name
        return f"pkg:{self.kind}/{name}@{quote(self.version, safe='.-_~:+')}"


Packages = set[Package]


def pinned(constraints: str) -> Packages:
    """The Python packages of a file of constraints, for every system."""
    found = re.finditer(r"(?m)^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)", constraints)
    return {_python(each["name"], each["version"]) for each in found}


def ours(source: Source) -> Packages:
    members = source.pyproject["tool"]["uv"]["workspace"]["members"]
    projects = (
        tomllib.loads((source.tree / each / "pyproject.toml").read_text("utf-8"))["project"] for each in members
    )
    return {_python(each["name"], each["version"]) for each in projects}


def installed(folder: Path) -> Packages:
    """The Python packages that are installed into a folder."""
    return {_python(each.name, each.version) for each in distributions(path=[str(folder)])}


def crates(lock: Path) -> Packages:
    """The crates that are compiled into the native core."""
    packages = tomllib.loads(lock.read_text("utf-8"))["package"]
    return {Package("cargo", each["name"], each["version"]) for each in packages if "source" in each}


def debian(files: Iterable[str]) -> Packages:
    """The packages of Debian, by the names of their files: ``NAME_VERSION_ARCHITECTURE.deb``."""
    named = (unquote(each.removesuffix(".deb")).split("_") for each in files if each.endswith(".deb"))
    return {Package("deb", name, version) for name, version, _ in named}


def write(path: Path, source: Source, packages: Packages) -> None:
    """CycloneDX 1.6. The document of the same packages is the same, to the byte."""
    listed = [
        {"type": "library", "name": each.name, "version": each.version, "purl": each.url, "bom-ref": each.url}
        for each in sorted(packages)
    ]
    product = {"type": "application", "name": "taskbridge", "version": source.version, "bom-ref": "taskbridge"}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid5(NAMESPACE_URL, f"{source.commit}/{path.name}").urn,
        "version": 1,
        "metadata": {"timestamp": datetime.fromtimestamp(source.time, UTC).isoformat(), "component": product},
        "components": listed,
        "dependencies": [{"ref": "taskbridge", "dependsOn": [each["bom-ref"] for each in listed]}],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _python(name: str, version: str) -> Package:
    return Package("pypi", re.sub(r"[-_.]+", "-", name).lower(), version)
