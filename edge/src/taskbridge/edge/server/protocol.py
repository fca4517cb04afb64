"""The edge's HTTP/1.1 protocol: uvicorn's, with bounds on heads and slow senders, and with a fast path.

httptools bounds neither, and uvicorn adds no bound: see docs/adr/0010-limits-in-the-server.md.

The fast path answers a whole request on an idle connection without parser, scope and task. Any other request takes the
general path, and anything unexpected moves a request there: see docs/adr/0012-the-fast-path-of-the-edge.md.
"""

from __future__ import annotations

import fcntl
import socket
import termios
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from taskbridge.edge.server.admission import GATE
from taskbridge.edge.server.requests import FREE_BODY_BYTES, WHOLE_BODY
from taskbridge.runtime.problems import LARGE_HEAD, LONG_URL, MALFORMED, PIPELINED, SLOW_HEAD, STOPPING, not_admitted
from taskbridge.runtime.serving import cut_at_lines, ends_in_line, escape_request_line

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

    from taskbridge.edge.server.admission import Gate
    from taskbridge.runtime.problems import Headers, Refusal

MAX_HEADERS = 100
MAX_PIPELINED = 16
"""Requests on one connection that may wait for an earlier one: 256 KiB hold thousands of small ones."""

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

FAST_PATH = "fast-path"
"""Key of the lifespan state under which the protocol finds the fast path, if there is one."""
FAST_REQUEST = "taskbridge.fast-request"
"""Key of a request's scope: what the fast path did for it before it was handed over."""

_OFFER = (b"connection", b"upgrade")


class FastRequest(Protocol):
    """One request on the fast path."""

    data: bytes
    """The request as it was received."""
    error: Exception | None
    """Why it cannot be answered on the fast path."""

    def hand_over(self, *, is_settled: bool) -> None:
        """From now on the general path waits for the outcome, and ``settled`` is called no more."""
        ...

    def accepted(self) -> bytes:
        """Return the 200 after the server's own headers, and count it: it is written now."""
        ...


