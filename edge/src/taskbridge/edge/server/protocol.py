"""uvicorn's HTTP protocol with bounds on heads and on slow senders: one class, as it is one connection's state.

httptools bounds neither, and uvicorn adds no bound: see docs/adr/0010-limits-in-the-server.md.
"""

from __future__ import annotations

import fcntl
import socket
import termios
from functools import partial
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from taskbridge.edge.server.answering import ANSWER_AT_ONCE, AnsweringProtocol
from taskbridge.edge.server.connections.deadline import Deadline
from taskbridge.edge.server.connections.gate import GATE
from taskbridge.edge.server.requests import FREE_BODY_BYTES, WHOLE_BODY
from taskbridge.edge.server.upgrade import head_without_offer
from taskbridge.runtime.http.refusals import (
    LARGE_HEAD,
    LONG_URL,
    MALFORMED,
    PIPELINED,
    SLOW_HEAD,
    STOPPING,
    not_admitted,
)
from taskbridge.runtime.http.request_line import cut_at_lines, ends_in_line, escape_request_line

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from taskbridge.edge.server.connections.gate import Gate
    from taskbridge.runtime.http.refusals import Refusal

MAX_HEADERS = 100
MAX_PIPELINED = 16
"""Requests in a row that may wait for the one before: 256 KiB hold thousands of small ones."""

LINGER_S = 2.0
"""How long what is still sent after an answer is read and dropped: closed at once, the sender might not see it."""
LAST_HEAD_S = 1.0
"""How long a request may still begin once the process is to end: it may be on its way, or here and not read yet."""
LAST_BODY_S = 5.0
"""How long a body may still take once the process is to end; less than uvicorn waits for all."""
UNREAD_S = 30
"""How long a peer may not take what it is sent."""

SLICE_BYTES = 16 << 10
PER_HEADER_BYTES = 4
"""Of each header line: the colon, the space and the end."""


class _Stopped(Exception):
    """The parser is not to go on."""


class LimitedProtocol(AnsweringProtocol):
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
        self._limits = self._gate.settings
        self._peer = ""
        self._refusal: Refusal | None = None
        self._deaf = False
        """What is still received is dropped."""
        self._stops = False
        """The process is to end."""
        self._in_head = True
        """The next thing to be received is a head, or the rest of one."""
        self._head_began = False
        self._began = False
        """A head began in what was received last."""
        self._line_goes_on = False
        """What was received last ended within a request's first line."""
        self._header_bytes = 0
        self._unseen_bytes = 0
        """Received since the parser last told of anything but headers: it keeps unfinished lines to itself."""
        self._seen = False
        self._head_deadline = Deadline(self.loop)
        self._close_deadline = Deadline(self.loop)

    # What the transport tells.

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
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # Also bounds how long a peer may leave our answers in the buffers, which nothing above TCP would notice.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_S * 1000)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_deadline.lift()
        self._close_deadline.lift()
        self._gate.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if len(data) <= SLICE_BYTES and not self._deaf:
            self._feed(data)
            return
        # In slices, because the parser tells of an unfinished line only that nothing has come of it.
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
            head = head_without_offer(self.parser, self.url, self.headers)
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

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Sending no more is no reason not to be served: a sender may close its side right after the request."""
        if self._at_work and self._in_head and not self._deaf:
            self.cycle.keep_alive = False
            return True
        return None

    # What the parser tells.

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
        if self._in_head:  # else a trailer, and nothing here wants one
            HttpToolsProtocol.on_header(self, name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # it is parsed once more without the offer
        self._in_head = self._head_began = False
        self._seen = True
        self._head_deadline.lift()
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(PIPELINED)
        super().on_headers_complete()
        if self._stops:
            self._end_with_this_one()

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
        self._close_deadline.lift()
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
            self._close_deadline.lift()
            self._close_deadline.set(LINGER_S, self.transport.close)
        elif self._head_began:
            self._unset_keepalive_if_required()
            self._wait_for_head()

    def room(self, arriving: int) -> bool:
        """Whether this connection can stay once it is made, beside others that are arriving."""
        return self._gate.room(arriving)

    def shutdown(self) -> None:
        """Answer what is under way, or the request that may be on its way to us, and close.

        Closed at once, a connection whose request is not read yet is reset, and its sender is told nothing.
        """
        self._stops = True
        if self._at_work:
            self._end_with_this_one()
        elif self._in_head and not self._deaf:
            self._unset_keepalive_if_required()
            self._head_deadline.lift()
            self._head_deadline.set(LAST_HEAD_S, self._head_is_late)

    def _end_with_this_one(self) -> None:
        self.cycle.keep_alive = False
        if not self._in_head:
            self._close_deadline.set(LAST_BODY_S, partial(self._refuse, STOPPING))

    def has_unread(self) -> bool:
        descriptor = self.transport.get_extra_info("socket").fileno()
        return any(fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0"))

    def give_way(self) -> None:
        """Close at once, to make room."""
        self._deaf = True
        self.transport.abort()

    # The rest.

    def _stop(self, refusal: Refusal) -> None:
        self._refusal = refusal
        raise _Stopped

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with a problem, unless an answer is under way, and close."""
        self._gate.refuse(refusal.reason, self._peer)
        self._deaf = True
        self._head_deadline.lift()
        self._close_deadline.lift()
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

    def _wait_for_head(self) -> None:
        self._head_deadline.set(self._limits.header_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._head_began:
            self._refuse(STOPPING if self._stops else SLOW_HEAD)
        else:
            self.transport.close()  # nothing was asked, so nothing is answered
