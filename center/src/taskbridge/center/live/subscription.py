"""What one stream has still to write, and why it ended. Does no I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WAITING_MAX = 256
"""Events that may wait for one slow reader. They are shared between streams; a reader that resumes has lost none."""


class Ending(StrEnum):
    """Why a stream ended; also the label of a metric."""

    SLOW = "slow"
    MOVED = "moved"
    STOPPING = "stopping"
    ACCESS = "access"
    """Its token was taken back, or it is time to ask the proxy again whether somebody is still signed in."""


@dataclass(slots=True, eq=False)
class Subscription:
    """What one stream has still to write."""

    person: tuple[str, str]
    partition: int
    begins: int
    """Every notification from this offset on comes by itself."""
    due: float
    """When the next heartbeat is."""
    may_go_on: Callable[[float], bool]
    next_offset: int = 0
    """Nothing before this offset is given out any more."""
    ending: Ending | None = None
    _beats: bool = False
    _wake: Callable[[], None] | None = None
    _waiting: deque[tuple[int, bytes]] | None = None  # most have nothing waiting for most of their life
    _written: Sequence[Callable[[], None]] = ()

    def wake_by(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called whenever there is something to write, from within the loop."""
        self._wake = wake

    def push(self, offset: int, frame: bytes, written: Callable[[], None] | None = None) -> None:
        """Put in what the stream has not seen; one that lets too much wait ends. ``written``: to be called then."""
        if self.ending is not None or offset < self.next_offset:
            return
        if self._waiting is None:
            self._waiting = deque()
        if len(self._waiting) >= WAITING_MAX:
            self.end(Ending.SLOW)
            return
        self._waiting.append((offset, frame))
        if written is not None:
            self._written = [*self._written, written]
        self._woken()

    def beat(self, next_due: float) -> None:
        """A heartbeat is to be written, and the one after it at ``next_due``."""
        self.due, self._beats = next_due, True
        self._woken()

    def end(self, ending: Ending) -> None:
        """Nothing more will come. Waiting frames are dropped: a client that resumes gets them."""
        if self.ending is None:
            self.ending, self._waiting, self._written = ending, None, ()
            self._woken()

    def seen(self, next_offset: int) -> None:
        """The client has everything before this offset: it is not given out again."""
        self.next_offset = next_offset

    def comes_again(self, offset: int) -> None:
        """What was put in from this offset on will be put in again, and is given out then, too."""
        self.next_offset = min(self.next_offset, offset)
        if self._waiting is not None:
            self._waiting = deque(each for each in self._waiting if each[0] < offset)

    def take(self) -> tuple[int, bytes]:
        """How many events wait, and all of them in one piece, in place of a heartbeat that waits too."""
        waiting, self._waiting = self._waiting, None
        fresh: list[bytes] = []
        for offset, frame in waiting or ():
            if offset >= self.next_offset:
                self.next_offset = offset + 1
                fresh.append(frame)
        if fresh:
            self._beats = False
        return len(fresh), b"".join(fresh)

    def take_written(self) -> Sequence[Callable[[], None]]:
        """What is to be called when that which was just taken is written."""
        written, self._written = self._written, ()
        return written

    def take_beat(self) -> bool:
        """Whether a heartbeat waits; it does no more."""
        beats, self._beats = self._beats, False
        return beats

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def _woken(self) -> None:
        if self._wake is not None:
            self._wake()
