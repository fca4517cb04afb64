"""Writes the pins in pyproject.toml: the exact version of every package that is installed or builds one.

A lock file would name the registry's host, so the pins are in ``tool.uv`` of ``pyproject.toml`` and no lock file is
committed. ``uv run python tools/pins.py`` resolves again, without the old pins, and writes them; with them the lower
bounds in the parts' own files: the lower bound of a part is the tested version. Exact and upper bounds stay, they are
for a person to move. ``--check`` writes nothing; exit code 1 when an installed package is not at its pin, or a lower
bound is not.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

# ``uv run`` sets UV to its own path: it need not be on the PATH.
UV = os.environ.get("UV", "uv")
ROOT = Path(__file__).parent.parent
PYPROJECT = ROOT / "pyproject.toml"
PARTS = [
    ROOT / part / "pyproject.toml"
    for part in tomllib.loads(PYPROJECT.read_text("utf-8"))["tool"]["uv"]["workspace"]["members"]
]
# maturin requires it where there is no Rust toolchain.
TOOLCHAIN = "puccinialin"


def pinned(pyproject: str) -> dict[str, str]:
    """Package → version of installed packages."""
    pins = tomllib.loads(pyproject)["tool"]["uv"]["constraint-dependencies"]
    return dict(pin.split(" ;")[0].split("==", 1) for pin in pins)


def resolve(pyproject: str) -> str:
    """The same text with the newest versions that fit together, for every Python and platform that we support."""
    text = _with_pins(_with_pins(pyproject, "constraint-dependencies", []), "build-constraint-dependencies", [])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pyproject.toml").write_text(text, "utf-8")
        for part in PARTS:
            copy = Path(folder, part.relative_to(ROOT))
            copy.parent.mkdir(parents=True)
            shutil.copy2(part, copy)
        build = Path(folder, "build.in")
        build.write_text("\n".join(built_with()), "utf-8")
        export = ["export", "--directory", folder, "--all-packages", "--all-groups", "--all-extras"]
        export += ["--no-emit-workspace", "--no-hashes"]
        text = _with_pins(text, "constraint-dependencies", _resolved(*export))
        compiled = _resolved("pip", "compile", "--universal", "--python-version", "3.11", str(build))
        return _with_pins(text, "build-constraint-dependencies", compiled)


def built_with() -> list[str]:
    """The requirements of a build, with the package that installs a Rust toolchain."""
    requirements = {
        each for part in PARTS for each in tomllib.loads(part.read_text("utf-8"))["build-system"]["requires"]
    }
    return [*sorted(requirements), TOOLCHAIN]


def with_bounds(part: str, pins: dict[str, str]) -> str:
    """The part's file with lower bounds at the pins, with as many numbers as it has there."""

    def renewed(found: re.Match[str]) -> str:
        numbers = pins.get(found["name"], found["version"]).split(".")
        return f"{found['bound']}{'.'.join(numbers[: found['version'].count('.') + 1])}"

    return re.sub(
        r'(?P<bound>^ +"(?P<name>(?!taskbridge-)[\w.-]+)(?:\[[\w,]+\])?>=)(?P<version>[\d.]+)',
        renewed,
        part,
        flags=re.MULTILINE,
    )


def unpinned(pyproject: str) -> list[str]:
    """Installed packages that are not at their pinned version, as ``name==version``."""
    command = [UV, "pip", "list", "--format", "json"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    pins = pinned(pyproject)
    return [
        f"{each['name']}=={each['version']}"
        for each in listed
        if not each["name"].startswith("taskbridge-") and pins.get(each["name"]) != each["version"]
    ]


def _resolved(*arguments: str) -> list[str]:
    command = [UV, *arguments, "--quiet", "--no-annotate", "--no-header"]
    compiled = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.strip().replace('"', "'") for line in compiled.splitlines() if "==" in line]


def _with_pins(pyproject: str, table: str, pins: list[str]) -> str:
    lines = "".join(f'    "{pin}",\n' for pin in pins)
    found = re.compile(rf"^{table} = \[\n.*?^\]\n", re.MULTILINE | re.DOTALL)
    return found.sub(lambda _: f"{table} = [\n{lines}]\n", pyproject)


def main(arguments: list[str]) -> None:
    text = PYPROJECT.read_text("utf-8")
    if arguments == ["--check"]:
        found = unpinned(text)
        for part in PARTS:
            if with_bounds(part.read_text("utf-8"), pinned(text)) != part.read_text("utf-8"):
                found.append(f"the bounds of {part.relative_to(ROOT)}")
        sys.exit(f"not at their pins: {', '.join(found)}; run: uv run python tools/pins.py" if found else 0)
    renewed = resolve(text)
    PYPROJECT.write_text(renewed, "utf-8")
    for part in PARTS:
        part.write_text(with_bounds(part.read_text("utf-8"), pinned(renewed)), "utf-8")
    sys.stdout.write(f"{len(pinned(renewed))} packages pinned\n")


if __name__ == "__main__":
    main(sys.argv[1:])
