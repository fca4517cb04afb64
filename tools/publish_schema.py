"""Stores schemas of records as their next published versions: ``uv run python tools/publish_schema.py RECORD …``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import fastavro
from fastavro.utils import generate_many

from taskbridge.cli.schemas import published_versions, records, versions_folder
from taskbridge.schemas.registry import schema_text

if TYPE_CHECKING:
    from pathlib import Path

_SAMPLES = 20


def publish(record: str, folder: Path) -> int:
    """Store the current schema of a record as its next version, with sample records; return the version."""
    text = schema_text(record)
    version = max(published_versions(record, folder), default=0) + 1
    (folder / f"{record}.{version}.avsc").write_text(text, "utf-8")
    schema = fastavro.parse_schema(json.loads(text))
    with (folder / f"{record}.{version}.avro").open("wb") as out:
        # Many, of random content: together they use every branch of every union.
        fastavro.writer(out, schema, list(generate_many(schema, _SAMPLES)))
    return version


def main(arguments: list[str]) -> None:
    if not arguments or not set(arguments) <= set(records()):
        sys.exit(f"usage: python tools/publish_schema.py RECORD …   some of {', '.join(records())}")
    for record in arguments:
        sys.stdout.write(f"published {record} version {publish(record, versions_folder())}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
