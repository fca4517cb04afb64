"""The edge's HTTP/1.1 protocol: uvicorn's, with bounds on heads and slow senders, and without ASGI for callbacks.

httptools bounds neither, and uvicorn adds no bound: see docs/adr/0010-limits-in-the-server.md.

Each request is parsed once: a plain callback that arrives whole by the native core, any other by httptools. A callback
becomes an ``Exchange``, without a scope and a task of its own; the application answers any other request: see
docs/adr/0012-one-path-for-callbacks.md.
"""

from __future__ import annotations

import fcntl
import socket
import termios
import time
from contextvars import Context
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from taskbridge.edge.request import Received
from taskbridge.edge.server.admission import GATE
from taskbridge.edge.server.exchange import ENDPOINT, Exchange
from taskbridge.runtime.problems import (
    LARGE_HEAD,
    LONG_URL,
    MALFORMED,
    PIPELINED,
    SLOW_HEAD,
    STOPPING,
    encoded_answer,
    not_admitted,
)
from taskbridge.runtime.serving import cut_at_lines, ends_in_line, escape_request_line

try:
    from taskbridge.native._native import read_request
except ImportError:  # installed without the extra `native`
    read_request = None

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence
    from http import HTTPStatus

    from uvicorn._types import ASGI3Application
    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

    from taskbridge.edge.server.admission import Gate
    from taskbridge.edge.server.exchange import Endpoint
    from taskbridge.runtime.problems import Headers, Refusal

MAX_HEADERS = 100
MAX_PIPELINED = 16
"""Requests on one connection that may wait for an earlier one: 256 KiB hold thousands of small ones."""

HEAD_S = 10.0
"""How long a client may take to send a request's headers."""
LINGER_S = 2.0
"""How long input is read and dropped after a last answer. If we closed at once, the sender might not see the answer."""
LAST_HEAD_S = 1.0
"""How long a request may still start after shutdown began: it may be on its way, or here and not read yet."""
LAST_BODY_S = 5.0
"""How long a body may still take after shutdown began; less than uvicorn waits for all."""
UNREAD_S = 30
"""How long a peer may leave our answers unread."""

SLICE_BYTES = 16 << 10
PER_HEADER_BYTES = 4
"""Of each header line: the colon, the space and the end."""

FORWARDED_FOR = "x-forwarded-for"

_OFFER = (b"connection", b"upgrade")


