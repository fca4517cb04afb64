"""How commands speak and how they end: results on standard output, progress on standard error, signals as an event."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Generator

_CONTROLS = {code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
"""What strangers sent is printed: their escape sequences must not reach the terminal. The escapes are JSON's own."""


def say(line: str) -> None:
    """Part of the result."""
    typer.echo(printable(line))


def printable(text: str) -> str:
    """The text without what a terminal would take for a command."""
    return text.translate(_CONTROLS)


def json_line(value: Any) -> str:
    """One JSON object, as programs and people read it."""
    return json.dumps(value, ensure_ascii=False)


def progress(line: str) -> None:
    """What is being done meanwhile; never part of the result."""
    typer.echo(line, err=True)


class Stopped(BaseException):
    """Ctrl-C or SIGTERM came while something was under way that nobody waits for any more."""


class StopSignal(threading.Event):
    """Is set by Ctrl-C and SIGTERM."""

    _interrupts = False

    @contextmanager
    def interrupting(self) -> Generator[None]:
        """What is done meanwhile is given up when the signal comes, where it stands.

        Raises:
            Stopped: it came, or had come before.
        """
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
            self._interrupts = False  # once: what follows is the tidying up
            raise Stopped


@contextmanager
def stop_signal() -> Generator[StopSignal]:
    """An event that Ctrl-C and SIGTERM set, instead of ending the process where it stands.

    What is given up for them (``interrupting``) ends the block like any other end.
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
