"""What one stream has still to write, and why it ended. Does no I/O."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WAITING_MAX = 256
"""Events that may wait for one slow reader. They are shared between streams; a reader that resumes has lost none."""


class Ending(StrEnum):
    """Why a stream ended; also the label of a metric."""

    SLOW = "slow"
    MOVED = "moved"
    STOPPING = "stopping"
    ACCESS = "access"
    """Its token was taken back, or it is time to ask the proxy again whether somebody is still signed in."""


class Subscription:
    """What one stream has still to write. ``wake`` is called whenever there is something, from within the loop."""

    __slots__ = (
        "_waiting",
        "beats",
        "begins",
        "due",
        "ending",
        "may_go_on",
        "next_offset",
        "partition",
        "person",
        "wake",
    )

    def __init__(
        self,
        corp_id: str,
        user_id: str,
        partition: int,
        *,
        begins: int,
        due: float,
        wake: Callable[[], None],
        may_go_on: Callable[[float], bool],
    ) -> None:
        self.person = (corp_id, user_id)
        self.partition = partition
        self.begins = begins
        """Every notification from this offset on comes by itself."""
        self.next_offset = 0
        """Nothing before this offset is given out any more."""
        self.wake = wake
        self.may_go_on = may_go_on
        self.due = due
        """When the next heartbeat is."""
        self.beats = False
        """A heartbeat is to be written."""
        self.ending: Ending | None = None
        self._waiting: deque[tuple[int, bytes]] | None = None  # most have nothing waiting for most of their life

    def push(self, offset: int, frame: bytes) -> None:
        """Put in what the stream has not seen; one that lets too much wait ends."""
        if self.ending is not None or offset < self.next_offset:
            return
        if self._waiting is None:
            self._waiting = deque()
        if len(self._waiting) >= WAITING_MAX:
            self.end(Ending.SLOW)
            return
        self._waiting.append((offset, frame))
        self.wake()

    def end(self, ending: Ending) -> None:
        """Nothing more will come. What waits is dropped: whoever resumes gets it."""
        if self.ending is None:
            self.ending, self._waiting = ending, None
            self.wake()

    def take(self) -> tuple[int, bytes]:
        """How many events wait, and all of them in one piece."""
        waiting, self._waiting = self._waiting, None
        fresh: list[bytes] = []
        for offset, frame in waiting or ():
            if offset >= self.next_offset:
                self.next_offset = offset + 1
                fresh.append(frame)
        return len(fresh), b"".join(fresh)

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)
