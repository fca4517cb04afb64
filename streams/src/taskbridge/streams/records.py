"""A record of Kafka as the parts of the service hand it to each other. Types only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Record(Protocol):
    """A record as the consumer gives it."""

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
"""Records of one partition, in their order."""

RecordWithHeaders = tuple[bytes | None, bytes | None, Any]
"""Key, value, headers: a list of names and bytes, for which the library's type hints have no room."""
