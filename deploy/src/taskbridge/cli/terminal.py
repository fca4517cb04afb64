"""Output and signals of commands: results on standard output, progress on standard error, signals as an event.

No operation is silent for longer than two seconds: see ``Heartbeat``.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Generator

Progress = Callable[[str], None]
"""Reports one line of progress, such as ``progress``."""
Result = TypeVar("Result")

_INTERVAL_S = 2.0
_CONTROLS = {code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
"""Received data is printed, and its escape sequences must not reach the terminal. The escapes are those of JSON."""


def say(line: str) -> None:
    typer.echo(printable(line))


def printable(text: str) -> str:
    return text.translate(_CONTROLS)


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number and its noun, in the plural unless it is one; ``many`` is the plural that is not ``one`` and an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def json_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def progress(line: str) -> None:
    """Print a line of progress on standard error; never part of the result."""
    typer.echo(line, err=True)


class Heartbeat:
    """Forwards a message if the last one is two seconds old, else drops it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._started = self._last = time.monotonic()

    def beat(self, message: str) -> None:
        now = time.monotonic()
        if now - self._last >= _INTERVAL_S:
            self._last = now
            self._progress(f"{message}, {now - self._started:.0f} s")


def call_with_heartbeat(call: Callable[[], Result], progress: Progress, message: str) -> Result:
    """Return or raise the outcome of ``call``, and report progress meanwhile."""
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            outcome.set_exception(error)

    heartbeat = Heartbeat(progress)
    # A daemon thread: Ctrl-C during a long call does not wait for its end.
    threading.Thread(target=run, name="call-with-heartbeat", daemon=True).start()
    while not wait([outcome], 0.1).done:
        heartbeat.beat(message)
    return outcome.result()


class Stopped(BaseException):
    """Ctrl-C or SIGTERM interrupted a block of ``interrupting``."""


class StopSignal(threading.Event):
    """An event that Ctrl-C and SIGTERM set."""

    _interrupts = False

    @contextmanager
    def interrupting(self) -> Generator[None]:
        """Abort the block when the signal arrives. Raises Stopped if the signal arrived, or had arrived before."""
        self._interrupts = True
        try:
            if self.is_set():
                raise Stopped
            yield
        finally:
            self._interrupts = False

    def arrive(self, _signum: int, _frame: object) -> None:
        self.set()
        if self._interrupts:
            self._interrupts = False  # once: cleanup follows
            raise Stopped


@contextmanager
def stop_signal() -> Generator[StopSignal]:
    """An event that Ctrl-C and SIGTERM set, instead of ending the process.

    An aborted ``interrupting`` block ends this block normally.
    """
    stop = StopSignal()
    before = {each: signal.signal(each, stop.arrive) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except Stopped:
        pass
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
