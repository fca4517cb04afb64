"""One open connection of server-sent events: what was missed first, then what comes, until an end.

At rest a connection is one coroutine that waits for the client's end. What is to be written is written by a task that
lives as long as there is something: ten thousand idle streams are then ten thousand coroutines, and nothing more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from taskbridge.center.live.wire import MEDIA_TYPE, OPENING, Place, end_frame, heartbeat_frame, reset_frame
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from taskbridge.center.live.hub import Hub


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


_HEADERS = [
    (b"content-type", MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store"),
    # nginx would hold events back until its buffer is full.
    (b"x-accel-buffering", b"no"),
]

_HELD = "taskbridge.event_stream"
_NEEDED_BY_SERVER = {"type", "method", "http_version", "path", "query_string", "client"}
"""What uvicorn reads of a request until its end. The rest, headers and all, would be kept as long as the stream."""

_REBUILT = "the lists were rebuilt after this id"
_TOO_OLD = "changes after this id are no longer stored"


class EventStream(Response):
    """An answer that goes on for long: only its head goes through the framework's layers, which add their headers.

    The rest is left to ``HoldsStreams``: the layers would stay on the stack for as long as a stream lives, and take as
    much memory again as the stream.
    """

    def __init__(self, stream: Stream) -> None:
        # Without Response's own: it would make a body and headers that are never sent.
        self.background = None
        self.status_code = 200
        self._stream = stream

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        scope[_HELD] = self._stream


class HoldsStreams:
    """Goes around the whole app, and writes the streams that requests to it have opened."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        stream: Stream | None = scope.pop(_HELD, None)
        if stream is not None:
            for name in set(scope) - _NEEDED_BY_SERVER:
                del scope[name]
            await stream.run(receive, send)


@dataclass(slots=True, eq=False)
class Stream:
    """One connection: what is still to be written to it, and the writing."""

    hub: Hub
    person: tuple[str, str]
    due: float
    """When the next heartbeat is."""
    may_go_on: Callable[[float], bool]
    resume: Place | None = None
    """What its client has already."""
    epoch: str = ""
    begins: int = 0
    """Every change after this number comes by itself."""
    reached: int = 0
    """Nothing up to this number is given out any more."""
    ending: Ending | None = None
    _beats: bool = False
    _wake: Callable[[], None] | None = None
    _waiting: deque[tuple[int, bytes]] | None = None  # most have nothing waiting for most of their life
    _send: Send | None = None
    _task: asyncio.Task[None] | None = None

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

    async def run(self, receive: Receive, send: Send) -> None:
        """Write on behind the head; return when the client has gone or the stream has ended."""
        try:
            await send({"type": "http.response.body", "body": OPENING, "more_body": True})
            self._send = send
            self._task = asyncio.get_running_loop().create_task(self._begin())
            self.wake_by(self._go_on)
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self.hub.leave(self)
            if self._task is not None:
                self._task.cancel()

    def _go_on(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def _begin(self) -> None:
        try:
            if self.resume is not None:
                await self._catch_up(self.resume)
        except OperatorError as error:
            await self._close(str(error))
            return
        # One who loses the connection before the first event has a place to go on from, and misses nothing.
        self.beat(self.due)
        await self._write()

    async def _catch_up(self, resume: Place) -> None:
        """Write the changes between the id and those that come by themselves, which begin after them."""
        person, (epoch, at), until = self.person, resume, self.begins
        if epoch == self.epoch and at > until:
            # Another replica has read further: so the change exists, and nothing up to it is given out again.
            if await self.hub.missed(person, at - 1, at):
                self.seen(at)
                return
            epoch = ""
        if epoch != self.epoch:
            await self._put(reset_frame(_REBUILT))
            return
        while at < until and self.ending is None:
            part = await self.hub.missed(person, at, until)
            if not part or part[0].place != Place(epoch, at + 1):
                await self._put(reset_frame(_TOO_OLD))
            if not part or part[0].place.epoch != epoch:
                return
            self.hub.sent += len(part)
            await self._put(b"".join(each.frame for each in part))
            at = part[-1].place.seq

    async def _write(self) -> None:
        """Write until there is nothing, or the end. Between the last look and the task's end there is no ``await``."""
        while True:
            if self.ending is not None:
                await self._close(self.ending)
                return
            count, fresh = self.take()
            if fresh:
                self.hub.sent += count
                await self._put(fresh)
            elif self.take_beat():
                await self._put(heartbeat_frame(self.hub.place(self)))
            else:
                self._task = None
                return

    async def _put(self, body: bytes) -> None:
        await self._sending({"type": "http.response.body", "body": body, "more_body": True})

    async def _close(self, reason: str) -> None:
        await self._sending({"type": "http.response.body", "body": end_frame(reason), "more_body": False})

    async def _sending(self, message: Any) -> None:
        assert self._send is not None
        await self._send(message)
