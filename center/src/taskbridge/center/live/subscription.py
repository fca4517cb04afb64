"""What one stream has still to write, and why it ended. Does no I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WAITING_MAX = 256
"""Events that may wait for one slow reader. They are shared between streams; a reader that resumes has lost none."""


class Ending(StrEnum):
    """Why a stream ended; also the label of a metric."""

    SLOW = "slow"
    REBUILT = "rebuilt"
    """Changes are numbered from the beginning again, or some were purged: a client that resumes gets ``reset``."""
    STOPPING = "stopping"
    ACCESS = "access"
    """Its token was revoked, or the proxy must check again whether the person is still signed in."""


@dataclass(slots=True, eq=False)
class Subscription:
    """What one stream has still to write."""

    person: tuple[str, str]
    due: float
    """When the next heartbeat is."""
    may_go_on: Callable[[float], bool]
    epoch: str = ""
    begins: int = 0
    """Every change after this number comes by itself."""
    reached: int = 0
    """Nothing up to this number is given out any more."""
    ending: Ending | None = None
    _beats: bool = False
    _wake: Callable[[], None] | None = None
    _waiting: deque[tuple[int, bytes]] | None = None  # most have nothing waiting for most of their life

    def wake_by(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called whenever there is something to write, from within the loop."""
        self._wake = wake

    def push(self, seq: int, frame: bytes) -> None:
        """Add a change that the stream has not seen; a stream in which too many wait ends."""
        if self.ending is not None or seq <= self.reached:
            return
        if self._waiting is None:
            self._waiting = deque()
        if len(self._waiting) >= WAITING_MAX:
            self.end(Ending.SLOW)
            return
        self._waiting.append((seq, frame))
        self._woken()

    def beat(self, next_due: float) -> None:
        """A heartbeat is to be written, and the one after it at ``next_due``."""
        self.due, self._beats = next_due, True
        self._woken()

    def end(self, ending: Ending) -> None:
        """Nothing more will come. Waiting frames are dropped: a client that resumes gets them."""
        if self.ending is None:
            self.ending, self._waiting = ending, None
            self._woken()

    def seen(self, seq: int) -> None:
        """The client has everything up to this number: it is not given out again."""
        self.reached = seq

    def take(self) -> tuple[int, bytes]:
        """How many events wait, and all of them in one piece, in place of a heartbeat that waits too."""
        waiting, self._waiting = self._waiting, None
        fresh: list[bytes] = []
        for seq, frame in waiting or ():
            if seq > self.reached:
                self.reached = seq
                fresh.append(frame)
        if fresh:
            self._beats = False
        return len(fresh), b"".join(fresh)

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
