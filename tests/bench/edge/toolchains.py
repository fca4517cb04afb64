"""Builds the edge's peers that are not Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.streams.peers.job import without_logical_types
from tests.bench.toolchains import SCHEMAS, built, need

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.cli.terminal import Progress

HERE = Path(__file__).parent
_SCHEMA = SCHEMAS / "TaskEvent.avsc"


def build_go(progress: Progress, environment: Sequence[str] = ()) -> Path:
    """The folder with the programs ``receiver`` and ``openloop``; ``environment`` is the compiler's, as ``NAME=value``.

    Raises:
        ToolMissing: no Go.
        OperatorError: it does not build.
    """
    go = need("go", "install Go 1.26 or newer")
    source = HERE / "go"
    argv = ["env", *environment, go, "build", "-mod=readonly", "-o", "{into}/", "./..."]
    return built("-".join(["go", *environment]), [source], argv, source, progress)


def build_spring(progress: Progress, properties: Sequence[str] = ()) -> Path:
    """The folder with ``receiver.jar``.

    Raises:
        ToolMissing: no Maven.
        OperatorError: it does not build.
    """
    maven = need("mvn", "apt-get install maven")
    source = HERE / "spring"
    argv = [maven, "-B", "-q", "-DskipTests", "-Dbuild.folder={into}", *properties, "package"]
    return built("".join(["spring", *properties]), [source, _SCHEMA], argv, source, progress, prepare=_write_schema)


def _write_schema(into: Path) -> None:
    """With timestamps as plain longs: of the same bytes, and Avro makes no coders of its own for logical types."""
    folder = into / "avro"
    folder.mkdir()
    schema = json.loads(_SCHEMA.read_text("utf-8"))
    (folder / _SCHEMA.name).write_text(json.dumps(without_logical_types(schema)), "utf-8")
