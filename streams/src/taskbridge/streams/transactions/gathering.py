"""What one poll brought of several partitions, kept together on its way to a transaction."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.streams.transactions.delivery import Delivery

_FEW = 100
"""Records that may wait for what follows: it takes less time to fold than a transaction takes."""
_FOLLOWS_WITHIN_S = 0.002
"""What a poll brought is begun within some turns of the loop; where it is not, nothing waits for it."""


class Gathering:
    """Passes deliveries on in order, at once those that waited. Few of them wait for what follows, in bounded time.

    Two transactions of one record each, one behind the other, take twice as long as one of both. While one is under way
    nothing waits here: all that comes meanwhile shares the next one.
    """

    def __init__(self, pass_on: Callable[[Sequence[Delivery]], None], *, is_under_way: Callable[[], bool]) -> None:
        self._pass_on = pass_on
        self._is_under_way = is_under_way
        self._here: list[Delivery] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, delivery: Delivery, *, more_follow: bool) -> None:
        """Called in the loop."""
        self._here.append(delivery)
        if not more_follow or self._is_under_way() or sum(each.records for each in self._here) > _FEW:
            self._end()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FOLLOWS_WITHIN_S, self._end)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # As one: who takes them is another thread, and might come between two of them.
        here, self._here = self._here, []
        self._pass_on(here)
