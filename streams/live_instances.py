"""The instances that were folded last, as the fold left them, so that their next event finds them without reading."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streams.views import Shown


class LiveInstances:
    """At most ``bound`` instances; those that were touched longest ago go first.

    Holds only what the local store holds too, or soon will (``streams.unwritten``), so that anything may be forgotten
    at any time. Everything is at each rebalance: a partition that comes back may have been somebody else's meanwhile.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._generation = -1
        self._shown: dict[bytes, Shown] = {}

    def __len__(self) -> int:
        return len(self._shown)

    def get(self, key: bytes, *, generation: int) -> Shown | None:
        if generation != self._generation:
            self._generation = generation
            self._shown.clear()
        return self._shown.get(key)

    def keep(self, instances: Mapping[bytes, Shown], *, generation: int) -> None:
        """Remember instances as they were just folded, in this generation of the group."""
        if generation != self._generation:
            return
        for key, shown in instances.items():
            self._shown.pop(key, None)  # so that it stands at the end again
            self._shown[key] = shown
        self.forget(list(islice(self._shown, max(0, len(self._shown) - self._bound))))

    def forget(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._shown.pop(key, None)
