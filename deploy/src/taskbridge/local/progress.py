"""Progress messages: no operation is silent for longer than two seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Progress = Callable[[str], None]
Result = TypeVar("Result")

_INTERVAL_S = 2.0


class Heartbeat:
    """Forwards a message if the last one is two seconds old, else drops it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began = self._last = time.monotonic()

    def beat(self, message: str) -> None:
        now = time.monotonic()
        if now - self._last >= _INTERVAL_S:
            self._last = now
            self._progress(f"{message}, {now - self._began:.0f} s")


def call_with_heartbeat(call: Callable[[], Result], progress: Progress, message: str) -> Result:
    """Return what ``call`` returns or raise what it raises, and report progress meanwhile."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  raised again in the waiting thread
            errors.append(error)

    # A daemon thread: Ctrl-C during a long call does not wait for its end.
    thread = threading.Thread(target=run, name="call-with-heartbeat", daemon=True)
    heartbeat = Heartbeat(progress)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        heartbeat.beat(message)
    if errors:
        raise errors[0]
    return results[0]
