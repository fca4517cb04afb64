"""Limits on how often something happens, and how much of it at once, per source and for all, in bounded memory."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

T = TypeVar("T")

MAX_SOURCES = 4096
"""Sources that are remembered. The limit for all sources bounds a sender with more addresses."""


class Bucket:
    """Starts full and refills evenly. Times are seconds of one clock."""

    __slots__ = ("_at", "_capacity", "_level", "_per_s")

    def __init__(self, capacity: float, *, full_after_s: float, now: float) -> None:
        self._capacity = self._level = capacity
        self._per_s = capacity / full_after_s
        self._at = now

    def holds(self, amount: float, *, now: float) -> bool:
        self._level = min(self._capacity, self._level + max(0.0, now - self._at) * self._per_s)
        self._at = now
        return self._level >= amount

    def consume(self, amount: float) -> None:
        self._level -= amount


def consume_all(amounts: Sequence[tuple[Bucket, float]], *, now: float) -> bool:
    """Consume every amount from its bucket; where one holds too little, consume nothing and return False."""
    if not all(bucket.holds(amount, now=now) for bucket, amount in amounts):
        return False
    for bucket, amount in amounts:
        bucket.consume(amount)
    return True


class PerSource(Generic[T]):
    """One value per source, made at its first use; the least recently used one is dropped for a new one."""

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


class Rate:
    """How often something may happen for each source: ``most`` times at once, and as many in ``per_s`` seconds."""

    def __init__(self, most: float, *, per_s: float) -> None:
        self._buckets = PerSource(lambda: Bucket(most, full_after_s=per_s, now=0.0))

    def allows(self, source: object, *, times: int = 1) -> bool:
        """Whether it may happen now, so many times; it then counts."""
        return consume_all([(self._buckets.of(source), times)], now=time.monotonic())

    def check(self, source: object, refusal: Callable[[], Exception]) -> None:
        """As ``allows``, once; raises the refusal if it may not happen."""
        if not self.allows(source):
            raise refusal()


class AtOnce:
    """How much may be under way of each source."""

    def __init__(self, most: int) -> None:
        self._most, self._under_way = most, Counter[object]()

    @contextmanager
    def of(self, source: object, refusal: Callable[[], Exception]) -> Generator[None]:
        """One more of this source, for the block; raises the refusal if there are too many."""
        if self._under_way[source] >= self._most:
            raise refusal()
        self._under_way[source] += 1
        try:
            yield
        finally:
            self._under_way[source] -= 1
            if not self._under_way[source]:
                del self._under_way[source]
