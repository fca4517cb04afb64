"""Records on their way to Kafka: encoded by the native core wherever it was built, else as Python has them.

What is in Python here is what the core is held to.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, cast

from confluent_kafka import murmur2

from taskbridge.streams.native_core import native
from taskbridge.streams.records import RecordWithHeaders

if TYPE_CHECKING:
    from collections.abc import Callable

_partition = cast("Callable[[bytes, int], int]", murmur2)


class PythonRecords(list[RecordWithHeaders]):
    """As ``EncodedRecords``, see ``native/_native.pyi``."""

    @property
    def value_bytes(self) -> int:
        return sum(len(value or b"") for _, value, _ in self)

    def split(self, partitions: int) -> list[tuple[int, PythonRecords]]:
        found: dict[int, PythonRecords] = {}
        for record in self:
            key = record[0]
            partition = random.randrange(partitions) if key is None else _partition(key, partitions)  # noqa: S311
            found.setdefault(partition, PythonRecords()).append(record)
        return list(found.items())


EncodedRecords = PythonRecords if native is None else native.EncodedRecords
