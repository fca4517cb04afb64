"""DingTalk's Stream mode: receives events over a WebSocket, and acknowledges each one after it was accepted.

An event that is not acknowledged, or answered with LATER, is sent again by DingTalk. A connection is lost at any time:
DingTalk also ends it by itself, to balance its load.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
import structlog
from msgspec import Struct

from taskbridge.dingtalk import workflow
from taskbridge.dingtalk.approvals.mapping import Event
from taskbridge.dingtalk.calls import Refused, Unexpected
from taskbridge.runtime.bounded_http import NOT_JSON
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from taskbridge.dingtalk.calls import Calls
    from taskbridge.runtime.clock import Clock

_EVENTS = workflow.Subscription(topic="*", type="EVENT")
"""All that are chosen in DingTalk's developer console: nothing narrower may be subscribed to."""
_HEARTBEAT_S = 30.0
"""Without an answer to a ping for half of it, the connection is lost."""
_PAUSE_S, _PAUSE_MAX_S = 1.0, 60.0
_MOST = 100
"""Events in work at a time. More are to come later."""
_END_S = 10.0
"""How long events in work may take after the connection ended or the service was stopped."""

_log = structlog.stdlib.get_logger(__name__)


class _Frame(Struct, frozen=True):
    type: str
    headers: dict[str, Any]
    data: str = "{}"

    @property
    def topic(self) -> object:
        return self.headers.get("topic")


class Stream:
    """The connection of one DingTalk application. DingTalk spreads events over all connections of an application."""

    def __init__(
        self,
        calls: Calls,
        clock: Clock,
        *,
        accept: Callable[[Event], Awaitable[bool]],
        connected: Callable[[], None] = lambda: None,
    ) -> None:
        """``accept`` returns whether the event may be acknowledged. ``calls`` are those of the application.

        ``connected`` is called after each connection: DingTalk sends nothing of the time before.
        """
        self._calls, self._clock, self._accept, self._connected = calls, clock, accept, connected
        self.problem: str | None = "not connected yet"
        """Why there is no connection; None while there is one."""

    async def run(self) -> NoReturn:
        """Stay connected until cancelled. Then events in work are finished and acknowledged."""
        failures = 0
        async with aiohttp.ClientSession() as session:
            while True:
                came = False
                try:
                    async with session.ws_connect(await self._address(), heartbeat=_HEARTBEAT_S) as socket:
                        self.problem = None
                        _log.info("dingtalk_connected")
                        self._connected()
                        came = await self._receive(socket)
                        self.problem = "DingTalk ended the connection"
                except (OperatorError, aiohttp.ClientError, TimeoutError, OSError) as error:
                    # Not the text of a client's error: it may contain the address with its ticket.
                    self.problem = str(error) if isinstance(error, OperatorError) else type(error).__name__
                failures = 0 if came else failures + 1
                _log.log(20 if came else 30, "dingtalk_disconnected", problem=self.problem)
                await self._clock.sleep(min(_PAUSE_S * 2 ** min(failures, 10), _PAUSE_MAX_S))

    async def _address(self) -> str:
        """Where to connect: an address that is valid once.

        Raises:
            OperatorError: DingTalk does not give one. The message contains no secret.
        """
        corp, path = self._calls.corp, workflow.OpenConnection.path
        secret = corp.app_secret.get_secret_value()
        request = workflow.OpenConnection(client_id=corp.app_key, client_secret=secret, subscriptions=[_EVENTS])
        try:
            found = await self._calls.open(path, msgspec.to_builtins(request), workflow.Connection)
        except Refused as error:
            raise Refused(f"{error}; check APPROVALS_APP_KEY and its secret") from None
        if self._calls.is_encrypted and urlsplit(found.endpoint).scheme != "wss":
            raise Unexpected(f"{path}: the address to connect to is not encrypted")
        return f"{found.endpoint}?ticket={quote(found.ticket, safe='')}"

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> bool:
        """Take events until the connection ends; returns whether anything came."""
        came, running = False, set[asyncio.Task[None]]()
        try:
            async for message in socket:
                frame = _frame_of(message)
                if frame is None:
                    continue
                came = True
                if frame.type == "SYSTEM" and frame.topic == "disconnect":
                    # DingTalk sends nothing more on this connection.
                    break
                if frame.type == "SYSTEM":
                    await _answer(socket, frame, frame.data)
                elif frame.type == "EVENT" and len(running) < _MOST:
                    task = asyncio.create_task(self._work(socket, frame))
                    running.add(task)
                    task.add_done_callback(running.discard)
                elif frame.type == "EVENT":
                    await _acknowledge(socket, frame, is_accepted=False)
        finally:
            if running:
                await asyncio.wait(running, timeout=_END_S)
            for each in running:
                each.cancel()
        return came

    async def _work(self, socket: aiohttp.ClientWebSocketResponse, frame: _Frame) -> None:
        is_accepted = False
        try:
            is_accepted = await self._accept(_event_of(frame))
        except Exception as error:  # noqa: BLE001 - a defect must not end the connection, nor be acknowledged
            _log.exception("event_failed", problem=type(error).__name__)
        await _acknowledge(socket, frame, is_accepted=is_accepted)


def _frame_of(message: aiohttp.WSMessage) -> _Frame | None:
    try:
        return msgspec.json.decode(message.data, type=_Frame) if message.type is aiohttp.WSMsgType.TEXT else None
    except NOT_JSON:
        _log.warning("frame_not_understood")
        return None


def _event_of(frame: _Frame) -> Event:
    headers = frame.headers
    data = msgspec.json.decode(frame.data, type=dict[str, Any])
    event_id = headers.get("eventId") or data.get("eventId") or headers["messageId"]
    return Event(str(event_id), str(headers.get("eventType")), headers.get("eventCorpId"), data)


async def _acknowledge(socket: aiohttp.ClientWebSocketResponse, frame: _Frame, *, is_accepted: bool) -> None:
    status, message = ("SUCCESS", "success") if is_accepted else ("LATER", "later")
    await _answer(socket, frame, json.dumps({"status": status, "message": message}))


async def _answer(socket: aiohttp.ClientWebSocketResponse, frame: _Frame, data: str) -> None:
    headers = {"messageId": frame.headers.get("messageId"), "contentType": "application/json"}
    # On a connection that is lost, nothing is to be said: DingTalk sends the event again.
    with suppress(ConnectionError):
        await socket.send_json({"code": 200, "headers": headers, "message": "OK", "data": data})
