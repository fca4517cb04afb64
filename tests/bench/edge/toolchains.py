"""Builds the edge's peers that are not Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.toolchains import SCHEMAS, built, need

if TYPE_CHECKING:
    from taskbridge.local.progress import Progress

HERE = Path(__file__).parent


def build_go(progress: Progress) -> Path:
    """The folder with the programs ``receiver`` and ``openloop``.

    Raises:
        ToolMissing: no Go.
        OperatorError: it does not build.
    """
    go = need("go", "install Go 1.26 or newer")
    source = HERE / "go"
    return built("go", [source], [go, "build", "-mod=readonly", "-o", "{into}/", "./..."], source, progress)


def build_spring(progress: Progress) -> Path:
    """The folder with ``receiver.jar``.

    Raises:
        ToolMissing: no Maven.
        OperatorError: it does not build.
    """
    maven = need("mvn", "apt-get install maven")
    source = HERE / "spring"
    argv = [maven, "-B", "-q", "-DskipTests", f"-Dschemas={SCHEMAS}", "-Dbuild.folder={into}", "package"]
    return built("spring", [source, SCHEMAS / "TaskEvent.avsc"], argv, source, progress)
