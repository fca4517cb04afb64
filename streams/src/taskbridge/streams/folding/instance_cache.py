"""The instances that were folded last, as the fold keeps them, so that their next event finds them without reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")
"""An instance in memory."""


class InstanceCache(Generic[T]):
    """At most ``bound`` instances; those that were touched longest ago go first, half of the bound at a time.

    Holds only what the local store holds too, or soon will (``streams.processing.pending_writes``), so that anything
    may be forgotten at any time. Everything is at each rebalance: a partition that comes back may have been
    somebody else's meanwhile.

    Two dicts rather than one in the order of touch: a chunk is kept by one call, and none for each instance.
    """

    def __init__(self, bound: int) -> None:
        self._half = bound // 2
        self._generation = -1
        self._recent: dict[bytes, T] = {}
        self._older: dict[bytes, T] = {}

    def __len__(self) -> int:
        return len(self._recent.keys() | self._older.keys())

    def find(
        self, keys: list[bytes], read: Callable[[list[bytes]], Iterable[T | None]], *, generation: int
    ) -> list[T | None]:
        """These instances, in the order of their keys; ``read`` is asked once for those that are not in memory."""
        if generation != self._generation:
            self._generation = generation
            self._recent, self._older = {}, {}
        recent, older = self._recent, self._older
        found = [recent[key] if key in recent else older.get(key) for key in keys]
        missing = [at for at, instance in enumerate(found) if instance is None]
        if missing:
            for at, instance in zip(missing, read([keys[at] for at in missing]), strict=True):
                found[at] = instance
        return found

    def keep(self, instances: Mapping[bytes, T], *, generation: int) -> None:
        """Remember instances as they were just folded, in this generation of the group."""
        if generation != self._generation:
            return
        if len(self._recent) + len(instances) > self._half:
            self._recent, self._older = {}, self._recent
        if len(instances) <= self._half:
            self._recent.update(instances)
        else:
            # What is older of them must not be found in their stead.
            self.forget(instances)

    def forget(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._recent.pop(key, None)
            self._older.pop(key, None)
