"""Check that schemas change only compatibly, against every published version.

``schemas/avro/versions`` stores, for each published version N of a record, ``{record}.{N}.avsc`` and
``{record}.{N}.avro``, a container file with records that it wrote; ``tools/publish_schema.py`` adds to them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import fastavro
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException
from avro.schema import parse

from taskbridge.schemas import topics
from taskbridge.schemas.registry import schema_text

if TYPE_CHECKING:
    from collections.abc import Iterable

_VERSION_FILE = re.compile(r"(?P<record>\w+)\.(?P<version>\d+)\.avsc")


@dataclass(frozen=True, slots=True)
class VersionReport:
    """The compatibility of a record's current schema with one published version; no problems means compatible."""

    record: str
    version: int
    problems: list[str]


def records() -> list[str]:
    return [topic.record for topic in topics.ALL if topic.record is not None]


def versions_folder() -> Path:
    return Path(str(files("taskbridge.schemas").joinpath("avro", "versions")))


def check(folder: Path | None = None, wanted: Iterable[str] | None = None) -> list[VersionReport]:
    """Compare each current schema with every published version in both directions, and read what those wrote."""
    folder = folder or versions_folder()
    return [
        _check(record, version, folder)
        for record in (wanted or records())
        for version in published_versions(record, folder)
    ]


def published_versions(record: str, folder: Path) -> list[int]:
    found = (_VERSION_FILE.fullmatch(path.name) for path in folder.glob(f"{record}.*.avsc"))
    return sorted(int(match["version"]) for match in found if match)


def _check(record: str, version: int, folder: Path) -> VersionReport:
    current = schema_text(record)
    published = (folder / f"{record}.{version}.avsc").read_text("utf-8")
    problems = _incompatibilities(reader=current, writer=published, direction="cannot read what that version wrote")
    problems += _incompatibilities(reader=published, writer=current, direction="cannot be read by that version")
    try:
        with (folder / f"{record}.{version}.avro").open("rb") as written:
            if not list(fastavro.reader(written, fastavro.parse_schema(json.loads(current)))):
                problems.append("holds no stored record to read")
    except Exception as error:  # noqa: BLE001 - any error of the reader is the finding
        problems.append(f"a stored record does not decode: {type(error).__name__}: {error}")
    return VersionReport(record, version, problems)


def _incompatibilities(*, reader: str, writer: str, direction: str) -> list[str]:
    try:
        result = ReaderWriterCompatibilityChecker().get_compatibility(parse(reader), parse(writer))
    except AvroException as error:
        return [f"is not a valid schema: {error}"]
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    return [f"{direction}: {message}" for message in sorted(result.messages)]
