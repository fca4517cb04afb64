"""What a fetch asks of all partitions, and is told of them, in a fifth of the time that aiokafka takes.

aiokafka makes three calls for each number, and each poll names every partition, whether there is anything new of it or
not. Only the topics of the newest version that it speaks are read and written here; whatever is not plain in them, and
every error, is its own.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, cast

from aiokafka.protocol.fetch import FetchRequest_v11, FetchResponse_v11

if TYPE_CHECKING:
    from collections.abc import Sequence
    from io import BytesIO

_LENGTH, _COUNT = struct.Struct(">h"), struct.Struct(">i")
_ASKED = struct.Struct(">iiqqi")
_TOLD = struct.Struct(">ihqqqi")
"""Partition, code, three offsets, and how many aborted transactions follow."""
_ABORTED = struct.Struct(">qq")
_RECORDS = struct.Struct(">ii")
"""The replica to read from, and how many bytes of records follow."""

_NULL = -1

_Asked = tuple[str, "Sequence[tuple[int, int, int, int, int]]"]
_Told = tuple[str, list[tuple[Any, ...]]]


class Topics:
    """In the place of the field of aiokafka's schema."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def encode(self, topics: Sequence[_Asked]) -> bytes:
        """Those of a request."""
        parts = [_COUNT.pack(len(topics))]
        try:
            for topic, partitions in topics:
                name = topic.encode()
                parts += _LENGTH.pack(len(name)), name, _COUNT.pack(len(partitions))
                parts += [_ASKED.pack(*each) for each in partitions]
        except struct.error:
            return self.own.encode(topics)
        return b"".join(parts)

    def decode(self, response: BytesIO) -> list[_Told] | None:
        """Those of a response, which is behind them afterwards."""
        begin = response.tell()
        try:
            topics, end = _told(response.getvalue(), begin)
        except (struct.error, ValueError):
            return self.own.decode(response)
        response.seek(end)
        return topics

    def repr(self, topics: Any) -> str:
        """For aiokafka's log."""
        return self.own.repr(topics)


def write_and_read_fetches() -> None:
    """From now on, in this process."""
    for message in (FetchRequest_v11, FetchResponse_v11):
        schema = cast("Any", message.SCHEMA)
        schema.fields = tuple(
            Topics(field) if name == "topics" and not isinstance(field, Topics) else field
            for name, field in zip(schema.names, schema.fields, strict=True)
        )


def _told(response: bytes, at: int) -> tuple[list[_Told], int]:
    (count,) = _COUNT.unpack_from(response, at)
    at += _COUNT.size
    topics: list[_Told] = []
    for _ in range(_plain(count)):
        (length,) = _LENGTH.unpack_from(response, at)
        at += _LENGTH.size
        topic = response[at : at + _plain(length)].decode()
        at += length
        (count,) = _COUNT.unpack_from(response, at)
        at += _COUNT.size
        partitions: list[tuple[Any, ...]] = []
        for _ in range(_plain(count)):
            partition, code, high, stable, start, count = _TOLD.unpack_from(response, at)
            at += _TOLD.size
            aborted: list[tuple[int, int]] | None = []
            if count == _NULL:
                aborted = None
            elif count:
                ends = at + _ABORTED.size * _plain(count)
                aborted = [*_ABORTED.iter_unpack(response[at:ends])]
                at = ends
            replica, size = _RECORDS.unpack_from(response, at)
            at += _RECORDS.size
            records = None
            if size != _NULL:
                records = response[at : at + _plain(size)]
                at += size
            partitions.append((partition, code, high, stable, start, aborted, replica, records))
        topics.append((topic, partitions))
    if at > len(response):
        raise ValueError("it ends too early")
    return topics, at


def _plain(number: int) -> int:
    if number < 0:
        raise ValueError("not plain")
    return number
