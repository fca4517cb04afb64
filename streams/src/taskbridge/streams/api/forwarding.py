"""Hands a query on to the worker that has the answer, with the caller's authorisation, and never twice."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
import structlog
from starlette.responses import Response, StreamingResponse
from yarl import URL

from taskbridge.streams.api.refusals import NotNow
from taskbridge.streams.api.sso import IDENTITY_HEADER, IdentitySeal, target_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from taskbridge.streams.api.access import Caller

log = structlog.get_logger(__name__)

FORWARDED_HEADER = "x-taskbridge-forwarded"

_REQUEST_HEADERS = ("authorization", "accept", "last-event-id")
_ANSWER_HEADERS = ("content-type", "retry-after", "www-authenticate", "cache-control")
_CONNECT_S = 1.0
_ANSWER_S = 10.0
_SILENCE_S = 45.0
"""A stream sends something every fifteen seconds; an owner that is silent for longer is gone."""
_AT_ONCE = 256


class OwnerUnreachable(NotNow):
    """The owner does not answer, or answers that it is no longer the owner."""


class Forwarding:
    """One pool of connections to the other workers."""

    def __init__(self, seal: IdentitySeal | None) -> None:
        self._seal = seal
        self._session: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None

    async def forward(self, request: Request, url: str, caller: Caller) -> Response:
        """The owner's answer, as it is.

        Raises:
            OwnerUnreachable: it does not answer, or the query was forwarded before.
        """
        target = self._target(request, url)
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=_ANSWER_S, sock_connect=_CONNECT_S)
            self._session = _session(timeout, limit=_AT_ONCE)
        try:
            async with self._session.get(target, headers=self._headers(request, caller)) as answer:
                body = await answer.read()
                return Response(body, answer.status, headers=_kept(answer))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(url, error) from error

    async def forward_stream(
        self,
        request: Request,
        url: str,
        caller: Caller,
        *,
        may_go_on: Callable[[float], bool],
        done: Callable[[], None],
    ) -> Response:
        """The owner's answer while it is still being written, for server-sent events.

        Ends when either side ends, or with the first part at which ``may_go_on`` is false, by the loop's time. ``done``
        is called when it is over, however that comes.

        Raises:
            OwnerUnreachable: as above.
        """
        try:
            answer = await self._open_stream(request, url, caller)
        except BaseException:
            done()
            raise
        return _PassedOn(answer, may_go_on, done)

    async def _open_stream(self, request: Request, url: str, caller: Caller) -> aiohttp.ClientResponse:
        target = self._target(request, url)
        if self._streams is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
            # As many as people have pages open: each is a connection of its own.
            self._streams = _session(timeout, limit=0)
        try:
            return await self._streams.get(target, headers=self._headers(request, caller))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(url, error) from error

    async def close(self) -> None:
        for session in (self._session, self._streams):
            if session is not None:
                await session.close()

    def _target(self, request: Request, url: str) -> URL:
        if FORWARDED_HEADER in request.headers:
            raise OwnerUnreachable("a rebalance is running: two workers regard each other as the owner")
        return URL(url + target_of(request), encoded=True)

    def _headers(self, request: Request, caller: Caller) -> dict[str, str]:
        headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
        headers[FORWARDED_HEADER] = "1"
        if caller.identity is not None:
            if self._seal is None:
                log.error("query_not_forwarded", problem="with SSO, several workers need STREAMS_CLUSTER_SECRET")
                raise OwnerUnreachable(
                    "this worker cannot forward queries of signed-in people: STREAMS_CLUSTER_SECRET is missing"
                )
            headers.pop("authorization", None)
            headers[IDENTITY_HEADER] = self._seal.seal(caller.identity, target_of(request))
        return headers


class _PassedOn(StreamingResponse):
    """A stream of another worker. Both connections end with it, also where its client left before the first part."""

    def __init__(
        self, answer: aiohttp.ClientResponse, may_go_on: Callable[[float], bool], done: Callable[[], None]
    ) -> None:
        super().__init__(_parts(answer, may_go_on), answer.status, headers=_kept(answer))
        self._answer = answer
        self._done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.close()
            self._done()


async def _parts(answer: aiohttp.ClientResponse, may_go_on: Callable[[float], bool]) -> AsyncGenerator[bytes]:
    loop = asyncio.get_running_loop()
    # Where the owner ends, or goes, the stream ends too, and the reader comes back with its Last-Event-ID.
    with suppress(aiohttp.ClientError, TimeoutError):
        async for part in answer.content.iter_any():
            if not may_go_on(loop.time()):
                return
            yield part


def _session(timeout: aiohttp.ClientTimeout, *, limit: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        timeout=timeout,
        connector=aiohttp.TCPConnector(limit=limit),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


def _kept(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: answer.headers[name] for name in _ANSWER_HEADERS if name in answer.headers}


def _unreachable(url: str, error: Exception) -> OwnerUnreachable:
    log.warning("owner_unreachable", owner=url, problem=f"{type(error).__name__}: {error}")
    return OwnerUnreachable("the worker that has this data does not answer")
