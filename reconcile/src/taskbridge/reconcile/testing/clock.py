"""A clock that stands still but for those who wait by it."""

from __future__ import annotations

import asyncio


class FakeClock:
    def __init__(self, now_ms: int) -> None:
        self._now_ms = float(now_ms)

    def now_ms(self) -> int:
        return int(self._now_ms)

    async def sleep(self, seconds: float) -> None:
        self.pass_s(seconds)
        await asyncio.sleep(0)

    def pass_s(self, seconds: float) -> None:
        self._now_ms += seconds * 1000
