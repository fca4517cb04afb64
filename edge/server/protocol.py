"""uvicorn's HTTP protocol with bounds on what a request's head may hold, and on how long a sender may take.

httptools bounds neither, and uvicorn adds no bound: see docs/adr/0010-limits-in-the-server.md.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from edge.server.gate import GATE
from edge.server.requests import FREE_BODY_BYTES
from edge.server.scope import ANSWER_AT_ONCE, WHOLE_BODY
from service.problems import MEDIA_TYPE, problem

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

    from edge.server.gate import Gate

MAX_HEADERS = 100
MAX_PIPELINED = 16
"""Requests in a row that may wait for the one before: 256 KiB hold thousands of small ones."""

LINGER_S = 2.0
"""How long what is still sent after an answer is read and dropped: closed at once, the sender might not see it."""
LAST_BODY_S = 5.0
"""How long a body may still take once the process is to end; less than uvicorn waits for all."""
UNREAD_S = 30
"""How long a peer may not take what it is sent."""

RETRY_AFTER_S = 5

type_headers = list[tuple[bytes, bytes]]

_SLICE_BYTES = 16 << 10
_PER_HEADER_BYTES = 4
"""Of each header line: the colon, the space and the end."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is answered when the server itself turns a request away."""

    status: HTTPStatus
    reason: str
    """The kind of problem, and the metric's label."""
    detail: str

    def encoded(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        body = bytes(problem(self.status, self.detail, kind=self.reason).body)
        lines = [
            *headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if self.status is HTTPStatus.SERVICE_UNAVAILABLE:
            lines.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        return b"".join((STATUS_LINE[self.status], *(b"%s: %s\r\n" % each for each in lines), b"\r\n", body))


MALFORMED = Refusal(HTTPStatus.BAD_REQUEST, "malformed-http", "This is not HTTP/1.1.")
SLOW_HEAD = Refusal(HTTPStatus.REQUEST_TIMEOUT, "slow-head", "The head of the request did not arrive in time.")
LONG_URL = Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, "long-url", "The URL is too long: send the parameters as a body.")
LARGE_HEAD = Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "large-head", "Too many headers, or too large ones.")
PIPELINED = Refusal(HTTPStatus.BAD_REQUEST, "pipelined", "Too many requests at once on one connection.")
STOPPING = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "stopping", "The service is being stopped. Send it again.")


