"""Serves an application over uvicorn: one configuration for all services, bounded requests, pasted addresses."""

from __future__ import annotations

import asyncio
import re
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from taskbridge.runtime.problems import LARGE_BODY, LARGE_HEAD, MALFORMED, SLOW_BODY, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from types import FrameType

    from starlette.types import ASGIApp


_TICK_S = 1.0
"""How old the Date of an answer may be."""
_HEAD_MAX_BYTES = 32 << 10
_HEAD_S = 20.0
_BODY_MAX_BYTES = 64 << 10
_BODY_S = 20.0
_BODY_HEADERS = (b"content-length", b"transfer-encoding")


def server_config(
    app: ASGIApp | str, *, grace_s: int, protocol: type[asyncio.Protocol] | None = None, **options: Any
) -> uvicorn.Config:
    """Uvicorn's configuration in all services; ``options`` are further ones of uvicorn's.

    ``grace_s`` is how long open requests may take after the end was requested. ``protocol`` is ``BoundedRequests``
    unless given.
    """
    return uvicorn.Config(
        app,
        http=protocol or BoundedRequests,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # with uvicorn's own, any client on this machine could name any address
        timeout_graceful_shutdown=grace_s,
        **options,
    )


class Server(uvicorn.Server):
    """Leaves signals to the composition root, which calls ``handle_exit`` or sets ``should_exit``.

    uvicorn itself would drop open requests at a second Ctrl-C, which ``uv run`` sends although the terminal has sent
    one already. It would also raise the signal again at its end, while the loop is closing. And it would look ten times
    a second whether it should end: a fifth of what a service takes at rest.
    """

    _is_over, _wake = False, staticmethod(lambda: None)

    @property
    def should_exit(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride] - a variable there
        return self._is_over

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        """From any thread, or a signal's handler."""
        self._is_over = value
        with suppress(RuntimeError):  # the loop may have ended
            self._wake()

    async def main_loop(self) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self._wake = partial(loop.call_soon_threadsafe, ended.set)
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _TICK_S)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the overridden signature
        self.should_exit = True


class BoundedRequests(HttpToolsProtocol):
    """Closes a connection whose request is too large or takes too long: uvicorn would buffer a head without limit.

    uvicorn reads a body only as far as the application reads it, but the application could read it to its end, or wait
    for the rest for ever. That one is too large or late is answered whether the application reads it or not.
    """

    # The class above has many attributes: more would double the memory of each connection's dict.
    __slots__ = ("_began", "_body_bytes", "_head_began", "_head_bytes", "_in_head", "_line_goes_on", "_timer")

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._in_head, self._head_bytes, self._body_bytes = True, 0, 0
        self._began = self._head_began = self._line_goes_on = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._start_timer(_HEAD_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head and self._timer is None:
            self._start_timer(_HEAD_S, self.transport.close)
        for piece in (data,) if data.isascii() else cut_at_lines(data):
            if not self.transport.is_closing():
                self._parse(piece)

    def _parse(self, data: bytes) -> None:
        self._began = False
        if self._line_goes_on or (self._in_head and not self._head_began):
            data = escape_request_line(data, goes_on=self._line_goes_on)
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_began:
            self._line_goes_on = ends_in_line(data, self.url, began=self._began, before=self._line_goes_on)
        else:
            self._line_goes_on = False
        if self._in_head and self._head_bytes > _HEAD_MAX_BYTES and not self.transport.is_closing():
            self._refuse(LARGE_HEAD)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own text
        self._refuse(MALFORMED)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_began = self._began = True

    def on_headers_complete(self) -> None:
        self._in_head = self._head_began = False
        self._body_bytes = 0
        self._stop_timer()
        body = {name: value for name, value in self.headers if name in _BODY_HEADERS}
        if int(body.get(b"content-length", 0)) > _BODY_MAX_BYTES:
            self._refuse(LARGE_BODY)
            return
        if body:
            self._start_timer(_BODY_S, lambda: self._refuse_body(SLOW_BODY))
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.transport.is_closing():
            return
        self._body_bytes += len(body)
        if self._body_bytes > _BODY_MAX_BYTES:
            self._refuse_body(LARGE_BODY)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.transport.is_closing():
            return
        self._stop_timer()
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def _refuse_body(self, refusal: Refusal) -> None:
        if self.cycle.response_started:
            self.transport.close()
        else:
            self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        self.transport.write(refusal.encoded(self.server_state.default_headers))
        self.transport.close()

    def _start_timer(self, seconds: float, end: Callable[[], None]) -> None:
        self._timer = self.loop.call_later(seconds, end)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


# Addresses that people paste, with Chinese in the query: HTTP parsers accept ASCII only. A parser reports neither where
# in the data a request began nor where its line ended. So data is cut at each place where such a line may begin, and
# the parser's state there shows whether one does.

_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_LINE_BEYOND_ASCII = re.compile(rb"(?:GET|POST) /[!-~]*[\x80-\xff]")
_MAX_PLACES = 16
"""Per received piece of data: a body may be full of them."""


def cut_at_lines(data: bytes) -> Sequence[bytes]:
    """The data in pieces, which have a request line with bytes beyond ASCII only at their beginning."""
    # An expression for both would take as long for a body as the rest of the server.
    if data.find(b"POST /", 1) < 0 and data.find(b"GET /", 1) < 0:
        return (data,)
    places = [found.start() for found in islice(_LINE_BEYOND_ASCII.finditer(data, 1), _MAX_PLACES)]
    return [data[begin:end] for begin, end in pairwise((0, *places, len(data)))]


def escape_request_line(data: bytes, *, goes_on: bool) -> bytes:
    """The data, with each byte beyond ASCII in the request line as its percent escape, which means the same.

    ``data`` begins with a request or, if ``goes_on``, within its line.
    """
    # Some clients send an empty line after a body.
    at = 0 if goes_on else len(data) - len(data.lstrip(b"\r\n"))
    end = data.find(b"\n", at)
    line = data if end < 0 else data[:end]
    return data if line.isascii() else _escaped(line) + data[len(line) :]


def ends_in_line(data: bytes, url: bytes, *, began: bool, before: bool) -> bool:
    """Whether the data ends within the first line of an unfinished head.

    ``began``: the head began in the data. ``before``: the earlier data ended within the line. ``url`` is the address
    that the parser has reported so far.
    """
    if not began:
        return before and b"\n" not in data
    return not url or b" " + url in data[data.rfind(b"\n") + 1 :]


def _escaped(line: bytes) -> bytes:
    return _BEYOND_ASCII.sub(lambda found: b"%%%02X" % found[0][0], line)
