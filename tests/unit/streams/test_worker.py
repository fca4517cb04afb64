"""A worker ends although a part of it does not."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from taskbridge.streams.worker import stop_app


class _Stubborn:
    """As a service of Faust's is: when it is cancelled, it goes on to the next of its parts, which waits as long."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.was_cancelled = False

    async def stop(self) -> None:
        while not self.may_end.is_set():
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                self.was_cancelled = True


async def test_a_part_that_does_not_stop_is_not_awaited() -> None:
    app = _Stubborn()
    asyncio.get_running_loop().call_later(20, app.may_end.set)  # so that a failure is one, and no standstill
    await stop_app(cast("Any", app), within_s=0.01)
    assert not app.may_end.is_set()
    assert not app.was_cancelled
    app.may_end.set()
