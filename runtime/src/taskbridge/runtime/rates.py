"""Token buckets: how often something may happen, for each source and for all together, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

MAX_SOURCES = 4096
"""Remembered at a time. A sender with more addresses than this meets the bound for all together."""


class Bucket:
    """Starts full, is filled again evenly, and gives no more than it holds. Times are seconds of one clock."""

    __slots__ = ("_at", "_capacity", "_level", "_per_s")

    def __init__(self, capacity: float, *, full_after_s: float, now: float) -> None:
        self._capacity = self._level = capacity
        self._per_s = capacity / full_after_s
        self._at = now

    def holds(self, amount: float, *, now: float) -> bool:
        self._level = min(self._capacity, self._level + max(0.0, now - self._at) * self._per_s)
        self._at = now
        return self._level >= amount

    def take(self, amount: float) -> None:
        self._level -= amount


def take_all(wanted: Sequence[tuple[Bucket, float]], *, now: float) -> bool:
    """Take every amount from its bucket, or, where one holds too little, nothing from any."""
    if not all(bucket.holds(amount, now=now) for bucket, amount in wanted):
        return False
    for bucket, amount in wanted:
        bucket.take(amount)
    return True


class PerSource(Generic[T]):
    """One value for each source, made when first asked for; the one that was not asked for longest makes room."""

    def __init__(self, make: Callable[[], T], *, limit: int = MAX_SOURCES) -> None:
        self._make = make
        self._limit = limit
        self._values: OrderedDict[object, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def of(self, source: object) -> T:
        value = self._values.get(source)
        if value is None:
            value = self._values[source] = self._make()
            if len(self._values) > self._limit:
                self._values.popitem(last=False)
        else:
            self._values.move_to_end(source)
        return value