class EdgeProtocol(HttpToolsProtocol):
    """One connection. The gate admits it; a sender that exceeds a limit is answered and disconnected."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._gate: Gate = app_state[GATE]
        self._limits = self._gate.settings
        self._peer = ""
        self._running: RequestResponseCycle | Exchange | None = None
        """The request that is being answered, or was answered last."""
        self._refusal: Refusal | None = None
        self._deaf = False
        """Further input is dropped."""
        self._stops = False
        """The process is shutting down."""
        self._in_head = True
        """The next input is a head, or the rest of one."""
        self._head_began = False
        self._began = False
        """A head began in the last input."""
        self._line_goes_on = False
        """The last input ended within a request's first line."""
        self._piece_bytes = 0
        """Size of the input that is being parsed."""
        self._received_bytes = 0
        """Size of all input with a part of the present request: its head has no more bytes."""
        self._unseen_bytes = 0
        """Input since the parser last reported anything but headers: it reports no unfinished line."""
        self._seen = False
        self._head_deadline = Deadline(self.loop)
        self._body_deadline = Deadline(self.loop)
        self._close_deadline = Deadline(self.loop)
        self._endpoint: Endpoint = app_state[ENDPOINT]
        self._port = 0
        # All of a plain request is no larger than any part of it may be.
        limits = (SLICE_BYTES, self._limits.max_header_bytes, self._limits.max_url_bytes, self._endpoint.max_body_bytes)
        self._plain_bytes = 0 if read_request is None else min(limits)
        self._unwritten: Callable[[], None] | None = None
        """Writes the answer that waits until the peer reads earlier ones."""
        self._idle_since = 0.0

    # Called by the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        reason = self._gate.admit(self, self._peer)
        if reason is not None:
            self._deaf = True
            self.transport = transport
            transport.write(not_admitted(reason).encoded([]))
            transport.close()
            return
        super().connection_made(transport)
        self._port = (self.server and self.server[1]) or 0
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # Also bounds how long a peer may leave our answers in the buffers, which nothing above TCP would notice.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_S * 1000)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(self._running)
        self._lose_waiting()
        for each in (self._head_deadline, self._body_deadline, self._close_deadline):
            each.cancel()
        self._gate.leave(self)
        if isinstance(self.cycle, Exchange):
            self.cycle = None  # type: ignore[assignment]  # as before the first request
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if len(data) <= self._plain_bytes and self._is_between_requests() and self._begin_plain(data):
            return
        if len(data) <= SLICE_BYTES and not self._deaf:
            self._feed(data)
            return
        # In slices, because the parser reports nothing of an unfinished line.
        for at in range(0, len(data), SLICE_BYTES):
            if not self._deaf:
                self._feed(data[at : at + SLICE_BYTES])

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A sender may close its side right after the request: it still gets its answer."""
        if self._at_work and self._in_head and not self._deaf:
            self.cycle.keep_alive = False
            return True
        return None

    def resume_writing(self) -> None:
        super().resume_writing()
        write, self._unwritten = self._unwritten, None
        if write is not None:
            write()

    # Input.

    def _is_between_requests(self) -> bool:
        """The parser holds no input, and no earlier request is open."""
        running = self._running
        return (
            self._in_head
            and not (self._head_began or self._unseen_bytes or self._deaf or self._stops)
            and (running is None or running.response_complete)
        )

    def _begin_plain(self, data: bytes) -> bool:
        """Whether the data is one whole, plain callback, which now begins. Without httptools it costs half the CPU."""
        assert read_request is not None, "_plain_bytes is 0"
        found = read_request(data)
        if found is None:
            return False
        path, headers, body = found
        forwarded_for = headers.get(FORWARDED_FOR)
        received = self._received(path, b"", headers, () if forwarded_for is None else (forwarded_for,), body)
        if received is None:
            return False
        self._head_deadline.cancel()
        exchange = Exchange(self._endpoint, received, self._answer, more_body=False)
        self.cycle = self._running = exchange  # type: ignore[assignment]
        exchange.begin()
        self._gate.works(self)
        return True

    def _feed(self, data: bytes) -> None:
        if data.isascii():
            self._parse(data)
            return
        for piece in cut_at_lines(data):
            begins = self._in_head and not self._head_began
            if not self._deaf:
                in_line = begins or self._line_goes_on
                self._parse(escape_request_line(piece, goes_on=self._line_goes_on) if in_line else piece)

    def _parse(self, data: bytes) -> None:
        self._seen = self._began = False
        self._piece_bytes = len(data)
        self._received_bytes += self._piece_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            head = _head_without_offer(self.parser, self.url, self.headers)
            if head is None:
                self._refuse(MALFORMED)
            else:
                self.parser = httptools.HttpRequestParser(self)
                self._parse(head + data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._refusal or MALFORMED)
            return
        if self._in_head and self._head_began:
            self._line_goes_on = ends_in_line(data, self.url, began=self._began, before=self._line_goes_on)
        else:
            self._line_goes_on = False
        self._unseen_bytes = 0 if self._seen else self._unseen_bytes + len(data)
        if self._unseen_bytes > self._limits.max_header_bytes or self._is_head_large():
            self._refuse(LARGE_HEAD)
        elif self._in_head and not self._at_work and (self._head_began or self._unseen_bytes):
            self._wait_for_head()
        else:
            self._wait_for_body()

    # Called by the parser.

    def on_message_begin(self) -> None:
        self.url, self.headers = b"", []
        self._head_began = self._began = self._seen = True
        self._received_bytes = self._piece_bytes

    def on_url(self, url: bytes) -> None:
        self._seen = True
        if len(self.url) + len(url) > self._limits.max_url_bytes:
            self._stop(LONG_URL)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # it is parsed once more without the offer
        self._in_head = self._head_began = False
        self._seen = True
        self._head_deadline.cancel()
        if self._is_head_large():
            self._stop(LARGE_HEAD)
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(PIPELINED)
        exchange = self._exchange()
        if exchange is None:
            self._call_application()
        else:
            self._enqueue(exchange)
        self.headers = []  # of trailers, which nothing uses
        if self._stops:
            self._end_with_this_one()

    def on_body(self, body: bytes) -> None:
        self._seen = True
        if isinstance(self.cycle, Exchange):
            self.cycle.add(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_head = self._seen = True
        if isinstance(self.cycle, Exchange):
            self.cycle.finish()
        else:
            super().on_message_complete()
        self._body_deadline.cancel()
        self._close_deadline.cancel()
        if self._at_work:
            self._gate.works(self)
        else:  # it was answered before its end
            self._idle_since = self.loop.time()
            self._wait_for_next(self.timeout_keep_alive)

    def _is_head_large(self) -> bool:
        """Checked for each piece of input, which is small, because a check of each header would cost more."""
        if len(self.headers) > MAX_HEADERS:
            return True
        if self._received_bytes <= self._limits.max_header_bytes:
            return False
        size = sum(len(name) + len(value) + PER_HEADER_BYTES for name, value in self.headers)
        return size > self._limits.max_header_bytes

    def _exchange(self) -> Exchange | None:
        """A callback; None for any other request."""
        if self.parser.get_method() != b"POST":
            return None
        path, query = _path_and_query(self.url)
        # Of a repeated name, the first counts.
        headers = {_name(name): value.decode("latin-1") for name, value in reversed(self.headers)}
        forwarded_for: list[str] = []
        if FORWARDED_FOR in headers:
            found = [value for name, value in self.headers if _name(name) == FORWARDED_FOR]
            forwarded_for = [value.decode("latin-1") for value in found]
        received = self._received(path, query, headers, forwarded_for)
        if received is None:
            return None
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        expects = headers.get("expect", "").lower() == "100-continue"
        return Exchange(self._endpoint, received, self._answer, keep_alive=keep_alive, _expects=expects)

    def _received(
        self, path: str, query: bytes, headers: Mapping[str, str], forwarded_for: Sequence[str], body: bytes = b""
    ) -> Received | None:
        """The POST as a callback; None if the application answers it."""
        wire_action = self._endpoint.action_of(path, self._port)
        if wire_action is None:
            return None
        return Received(
            wire_action=wire_action,
            received_at=time.time_ns() // 1_000_000,
            remote_address=self._endpoint.senders.address(self._peer, forwarded_for),
            method="POST",
            path=path,
            query=query,
            headers=headers,
            body=body,
        )

    def _call_application(self) -> None:
        url, headers = self.url, self.headers
        super().on_message_begin()  # makes a scope, which a callback does not need
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def _enqueue(self, exchange: Exchange) -> None:
        """As uvicorn does with a cycle of its own."""
        before, self.cycle = self.cycle, cast("RequestResponseCycle", exchange)
        if before is None or before.response_complete:  # pyright: ignore[reportUnnecessaryComparison]
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, cast("ASGI3Application", self.app)))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        if isinstance(cycle, Exchange):
            cycle.begin()
        else:
            super()._start_asgi_task(cycle, app)

    # Called by the server and the gate.

    def on_response_complete(self) -> None:
        """As uvicorn's, but the timer of an idle connection stays: to set it each time would cost as much as a head."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            # Not within the trace of the request that was just answered.
            Context().run(self._start_asgi_task, *self.pipeline.pop())
            self._wait_for_body()
            return
        self._gate.waits(self)
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_for_next(self.timeout_keep_alive)
        if not self._in_head:
            self._close_deadline.cancel()
            self._close_deadline.set(LINGER_S, self.transport.close)
        elif self._head_began:
            self._wait_for_head()

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        is_idle = self._in_head and not (self._head_began or self._at_work)
        if not is_idle or left > 0:
            self._wait_for_next(left if is_idle else self.timeout_keep_alive)
        else:
            super().timeout_keep_alive_handler()

    def room(self, arriving: int) -> bool:
        """Whether this connection can stay once it is made, together with others that are arriving."""
        return self._gate.room(arriving)

    def shutdown(self) -> None:
        """Answer the current request, or the one that may be on its way, and close.

        Closed at once, a connection whose request is not read yet is reset, and its sender gets no answer.
        """
        self._stops = True
        if self._at_work:
            self._end_with_this_one()
        elif self._in_head and not self._deaf:
            self._unset_keepalive_if_required()
            self._head_deadline.cancel()
            self._head_deadline.set(LAST_HEAD_S, self._head_is_late)

    def has_unread(self) -> bool:
        descriptor = self.transport.get_extra_info("socket").fileno()
        return any(fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0"))

    def give_way(self) -> None:
        self._deaf = True
        self.transport.abort()

    # Answering.

    @property
    def _at_work(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _answer(self, exchange: Exchange, status: HTTPStatus, headers: Headers, body: bytes) -> None:
        if self.flow.write_paused:
            self._unwritten = partial(exchange.answer, status, headers, body)
            return
        lines = [*self.server_state.default_headers, *headers]
        if not exchange.keep_alive:
            lines.append((b"connection", b"close"))
        self.transport.write(encoded_answer(status, lines, body))
        exchange.response_started = exchange.response_complete = True
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _lose(self, cycle: RequestResponseCycle | Exchange | None) -> None:
        if isinstance(cycle, Exchange):
            cycle.lose()
        elif cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def _lose_waiting(self) -> None:
        for cycle, _ in self.pipeline:
            self._lose(cycle)
        self.pipeline.clear()

    def _stop(self, refusal: Refusal) -> None:
        self._refusal = refusal
        raise _Stopped

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with a problem, unless an answer is being written, and close."""
        self._gate.refuse(refusal.reason, self._peer)
        self._deaf = True
        self._head_deadline.cancel()
        self._close_deadline.cancel()
        self._unset_keepalive_if_required()
        self._body_deadline.cancel()
        self._lose_waiting()
        running = self._running
        if running is not None and not running.response_complete:
            if not running.more_body:
                # The next request is at fault. This one is whole: it gets its answer.
                running.keep_alive = False
                return
            self._lose(running)
        if running is None or running.response_complete or not running.response_started:
            self.transport.write(refusal.encoded(self.server_state.default_headers))
            if self.transport.can_write_eof():
                self.transport.write_eof()
        self._gate.waits(self)
        self.flow.resume_reading()
        self._close_deadline.set(LINGER_S, self.transport.close)

    # Deadlines.

    def _end_with_this_one(self) -> None:
        self.cycle.keep_alive = False
        if not self._in_head:
            self._close_deadline.set(LAST_BODY_S, partial(self._refuse, STOPPING))

    def _wait_for_body(self) -> None:
        running = self._running
        if isinstance(running, Exchange) and running.wants_body:
            if running.expects_continue():
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._body_deadline.set(running.patience_s, running.end_late)

    def _wait_for_head(self) -> None:
        self._head_deadline.set(HEAD_S, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._head_began:
            self._refuse(STOPPING if self._stops else SLOW_HEAD)
        else:
            self.transport.close()  # there is no request to answer

    def _wait_for_next(self, seconds: float) -> None:
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)


class Deadline:
    """A timer of a connection. While it is set, setting it again has no effect."""

    __slots__ = ("_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float, late: Callable[[], None]) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._pass, late)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass(self, late: Callable[[], None]) -> None:
        self._timer = None
        late()


@lru_cache(maxsize=256)  # senders repeat them
def _name(header: bytes) -> str:
    return header.decode("latin-1").lower()


@lru_cache(maxsize=64)  # a sender repeats its address
def _path_and_query(url: bytes) -> tuple[str, bytes]:
    """Raises HttpParserInvalidURLError."""
    found = httptools.parse_url(url)
    path = found.path.decode("ascii")
    return unquote(path) if "%" in path else path, found.query or b""


class _Stopped(Exception):
    """The parser is not to go on."""


def _head_without_offer(parser: httptools.HttpRequestParser, url: bytes, headers: Headers) -> bytes | None:
    """The parsed head without its offer of another protocol, to be parsed again; None if it requests a tunnel.

    Java's HttpClient offers HTTP/2 with every first request, and httptools would read the body as HTTP/2.
    """
    method = parser.get_method()
    if method == b"CONNECT":
        return None
    lines = [b"%s %s HTTP/%s\r\n" % (method, url, parser.get_http_version().encode())]
    lines += [b"%s: %s\r\n" % each for each in headers if each[0].lower() not in _OFFER]
    return b"".join((*lines, b"\r\n"))
