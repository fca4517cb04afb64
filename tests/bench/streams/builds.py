"""Builds the job on Kafka Streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.streams.kafka_streams_format import MARKS_SCHEMA, without_logical_types
from tests.bench.toolchains import SCHEMAS, built, need

if TYPE_CHECKING:
    from taskbridge.cli.terminal import Progress


_HERE = Path(__file__).parent
_JAVA = _HERE / "kafka_streams"
_RECORDS = ("TaskEvent", "TaskState", "TaskNotification")


def build_kafka_streams(progress: Progress) -> Path:
    """The folder with ``job.jar`` and ``lib``.

    Raises:
        ToolMissing: no Maven.
        OperatorError: it does not build.
    """
    maven = need("mvn", "apt-get install maven")
    schemas = [SCHEMAS / f"{record}.avsc" for record in _RECORDS]
    argv = [maven, "-B", "-q", "-DskipTests", "-Dbuild.folder={into}", "package"]
    return built("kafka-streams", [_JAVA, *schemas], argv, _JAVA, progress, prepare=_write_schemas)


def _write_schemas(into: Path) -> None:
    folder = into / "avro"
    folder.mkdir()
    for record in _RECORDS:
        schema = json.loads((SCHEMAS / f"{record}.avsc").read_text("utf-8"))
        (folder / f"{record}.avsc").write_text(json.dumps(without_logical_types(schema)), "utf-8")
    (folder / MARKS_SCHEMA.name).write_bytes(MARKS_SCHEMA.read_bytes())
