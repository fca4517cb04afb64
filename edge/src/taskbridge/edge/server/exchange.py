"""One callback on a connection: its request, received within limits of size and time, and its one answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from taskbridge.edge.errors import Overloaded, Rejection, TooLarge, TooSlow

if TYPE_CHECKING:
    from collections.abc import Callable
    from http import HTTPStatus

    from taskbridge.edge.request import Received
    from taskbridge.edge.server.admission import Senders
    from taskbridge.runtime.problems import Headers

ENDPOINT = "callbacks"
"""Key of the lifespan state under which the protocol finds the endpoint of callbacks."""

BODY_TIMEOUT_S = 20
"""Yida sends a few kilobytes at once. Without a bound, slow senders could hold every connection."""

FREE_BODY_BYTES = 64 << 10
"""Memory that any callback may use while it is received; Yida's are far smaller."""
HEAD_BYTES = 16 << 10
"""Stored of a body that is not accepted: enough to identify its sender."""
HEAD_WAIT_S = 1.0
"""How long to wait for that, when the headers show that the body will not be accepted."""
LARGE_BODIES_BYTES = 64 << 20
"""Memory for all bytes beyond that: no sender is verified yet, and a thousand connections must not fill memory."""


class LargeBodies:
    """The memory that bodies beyond FREE_BODY_BYTES share while they are received."""

    def __init__(self) -> None:
        self.room = LARGE_BODIES_BYTES


class Endpoint(Protocol):
    """Decides about callbacks, and answers each by ``Exchange.answer``, never before the called method returns."""

    @property
    def senders(self) -> Senders: ...

    @property
    def large_bodies(self) -> LargeBodies: ...

    @property
    def max_body_bytes(self) -> int: ...

    def action_of(self, path: str, port: int) -> str | None:
        """The action of a POST to this path at this port, None if it is no callback."""
        ...

    def accept(self, exchange: Exchange) -> None:
        """The request is whole."""
        ...

    def refuse(self, exchange: Exchange, rejection: Rejection, begun: Received | None) -> None:
        """A limit rejects the request; ``begun`` is its beginning if that may be stored."""
        ...

    def abort(self, exchange: Exchange) -> None:
        """The connection ended before the request was whole."""
        ...


class Exchange(Struct, eq=False):
    """A callback and its answer. The protocol treats it like uvicorn's cycles, whose public attributes it has."""

    _endpoint: Endpoint
    received: Received
    """Without its body while ``more_body``."""
    _write: Callable[[Exchange, HTTPStatus, Headers, bytes], None]
    """Writes an answer."""
    more_body: bool = True
    keep_alive: bool = True
    _expects: bool = False
    """The sender waits for 100 Continue."""
    started: float = 0.0
    """When it was this request's turn."""
    body: bytearray = field(default_factory=bytearray)
    response_started: bool = False
    response_complete: bool = False
    _is_next: bool = False
    _is_decided: bool = False
    _is_lost: bool = False
    _refusal: Rejection | None = None
    """Why the request is refused once its beginning is here."""
    _used: int = 0
    """Bytes of the memory for large bodies."""

    def __repr__(self) -> str:
        """Without what people wrote."""
        return f"Exchange({self.received!r})"

    # The request.

    @property
    def wants_body(self) -> bool:
        return self.more_body and not (self._is_decided or self._is_lost)

    @property
    def patience_s(self) -> float:
        """How long the rest of the body may take."""
        return BODY_TIMEOUT_S if self._refusal is None else HEAD_WAIT_S

    def expects_continue(self) -> bool:
        """Whether the sender still waits for 100 Continue; True only once."""
        expects, self._expects = self._expects and not self.body, False
        return expects

    def begin(self) -> None:
        """It is this request's turn on its connection."""
        self.started = time.perf_counter()
        self._is_next = True
        try:
            self._endpoint.senders.check(self.received.remote_address)
        except Rejection as rejection:
            self._decide()
            self._endpoint.refuse(self, rejection, None)
            return
        limit = self._endpoint.max_body_bytes
        if len(self.received.query) > limit or (self.more_body and self._announced_bytes() > limit):
            self._refusal = self._too_large()
            if self.wants_body and not self._expects:
                return
        self._proceed()

    def add(self, data: bytes) -> None:
        """A part of the body. The limits hold while it arrives: a chunked body announces no length."""
        if not self.wants_body:
            return
        if self._refusal is None:
            self.body += data
            self._refusal = self._excess()
            if self._refusal is not None:
                self._proceed()
        elif len(self.body) < HEAD_BYTES:  # its size was announced
            self.body += data
            if len(self.body) >= HEAD_BYTES:
                self._proceed()

    def finish(self) -> None:
        """The request is whole."""
        self.more_body = False
        self._proceed()

    def end_late(self) -> None:
        """``patience_s`` is over."""
        if self.wants_body:
            late = TooSlow("slow-body", f"The body did not arrive within {BODY_TIMEOUT_S} seconds.")
            self._refusal = self._refusal or late
            self._proceed()

    def lose(self) -> None:
        """The connection is lost, or gives up the request. An event that is decided is stored nevertheless."""
        if not self._is_lost:
            self._is_lost = True
            self._release()
            if self._is_next and not self._is_decided:
                self._endpoint.abort(self)

    def _proceed(self) -> None:
        if self._is_decided or self._is_lost or not self._is_next:
            return
        if self._refusal is not None:
            self._decide()
            begun = replace(self.received, query=self.received.query[:HEAD_BYTES], body=bytes(self.body[:HEAD_BYTES]))
            self._endpoint.refuse(self, self._refusal, begun)
        elif not self.more_body:
            self._decide()
            if self.body:
                self.received = replace(self.received, body=bytes(self.body))
            self._endpoint.accept(self)

    def _decide(self) -> None:
        self._is_decided = True
        if self._used:
            self._release()

    def _announced_bytes(self) -> int:
        length = self.received.headers.get("content-length", "")
        return int(length) if length.isdecimal() else 0

    def _excess(self) -> Rejection | None:
        if len(self.body) > self._endpoint.max_body_bytes:
            return self._too_large()
        more = len(self.body) - FREE_BODY_BYTES - self._used
        if more > 0:
            bodies = self._endpoint.large_bodies
            if more > bodies.room:
                return Overloaded("overloaded", "Too many large bodies at once. Send it again later.")
            self._used += more
            bodies.room -= more
        return None

    def _release(self) -> None:
        self._endpoint.large_bodies.room += self._used
        self._used = 0

    def _too_large(self) -> TooLarge:
        return TooLarge("too-large", f"More than {self._endpoint.max_body_bytes} bytes.")

    # The answer.

    def answer(self, status: HTTPStatus, headers: Headers, body: bytes) -> None:
        """Write the answer, unless the connection is lost."""
        if not self._is_lost:
            self._write(self, status, headers, body)
