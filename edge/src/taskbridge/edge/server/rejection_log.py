"""Decides which refusals are worth a line in the log: a flood must not fill the disk with them either."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taskbridge.edge.server.sources import site_of
from taskbridge.runtime.rates import Bucket, PerSource, take_all

if TYPE_CHECKING:
    from collections.abc import Callable

LINES_PER_MINUTE = 30
"""Of one reason from one sender."""
ALL_LINES_PER_MINUTE = 600
_MINUTE_S = 60


class RejectionLog:
    """Admits a bounded number of lines a minute, and counts what it leaves out; the metrics count everything."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = self._bucket(ALL_LINES_PER_MINUTE)
        self._lines = PerSource(lambda: self._bucket(LINES_PER_MINUTE))
        self._left_out = 0

    def admit(self, reason: str, remote_address: str) -> int | None:
        """None: leave this line out. Else write it, and say that so many were left out before it, of any kind."""
        lines = self._lines.of((reason, site_of(remote_address)))
        if not take_all([(lines, 1), (self._all, 1)], now=self._clock()):
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        return left_out

    def _bucket(self, lines: int) -> Bucket:
        return Bucket(lines, full_after_s=_MINUTE_S, now=self._clock())
