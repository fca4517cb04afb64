"""Kafka records as parts of the service pass them on: types, and the encoded form in which they are sent.

The native core encodes them where it is installed. The Python version defines what the core must do.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Protocol, cast

from confluent_kafka import murmur2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Record(Protocol):
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


Chunk = list[Record]

RecordWithHeaders = tuple[bytes | None, bytes | None, Any]
"""Key, value, and headers: a list of names and bytes, which the library's type hints do not allow."""

try:
    from taskbridge.native import _native
except ImportError:  # installed without the extra `native`
    _native = None

native = _native

target_partition = cast("Callable[[bytes, int], int]", murmur2)
"""The partition of a key among so many, by the partitioner of all our producers and of the Java client."""


class PythonRecords(list[RecordWithHeaders]):
    @property
    def value_bytes(self) -> int:
        return sum(len(value or b"") for _, value, _ in self)

    def split(self, partitions: int) -> list[tuple[int, PythonRecords]]:
        found: dict[int, PythonRecords] = {}
        for record in self:
            key = record[0]
            partition = random.randrange(partitions) if key is None else target_partition(key, partitions)  # noqa: S311
            found.setdefault(partition, PythonRecords()).append(record)
        return list(found.items())


EncodedRecords = PythonRecords if native is None else native.EncodedRecords
