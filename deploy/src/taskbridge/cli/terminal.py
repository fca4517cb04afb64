"""Output and signals of commands: results on standard output, progress on standard error, signals as an event."""

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
"""Received data is printed, and its escape sequences must not reach the terminal. The escapes are those of JSON."""


def say(line: str) -> None:
    """Print a line of the result on standard output."""
    typer.echo(printable(line))


def printable(text: str) -> str:
    """The text with control characters escaped."""
    return text.translate(_CONTROLS)


def json_line(value: Any) -> str:
    """The value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


def progress(line: str) -> None:
    """Print a line of progress on standard error; never part of the result."""
    typer.echo(line, err=True)


class Stopped(BaseException):
    """Ctrl-C or SIGTERM interrupted a block of ``interrupting``."""


class StopSignal(threading.Event):
    """An event that Ctrl-C and SIGTERM set."""

    _interrupts = False

    @contextmanager
    def interrupting(self) -> Generator[None]:
        """Abort the block when the signal arrives.

        Raises:
            Stopped: the signal arrived, or had arrived before.
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
