"""One deadline of a connection: set at most once at a time, and lifted when what it waits for has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Deadline:
    """Calls what is to happen then, unless it is lifted before."""

    __slots__ = ("_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float, late: Callable[[], None]) -> None:
        """From now on, unless one is set: then that one stands."""
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._pass, late)

    def lift(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass(self, late: Callable[[], None]) -> None:
        self._timer = None
        late()
