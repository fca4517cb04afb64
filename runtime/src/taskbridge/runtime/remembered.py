"""What was found a moment ago, so that the same is not looked for again and again."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from taskbridge.runtime.rates import PerSource

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

T = TypeVar("T")

_KEYS = 1024


class Remembered(Generic[T]):
    """For each key what was found, for some seconds, or so many times as long as it took.

    Requests at the same time share one search. Failures are not stored.
    """

    def __init__(self, seconds: float, *, pauses: float = 0, keys: int = _KEYS) -> None:
        self._seconds, self._pauses = seconds, pauses
        self._searches = PerSource[_Search[T]](_Search, limit=keys)

    async def of(self, key: object, find: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What ``find`` returned or raises. It goes on when nobody waits for it any more."""
        search = self._searches.of(key)
        if search.task is None or (search.task.done() and time.monotonic() >= search.fresh_until):
            search.fresh_until = 0.0
            search.task = asyncio.ensure_future(self._find(search, find))
        return await asyncio.shield(search.task)

    def forget(self, key: object) -> None:
        """Search again the next time; a search that is under way is shared all the same."""
        self._searches.of(key).fresh_until = 0.0

    async def _find(self, search: _Search[T], find: Callable[[], Coroutine[Any, Any, T]]) -> T:
        began = time.monotonic()
        found = await find()
        ended = time.monotonic()
        search.fresh_until = ended + max(self._seconds, self._pauses * (ended - began))
        return found


class _Search(Generic[T]):
    def __init__(self) -> None:
        self.task: asyncio.Task[T] | None = None
        self.fresh_until = 0.0
