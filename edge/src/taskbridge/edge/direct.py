"""The direct way of a callback: as ``routes`` has it, but without a task of its own while all goes as usual."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taskbridge.edge.answers import around_id
from taskbridge.edge.deciding.paths import YIDA_PATHS
from taskbridge.edge.delivery.router import Durability
from taskbridge.edge.errors import Unverified
from taskbridge.edge.received import Received
from taskbridge.edge.routes import BegunCallback, logs_accepted
from taskbridge.edge.server.heads import Heads
from taskbridge.edge.server.protocol import MAX_HEADERS
from taskbridge.runtime.tracing.traceparent import TRACEPARENT, valid_traceparent

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from taskbridge.edge.routes import CallbackRoutes
    from taskbridge.edge.server.direct import Begun
    from taskbridge.edge.settings import EdgeSettings

_FORWARDED_FOR = "x-forwarded-for"
_KAFKA = Durability.KAFKA
_BEFORE_ID, _BEHIND_ID = around_id(_KAFKA)


class DirectWay:
    """Begins callbacks of Yida's that came whole. Those of other systems go the general way."""

    def __init__(self, routes: CallbackRoutes, settings: EdgeSettings, *, not_at: Container[int]) -> None:
        """``not_at`` are the ports where callbacks are not served."""
        self.routes = routes
        self._publisher = routes.publisher
        self._not_at = not_at
        self._max_body_bytes = routes.decision.rules.max_body_bytes
        # A header may count as one byte more than it has.
        self._within_limits = min(self._max_body_bytes, settings.max_header_bytes - MAX_HEADERS)
        self.heads = Heads(
            {f"POST {path} HTTP/1.1".encode(): path for path in YIDA_PATHS}, max_bytes=settings.max_header_bytes
        )

    def serves(self, port: int) -> bool:
        return port not in self._not_at

    def begin(self, piece: bytes, *, peer: str, settled: Callable[[Begun], None]) -> Begun | None:
        routes = self.routes
        if not self._publisher.takes_directly() or logs_accepted():
            return None
        started = time.perf_counter()
        received_at = time.time_ns() // 1_000_000
        # In one call, where all of it is no larger than any part of it may be.
        whole = routes.decision.of_whole(piece, received_at) if len(piece) <= self._within_limits else None
        if whole is not None:
            wire_action, forwarded_for, traceparent, found = whole
        else:
            parts = self.heads.whole(piece)
            if parts is None or parts[0].body_bytes > self._max_body_bytes:
                return None
            head, found = parts[0], None
            wire_action = YIDA_PATHS[head.path]
            forwarded_for, traceparent = head.headers.get(_FORWARDED_FOR), head.headers.get(TRACEPARENT)
        address = routes.sources.sender(peer, forwarded_for)
        try:
            routes.sources.check(address)
        except Unverified:
            return None
        begun = DirectCallback(
            settled,
            piece,
            started=started,
            way=self,
            wire_action=wire_action,
            received_at=received_at,
            address=address,
        )
        try:
            if found is None:
                begun.decided = routes.decide(begun.received)
            else:
                begun.decided = routes.claimed(routes.decision.taken(wire_action, found), wire_action, started)
            begun.publishing = time.perf_counter()
            begun.record = self._publisher.send(
                begun.decided, traceparent=valid_traceparent(traceparent), then=begun.settle
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the general way deals with it
            begun.error = error
        return begun


class DirectCallback(BegunCallback, eq=False, kw_only=True):
    """One that is answered as soon as Kafka has it."""

    way: DirectWay
    wire_action: str
    received_at: int
    address: str

    @property
    def received(self) -> Received:
        parts = self.way.heads.whole(self.piece)
        assert parts is not None, "it was plain when it began"
        head, body = parts
        return Received(
            wire_action=self.wire_action,
            received_at=self.received_at,
            remote_address=self.address,
            method="POST",
            path=head.path,
            query=b"",
            headers=head.headers,
            body=body,
        )

    def accepted(self) -> bytes:
        assert self.decided is not None, "it was sent"
        now = time.perf_counter()
        metrics = self.way.routes.metrics
        metrics.publish_seconds.observe(self.wire_action, now - self.publishing)
        metrics.count(self.wire_action, _KAFKA, now - self.started)
        return _BEFORE_ID + self.decided.event_id.encode() + _BEHIND_ID
