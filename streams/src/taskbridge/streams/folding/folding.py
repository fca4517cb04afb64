"""What folds chunks: the native core where it is there, else the Python implementation. Both give the same bytes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from taskbridge.streams.folding.instance_cache import InstanceCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import Action, Change, TaskEvent, TaskNotification, TaskState, View
    from taskbridge.streams.fold.chunk import Rejected
    from taskbridge.streams.records import Chunk, RecordWithHeaders

MOST_TOLD_BYTES = 64 << 20
"""Of one event's notifications together: a long title that very many people are told of must not fill the memory."""

NONE: AbstractSet[int] = frozenset()

Read = Callable[[list[bytes]], "list[bytes | None]"]
"""What the local store holds under these record keys, in their order."""


@dataclass(slots=True)
class Folded:
    """What a chunk comes to, as it is handed to Kafka and to the store."""

    stored: dict[bytes, bytes]
    """Every instance that was folded into, as it stands at the end: by record key, in their stored form."""
    changelog: Sequence[RecordWithHeaders]
    """The same as records."""
    states: Sequence[RecordWithHeaders]
    notifications: Sequence[RecordWithHeaders]
    causes: Callable[[], Sequence[int]]
    """Of each notification, the offset of the record that it comes of; asked only where records have traces."""
    rejected: list[Rejected]
    actions: Mapping[Action, int]
    """Events that were folded, by action."""
    changes: Mapping[tuple[View, Change], int]
    """Notifications, by view and change."""
    instances: Mapping[bytes, Any]
    """What to keep in memory of each instance, once it is stored."""
    largest: int
    """Bytes of the largest value among ``stored`` and ``notifications``."""
    untold: AbstractSet[int]
    """Offsets of events whose notifications would be more than MOST_TOLD_BYTES together: here they are not complete."""

    @property
    def folded(self) -> int:
        return sum(self.actions.values())


@dataclass(eq=False)
class Folding(ABC):
    """Folds chunks and remembers the instances that they met. One generation of the group at a time."""

    core: ClassVar[str]
    events: Codec[TaskEvent]
    states: Codec[TaskState]
    notifications: Codec[TaskNotification]
    cached_instances: int
    form_fields: AbstractSet[str] = frozenset()
    """Names of those that stand in states, see ``fold.forms``; ``events`` reads forms then."""
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    most_told_bytes: int = MOST_TOLD_BYTES

    def __post_init__(self) -> None:
        self._cache = InstanceCache[Any](self.cached_instances)

    @abstractmethod
    def fold(self, records: Chunk, read: Read, *, generation: int, too_large: AbstractSet[int] = NONE) -> Folded:
        """What the records come to, in their order; ``read`` is asked once, for the instances not in memory.

        ``too_large``: offsets of records that are set aside though they could be folded: ``streams.folding.outgoing``.
        Does no I/O beside that. An error that is no record's fault leaves no trace: the chunk can be tried again.

        Raises:
            RegistryUnavailable: a schema id was never seen before, and the registry does not answer.
            StoreUnreadable: the store holds what this version cannot read.
        """

    def keep(self, folded: Folded, *, generation: int) -> None:
        """Remember the instances of a chunk that was just written to the store."""
        self._cache.keep(folded.instances, generation=generation)

    def forget(self, keys: Iterable[bytes]) -> None:
        """The store has let go of these."""
        self._cache.forget(keys)