class FastPath(Protocol):
    """What does the work of requests on the fast path."""

    def serves(self, port: int) -> bool:
        """Whether requests at this port may take the fast path."""
        ...

    def start(self, data: bytes, *, peer: str, settled: Callable[[FastRequest], None]) -> FastRequest | None:
        """Do everything up to the wait for durability; None, without effect, if the data is not one plain request.

        ``settled`` is called when that wait is over, never before this returns. A request that failed already has its
        ``error``.
        """
        ...


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
        self._running: RequestResponseCycle | None = None
        """The request on the general path that is being answered, or was answered last."""
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
        self._header_bytes = 0
        self._unseen_bytes = 0
        """Input since the parser last reported anything but headers: it reports no unfinished line."""
        self._seen = False
        self._head_deadline = Deadline(self.loop)
        self._close_deadline = Deadline(self.loop)
        self._fast_path: FastPath | None = app_state.get(FAST_PATH)
        self._fast: FastRequest | None = None
        self._handed_over: FastRequest | None = None
        self._idle_since = 0.0

    # Called by the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        reason = self._gate.admit(self, self._peer)
        if reason is not None:
            self._deaf = True
            self._fast_path = None
            self.transport = transport
            transport.write(not_admitted(reason).encoded([]))
            transport.close()
            return
        super().connection_made(transport)
        if self._fast_path is not None and (self.server is None or not self._fast_path.serves(self.server[1] or 0)):
            self._fast_path = None
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # Also bounds how long a peer may leave our answers in the buffers, which nothing above TCP would notice.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_S * 1000)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._fast is not None:
            self._hand_over()
        self._head_deadline.cancel()
        self._close_deadline.cancel()
        self._gate.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._fast is not None:
            self._hand_over()
        elif (
            self._fast_path is not None
            and len(data) <= SLICE_BYTES
            and self._is_idle()
            and self._start_fast(self._fast_path, data)
        ):
            return
        self._receive(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A sender may close its side right after the request: it still gets its answer."""
        if self._fast is not None:
            self._hand_over()
        if self._at_work and self._in_head and not self._deaf:
            self.cycle.keep_alive = False
            return True
        return None

    # The general path.

    def _receive(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if len(data) <= SLICE_BYTES and not self._deaf:
            self._feed(data)
            return
        # In slices, because the parser reports nothing of an unfinished line.
        for at in range(0, len(data), SLICE_BYTES):
            if not self._deaf:
                self._feed(data[at : at + SLICE_BYTES])

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
        if self._unseen_bytes > self._limits.max_header_bytes:
            self._refuse(LARGE_HEAD)
        elif self._in_head and not self._at_work and self.timeout_keep_alive_task is None:
            self._wait_for_head()

    # Called by the parser.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_began = self._began = self._seen = True
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._seen = True
        if len(self.url) + len(url) > self._limits.max_url_bytes:
            self._stop(LONG_URL)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + PER_HEADER_BYTES
        if self._header_bytes > self._limits.max_header_bytes or len(self.headers) >= MAX_HEADERS:
            self._stop(LARGE_HEAD)
        if self._in_head:  # else it is a trailer, which nothing here uses
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # it is parsed once more without the offer
        self._in_head = self._head_began = False
        self._seen = True
        self._head_deadline.cancel()
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(PIPELINED)
        super().on_headers_complete()
        if self._stops:
            self._end_with_this_one()

    def on_body(self, body: bytes) -> None:
        self._seen = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._handed_over is not None:
            self.scope[FAST_REQUEST] = self._handed_over  # type: ignore[typeddict-unknown-key]
            self._handed_over = None
        if self.parser.should_upgrade():
            return
        self._in_head = self._seen = True
        if not self.cycle.response_complete and len(self.cycle.body) <= FREE_BODY_BYTES:
            self.scope[WHOLE_BODY] = self.cycle.body  # type: ignore[typeddict-unknown-key]
        super().on_message_complete()
        self._close_deadline.cancel()
        if self._at_work:
            self._gate.works(self)
        else:  # it was answered before its end, and uvicorn starts this timer only when it answers
            self._wait_for_next(self.timeout_keep_alive)

    # Called by the server and the gate.

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._at_work or self.transport.is_closing():
            return
        self._gate.waits(self)
        if not self._in_head:
            self._close_deadline.cancel()
            self._close_deadline.set(LINGER_S, self.transport.close)
        elif self._head_began:
            self._unset_keepalive_if_required()
            self._wait_for_head()

    def timeout_keep_alive_handler(self) -> None:
        """The fast path leaves this timer running: resetting it for each request would cost more than its head."""
        self.timeout_keep_alive_task = None
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._fast is not None or left > 0:
            self._wait_for_next(max(left, 0) or self.timeout_keep_alive)
        else:
            super().timeout_keep_alive_handler()

    def room(self, arriving: int) -> bool:
        """Whether this connection can stay once it is made, together with others that are arriving."""
        return self._gate.room(arriving)

    def shutdown(self) -> None:
        """Answer the current request, or the one that may be on its way, and close.

        Closed at once, a connection whose request is not read yet is reset, and its sender gets no answer.
        """
        if self._fast is not None:
            self._hand_over()
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

    # The fast path.

    def _is_idle(self) -> bool:
        """No request is open, the parser holds no input, and an answer can be written."""
        return (
            self._in_head
            and not (self._head_began or self._unseen_bytes or self._deaf or self._stops or self.flow.write_paused)
            and (self._running is None or self._running.response_complete)
            and not self.transport.is_closing()
        )

    def _start_fast(self, path: FastPath, data: bytes) -> bool:
        request = path.start(data, peer=self._peer, settled=self._settled)
        if request is None:
            return False
        self._fast = request
        self._head_deadline.cancel()
        self._gate.works(self)
        if request.error is not None:
            self._hand_over(is_settled=True)
        return True

    def _settled(self, request: FastRequest) -> None:
        if request.error is not None or self.flow.write_paused or self.transport.is_closing():
            self._hand_over(is_settled=True)
            return
        self._fast = None
        head = b"".join(
            (STATUS_LINE[HTTPStatus.OK], *(b"%s: %s\r\n" % each for each in self.server_state.default_headers))
        )
        self.transport.write(head + request.accepted())
        self.server_state.total_requests += 1
        self._gate.waits(self)
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_for_next(self.timeout_keep_alive)

    def _hand_over(self, *, is_settled: bool = False) -> None:
        """The general path parses the request as if it had arrived now, and finds in its scope what was done for it."""
        request, self._fast = self._fast, None
        assert request is not None, "one is open"
        request.hand_over(is_settled=is_settled)
        self._handed_over = request
        self._receive(request.data)

    # Answering.

    @property
    def _at_work(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

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
        self._close_deadline.set(LINGER_S, self.transport.close)

    # Deadlines.

    def _end_with_this_one(self) -> None:
        self.cycle.keep_alive = False
        if not self._in_head:
            self._close_deadline.set(LAST_BODY_S, partial(self._refuse, STOPPING))

    def _wait_for_head(self) -> None:
        self._head_deadline.set(self._limits.header_timeout_s, self._head_is_late)

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
    lines += [b"%s: %s\r\n" % each for each in headers if each[0] not in _OFFER]
    return b"".join((*lines, b"\r\n"))
