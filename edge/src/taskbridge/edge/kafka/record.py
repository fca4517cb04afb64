"""A record that waits for Kafka: all that is needed to produce it later, with a checksum over all of it."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROW_OVERHEAD_BYTES = 256
"""What SQLite and the log of a transaction need around a row; generous, so that the bound on bytes holds on disk."""

Row = tuple[int, int, str, bytes, bytes, str, bytes, int]
"""position, created_at, topic, key, headers, schema key, body, checksum."""


class Record(Struct, frozen=True, kw_only=True, gc=False):
    """One record for Kafka. The body is Avro without its frame: the schema's id may not be known yet."""

    topic: str
    key: bytes
    headers: Sequence[tuple[str, bytes]]
    schema: str
    """Key of the SchemaRef that the body was written by."""
    body: bytes

    def __repr__(self) -> str:
        """Without what people wrote."""
        return f"{type(self).__name__}({self.topic}, {self.key!r}, {len(self.body)} bytes)"

    @property
    def size(self) -> int:
        """Bytes of the record in Kafka and on disk: never too small."""
        size = _ROW_OVERHEAD_BYTES + len(self.key) + len(self.body)
        for name, value in self.headers:
            size += len(name) + len(value) + 16
        return size


class SpooledRecord(Record, frozen=True, kw_only=True, gc=False):
    """A record at its place in one spool file."""

    position: int
    created_at: int
    """Nanoseconds since the epoch."""


class RowDamaged(ValueError):
    """The row is not what was written."""


def row_of(record: Record, *, position: int, created_at: int) -> Row:
    headers = msgspec.json.encode([(name, value.decode("latin-1")) for name, value in record.headers])
    content = (position, created_at, record.topic, record.key, headers, record.schema, record.body)
    return (*content, _checksum(content))


def record_of(row: Sequence[Any]) -> SpooledRecord:
    """The record of a row. Raises RowDamaged if its checksum does not match."""
    *content, checksum = row
    if _checksum(content) != checksum:
        raise RowDamaged(f"the checksum of row {row[0]!r} does not match")
    position, created_at, topic, key, headers, schema, body = content
    pairs = cast("list[list[str]]", json.loads(headers))
    return SpooledRecord(
        position=position,
        created_at=created_at,
        topic=topic,
        key=key,
        headers=tuple((name, value.encode("latin-1")) for name, value in pairs),
        schema=schema,
        body=body,
    )


def _checksum(content: Sequence[Any]) -> int:
    """Over types and lengths too, so that no two different rows run together to the same bytes."""
    checksum = 0
    for value in content:
        raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        checksum = zlib.crc32(b"%s:%d:" % (type(value).__name__.encode(), len(raw)), checksum)
        checksum = zlib.crc32(raw, checksum)
    return checksum