class _Stopped(Exception):
    """The parser is not to go on."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. It is admitted by the gate, and closed when its sender exceeds a limit."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._gate: Gate = app_state[GATE]
        self._limits = self._gate.limits
        self._peer = ""
        self._running: RequestResponseCycle | None = None
        self._refusal: Refusal | None = None
        self._deaf = False
        """What is still received is dropped."""
        self._in_head = True
        """The next thing to be received is a head, or the rest of one."""
        self._head_began = False
        self._header_bytes = 0
        self._unseen_bytes = 0
        """Received since the parser last told of anything but headers: it keeps unfinished lines to itself."""
        self._seen = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None

    # What the transport tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        reason = self._gate.admit(self, self._peer)
        if reason is not None:
            self._deaf = True
            self.transport = transport
            detail = "Too many connections. Try again later."
            transport.write(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, reason, detail).encoded([]))
            transport.close()
            return
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # Also bounds how long a peer may leave our answers in the buffers, which nothing above TCP would notice.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_S * 1000)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_close_timer()
        self._gate.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if len(data) <= _SLICE_BYTES and not self._deaf:
            self._feed(data)
            return
        # In slices, because the parser tells of an unfinished line only that nothing has come of it.
        for at in range(0, len(data), _SLICE_BYTES):
            if not self._deaf:
                self._feed(data[at : at + _SLICE_BYTES])

    def _feed(self, data: bytes) -> None:
        self._seen = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._refusal or MALFORMED)
            return
        self._unseen_bytes = 0 if self._seen else self._unseen_bytes + len(data)
        if self._unseen_bytes > self._limits.max_header_bytes:
            self._refuse(LARGE_HEAD)
        elif self._in_head and not self._at_work and self.timeout_keep_alive_task is None:
            self._start_head_timer()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Sending no more is no reason not to be served: a sender may close its side right after the request."""
        if self._at_work and self._in_head and not self._deaf:
            self.cycle.keep_alive = False
            return True
        return None

    # What the parser tells.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_began = self._seen = True
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._seen = True
        if len(self.url) + len(url) > self._limits.max_url_bytes:
            self._stop(LONG_URL)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + _PER_HEADER_BYTES
        if self._header_bytes > self._limits.max_header_bytes or len(self.headers) >= MAX_HEADERS:
            self._stop(LARGE_HEAD)
        if self._in_head:  # else a trailer, and nothing here wants one
            HttpToolsProtocol.on_header(self, name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # it is parsed once more without the offer
        self._in_head = self._head_began = False
        self._seen = True
        self._stop_head_timer()
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(PIPELINED)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._seen = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_head = self._seen = True
        if not self.cycle.response_complete and len(self.cycle.body) <= FREE_BODY_BYTES:
            self.scope[WHOLE_BODY] = self.cycle.body  # type: ignore[typeddict-unknown-key]
            self.scope[ANSWER_AT_ONCE] = self._answer_at_once  # type: ignore[typeddict-unknown-key]
        super().on_message_complete()
        self._stop_close_timer()
        if self._at_work:
            self._gate.works(self)
        else:  # it was answered before its end
            self._wait_for_next()

    # What the server tells.

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._at_work or self.transport.is_closing():
            return
        self._gate.waits(self)
        if not self._in_head:
            self._close_timer = self.loop.call_later(LINGER_S, self.transport.close)
        elif self._head_began:
            self._unset_keepalive_if_required()
            self._start_head_timer()

    def shutdown(self) -> None:
        super().shutdown()
        if self._at_work and not self._in_head and self._close_timer is None:
            self._close_timer = self.loop.call_later(LAST_BODY_S, self._refuse, STOPPING)

    def give_way(self) -> None:
        """Close at once, to make room."""
        self._deaf = True
        self.transport.abort()

    # The rest.

    @property
    def _at_work(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _answer_at_once(self, headers: type_headers, body: bytes) -> bool:
        """Answer the running request with 200 by one system call; uvicorn makes one for the head, one for the body.

        False when that cannot be now; then nothing was written.
        """
        cycle = self._running
        if cycle is None or cycle.disconnected or cycle.response_started or self.flow.write_paused:
            return False
        cycle.response_started = cycle.response_complete = True
        lines = [b"%s: %s\r\n" % each for each in (*cycle.default_headers, *headers)]
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        self.transport.write(b"".join((STATUS_LINE[HTTPStatus.OK], *lines, b"\r\n", body)))
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Go on as if no other protocol had been offered; ``rest`` is what follows the head.

        Java's HttpClient offers HTTP/2 with every first request, and httptools would take the body for HTTP/2.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(MALFORMED)
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s\r\n" % (method, self.url, version)]
        lines += [b"%s: %s\r\n" % each for each in self.headers if each[0] not in (b"connection", b"upgrade")]
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"".join((*lines, b"\r\n", rest)))

    def _stop(self, refusal: Refusal) -> None:
        self._refusal = refusal
        raise _Stopped

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with a problem, unless an answer is under way, and close."""
        self._gate.refuse(refusal.reason, self._peer)
        self._deaf = True
        self._stop_head_timer()
        self._stop_close_timer()
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        running = self._running
        if running is not None and not running.response_complete:
            if not running.more_body:
                # The next request is at fault. This one is whole: it gets its answer.
                running.keep_alive = False
                return
            running.disconnected = True
            running.message_event.set()
        if running is None or running.response_complete or not running.response_started:
            self.transport.write(refusal.encoded(self.server_state.default_headers))
            if self.transport.can_write_eof():
                self.transport.write_eof()
        self._gate.waits(self)
        self.flow.resume_reading()
        self._close_timer = self.loop.call_later(LINGER_S, self.transport.close)

    def _wait_for_next(self) -> None:
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limits.header_timeout_s, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_close_timer(self) -> None:
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._head_began:
            self._refuse(SLOW_HEAD)
        else:
            self.transport.close()  # nothing was asked, so nothing is answered
