"""Detects a worker that makes no progress although records wait, and ends a process that cannot end itself."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = structlog.get_logger(__name__)

_POLL_S = 1.0
_STUCK_EXIT_CODE = 70


class Stuck(OperatorError):
    """Records wait, but none was processed for too long: the worker exits, so that its supervisor restarts it."""


class Watchdog:
    """Raises when a worker makes no progress for too long. Pure."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._done: int | None = None
        self._since = 0.0

    def look(self, *, done: int, waiting: int, now: float) -> None:
        """Raise Stuck if ``done``, any number that changes with progress, has not changed for too long."""
        if done != self._done or waiting == 0:
            self._done, self._since = done, now
        if (still_s := now - self._since) > self._patience_s:
            raise Stuck(f"{waiting} records wait, but none was processed for {still_s:.0f} s")


class TimesStuck:
    """How often a worker on this data folder exited because it stalled.

    Stored in a file for the next worker's metrics: an exiting worker is hardly ever scraped in time.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "times-stuck"

    def count(self) -> int:
        """0 if the file is missing or unreadable."""
        with suppress(OSError, ValueError):
            return int(self._path.read_text("ascii"))
        return 0

    def add(self) -> None:
        """Count this worker. A disk error does not delay its exit."""
        with suppress(OSError):
            self._path.write_text(str(self.count() + 1), "ascii")


class LoopGuard:
    """A thread that ends the process when its event loop no longer runs, or does not stop when requested."""

    def __init__(self, patience_s: float, times: TimesStuck, *, end: Callable[[int], None] = os._exit) -> None:
        self._patience_s = patience_s
        self._times = times
        self._end = end
        self._beat = time.monotonic()
        threading.Thread(target=self._watch, name="loop-guard", daemon=True).start()

    def beat(self) -> None:
        self._beat = time.monotonic()

    def _watch(self) -> None:
        while (still_s := time.monotonic() - self._beat) <= self._patience_s:
            time.sleep(min(_POLL_S, self._patience_s / 4))
        log.error("event_loop_stalled", seconds=round(still_s))
        faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
        self._times.add()
        self._end(_STUCK_EXIT_CODE)
