"""Records under way to Kafka that nobody waits for: each tells at once what became of it, and is late at some time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec import Struct

from taskbridge.runtime.producer import DeliveryFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.edge.kafka.record import Record


def late() -> DeliveryFailed:
    return DeliveryFailed("no acknowledgement in time")


class Sendings(dict["Sending", "Record"]):
    """Those under way, the oldest first. All have the same time, so one timer is enough: for the oldest."""

    def __init__(self, failed: Callable[[Record, Exception], None]) -> None:
        """``failed`` is told of each before its own ``then`` is."""
        super().__init__()
        self.failed = failed
        self.loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, record: Record, then: Callable[[Exception | None], None], timeout_s: float) -> Sending:
        """One more; ``then`` is told what becomes of it."""
        if self.loop is None:
            self.loop = asyncio.get_running_loop()
        sending = Sending(self, record, then, self.loop.time() + timeout_s)
        self[sending] = record
        if self._timer is None:
            self._timer = self.loop.call_later(timeout_s, self._look)
        return sending

    def _look(self) -> None:
        assert self.loop is not None, "one was added"
        now = self.loop.time()
        self._timer = None
        for each in list(self):
            if each.late_at > now:
                self._timer = self.loop.call_at(each.late_at, self._look)
                break
            if not each.done():
                each.set_exception(late())


class Sending(Struct, eq=False):
    """One record: to the producer a future, whose result is not told in the loop's next turn but now."""

    _all: Sendings
    _record: Record
    _then: Callable[[Exception | None], None]
    late_at: float
    _is_done: bool = False

    def done(self) -> bool:
        return self._is_done

    def set_result(self, _result: None) -> None:
        self._is_done = True
        del self._all[self]
        self._then(None)

    def set_exception(self, error: Exception) -> None:
        """It is told in the next turn: of one failure come others."""
        self._is_done = True
        del self._all[self]
        assert self._all.loop is not None, "it was added"
        self._all.loop.call_soon(self._fail, error)

    def _fail(self, error: Exception) -> None:
        try:
            self._all.failed(self._record, error)
        finally:
            self._then(error)
