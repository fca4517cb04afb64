"""The instances that were folded last, as the fold keeps them, so that their next event finds them without reading."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")
"""An instance in memory."""


class LiveInstances(Generic[T]):
    """At most ``bound`` instances; those that were touched longest ago go first.

    Holds only what the local store holds too, or soon will (``streams.fold.unwritten``), so that anything may be
    forgotten at any time. Everything is at each rebalance: a partition that comes back may have been somebody else's
    meanwhile.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._generation = -1
        self._kept: dict[bytes, T] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes, *, generation: int) -> T | None:
        if generation != self._generation:
            self._generation = generation
            self._kept.clear()
        return self._kept.get(key)

    def keep(self, instances: Mapping[bytes, T], *, generation: int) -> None:
        """Remember instances as they were just folded, in this generation of the group."""
        if generation != self._generation:
            return
        for key, instance in instances.items():
            self._kept.pop(key, None)  # so that it stands at the end again
            self._kept[key] = instance
        self.forget(list(islice(self._kept, max(0, len(self._kept) - self._bound))))

    def forget(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._kept.pop(key, None)
