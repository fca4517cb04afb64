"""The direct way: a request that came whole, alone and on an idle connection, without parser, scope and task.

What is not as usual goes the general way from the start. Whatever happens while one is under way hands it over to the
general way, which goes on where it stands: see docs/adr/0012-the-fast-path-of-the-edge.md.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from taskbridge.edge.server.protocol import SLICE_BYTES, LimitedProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from taskbridge.runtime.http.refusals import Headers

WAY = "direct-way"
"""Under this name the lifespan hands the way to the protocol, where there is one."""
BEGUN = "taskbridge.begun"
"""Under this name a request's scope has what was done for it before it was handed over."""


class Begun(Struct, eq=False):
    """One request under way: done for it is all up to the wait."""

    settled: Callable[[Begun], None]
    """Is called when that is over."""
    piece: bytes
    """What it was received as."""
    error: Exception | None = None
    """What keeps it from being answered directly."""
    _awaited: asyncio.Future[None] | None = None

    def settle(self, error: Exception | None) -> None:
        """What it waits for has come, or cannot."""
        self.error = error
        if self._awaited is None:
            self.settled(self)
        elif self._awaited.done():
            pass  # whoever awaited it was cancelled
        elif error is None:
            self._awaited.set_result(None)
        else:
            self._awaited.set_exception(error)

    def hand_over(self, *, is_settled: bool) -> None:
        """From now on it is awaited, and the protocol is told no more."""
        self._awaited = asyncio.get_running_loop().create_future()
        if is_settled:
            self.settle(self.error)

    async def outcome(self) -> None:
        """Return once what it waits for has come; raises what keeps it from that."""
        assert self._awaited is not None, "it was handed over"
        await self._awaited

    def accepted(self) -> bytes:
        """What the 200 has after the server's own headers; it is counted, for now it is written."""
        raise NotImplementedError


class Way(Protocol):
    """What the protocol needs of whatever does the work of a request."""

    def serves(self, port: int) -> bool:
        """Whether requests may go directly there."""
        ...

    def begin(self, piece: bytes, *, peer: str, settled: Callable[[Begun], None]) -> Begun | None:
        """Do all of it up to the wait; None, and nothing done, where it is not one request or is for the general way.

        ``settled`` is called when that is over, but not yet; what could not even begin has its ``error``.
        """
        ...


class DirectProtocol(LimitedProtocol):
    """One connection, of which what is usual goes directly."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._way: Way | None = app_state.get(WAY)
        self._begun: Begun | None = None
        self._handed_over: Begun | None = None
        self._idle_since = 0.0

    # What the transport tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._way is not None and (self.server is None or not self._way.serves(self.server[1] or 0)):
            self._way = None

    def data_received(self, data: bytes) -> None:
        if self._begun is not None:
            self._hand_over()
        elif self._way is not None and len(data) <= SLICE_BYTES and self._is_idle() and self._begin(self._way, data):
            return
        super().data_received(data)

    def eof_received(self) -> bool | None:
        if self._begun is not None:
            self._hand_over()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._begun is not None:
            self._hand_over()
        super().connection_lost(exc)

    # What the parser tells.

    def on_message_complete(self) -> None:
        if self._handed_over is not None:
            self.scope[BEGUN] = self._handed_over  # type: ignore[typeddict-unknown-key]
            self._handed_over = None
        super().on_message_complete()

    # What the server tells.

    def shutdown(self) -> None:
        if self._begun is not None:
            self._hand_over()
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Is left to itself while requests come and go: to set it anew for each would cost more than its head."""
        self.timeout_keep_alive_task = None
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._begun is not None or left > 0:
            self._wait_for_next_at_most(max(left, 0) or self.timeout_keep_alive)
        else:
            super().timeout_keep_alive_handler()

    # The rest.

    def _is_idle(self) -> bool:
        """Nothing is under way, nothing was received that the parser makes nothing of, and an answer can be written."""
        return (
            self._in_head
            and not (self._head_began or self._unseen_bytes or self._deaf or self._stops or self.flow.write_paused)
            and (self._running is None or self._running.response_complete)
            and not self.transport.is_closing()
        )

    def _begin(self, way: Way, piece: bytes) -> bool:
        begun = way.begin(piece, peer=self._peer, settled=self._settled)
        if begun is None:
            return False
        self._begun = begun
        self._head_deadline.lift()
        self._gate.works(self)
        if begun.error is not None:
            self._hand_over(is_settled=True)
        return True

    def _settled(self, begun: Begun) -> None:
        if begun.error is not None or self.flow.write_paused or self.transport.is_closing():
            self._hand_over(is_settled=True)
            return
        self._begun = None
        self.transport.write(_answers.head(self.server_state.default_headers) + begun.accepted())
        self.server_state.total_requests += 1
        self._gate.waits(self)
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_for_next_at_most(self.timeout_keep_alive)

    def _hand_over(self, *, is_settled: bool = False) -> None:
        """The general way takes the request as if it had come now, and finds in its scope what was done for it."""
        begun, self._begun = self._begun, None
        assert begun is not None, "one is under way"
        begun.hand_over(is_settled=is_settled)
        self._handed_over = begun
        super().data_received(begun.piece)

    def _wait_for_next_at_most(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)


class _Answers:
    """The server's own part of each 200: uvicorn makes another list of it each second, and changes none."""

    def __init__(self) -> None:
        self._headers: Headers = []
        self._head = b""

    def head(self, headers: Headers) -> bytes:
        if headers is not self._headers:
            self._headers = headers
            self._head = b"".join((STATUS_LINE[HTTPStatus.OK], *(b"%s: %s\r\n" % each for each in headers)))
        return self._head


_answers = _Answers()
