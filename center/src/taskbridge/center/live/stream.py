"""One open connection of server-sent events: what was missed first, then what comes, until an end.

At rest a connection is one coroutine that waits for the client's end. What is to be written is written by a task that
lives as long as there is something: ten thousand idle streams are then ten thousand coroutines, and nothing more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from starlette.responses import Response

from taskbridge.center.live.wire import MEDIA_TYPE, OPENING, Place, end_frame, heartbeat_frame, reset_frame
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from taskbridge.center.live.hub import Hub
    from taskbridge.center.live.subscription import Subscription

log = structlog.get_logger(__name__)

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

    def __init__(self, writer: Writer) -> None:
        # Without Response's own: it would make a body and headers that are never sent.
        self.background = None
        self.status_code = 200
        self._writer = writer

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        scope[_HELD] = self._writer


class HoldsStreams:
    """Goes around the whole app, and writes the streams that requests to it have opened."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        writer: Writer | None = scope.pop(_HELD, None)
        if writer is not None:
            for name in set(scope) - _NEEDED_BY_SERVER:
                del scope[name]
            await writer.run(receive, send)


@dataclass(slots=True, eq=False)
class Writer:
    """Writes one subscription to one connection."""

    hub: Hub
    subscription: Subscription
    resume: Place | None
    _send: Send | None = None
    _task: asyncio.Task[None] | None = None

    async def run(self, receive: Receive, send: Send) -> None:
        """Write on behind the head; return when the client has gone or the stream has ended."""
        try:
            await send({"type": "http.response.body", "body": OPENING, "more_body": True})
            self._send = send
            self._task = asyncio.get_running_loop().create_task(self._begin())
            self.subscription.wake_by(self._go_on)
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self.hub.leave(self.subscription)
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
        self.subscription.beat(self.subscription.due)
        await self._write()

    async def _catch_up(self, resume: Place) -> None:
        """Write the changes between the id and those that come by themselves, which begin after them."""
        subscription = self.subscription
        person, (epoch, at), until = subscription.person, resume, subscription.begins
        if epoch == subscription.epoch and at > until:
            # Another replica has read further: so the change exists, and nothing up to it is given out again.
            if await self.hub.missed(person, at - 1, at):
                subscription.seen(at)
                return
            epoch = ""
        if epoch != subscription.epoch:
            await self._put(reset_frame(_REBUILT))
            return
        while at < until and subscription.ending is None:
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
        subscription = self.subscription
        while True:
            if subscription.ending is not None:
                await self._close(subscription.ending)
                return
            count, fresh = subscription.take()
            if fresh:
                self.hub.sent += count
                await self._put(fresh)
            elif subscription.take_beat():
                await self._put(heartbeat_frame(self.hub.place(subscription)))
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
