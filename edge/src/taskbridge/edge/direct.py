"""The direct way of a callback: as ``routes`` has it, but without a task of its own while all goes as usual."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from taskbridge.edge.answers import accepted
from taskbridge.edge.deciding.paths import YIDA_PATHS
from taskbridge.edge.delivery.router import Durability
from taskbridge.edge.errors import Unverified
from taskbridge.edge.received import Received
from taskbridge.edge.routes import BegunCallback
from taskbridge.edge.server.heads import Heads
from taskbridge.runtime.tracing.traceparent import TRACEPARENT, valid_traceparent

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from taskbridge.edge.routes import CallbackRoutes
    from taskbridge.edge.server.direct import Begun
    from taskbridge.edge.server.heads import Head

_stdlib_log = logging.getLogger("taskbridge.edge.routes")
_FORWARDED_FOR = "x-forwarded-for"


class DirectWay:
    """Begins callbacks of Yida's that came whole. Those of other systems go the general way."""

    def __init__(self, routes: CallbackRoutes, *, not_at: Container[int]) -> None:
        """``not_at`` are the ports where callbacks are not served."""
        self._routes = routes
        self._publisher = routes.publisher
        self._not_at = not_at
        self.heads = Heads({f"POST {path} HTTP/1.1".encode(): path for path in YIDA_PATHS})

    def serves(self, port: int) -> bool:
        return port not in self._not_at

    def begin(self, head: Head, body: bytes, *, peer: str, settled: Callable[[Begun], None]) -> Begun | None:
        routes = self._routes
        if (
            not self._publisher.takes_directly()
            or len(body) > routes.decision.rules.max_body_bytes
            or _stdlib_log.isEnabledFor(logging.DEBUG)
        ):
            return None
        address = routes.sources.sender(peer, head.headers.get(_FORWARDED_FOR))
        try:
            routes.sources.check(address)
        except Unverified:
            return None
        received = Received(
            wire_action=YIDA_PATHS[head.path],
            received_at=time.time_ns() // 1_000_000,
            remote_address=address,
            method="POST",
            path=head.path,
            query=b"",
            headers=head.headers,
            body=body,
        )
        begun = DirectCallback(settled, routes, received)
        try:
            begun.decided = routes.decide(received)
            begun.publishing = time.perf_counter()
            begun.record = self._publisher.send(
                begun.decided, traceparent=valid_traceparent(head.headers.get(TRACEPARENT)), then=begun.settle
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the general way deals with it
            begun.error = error
        return begun


class DirectCallback(BegunCallback):
    """One that is answered as soon as Kafka has it."""

    __slots__ = ("_routes",)

    def __init__(self, settled: Callable[[Begun], None], routes: CallbackRoutes, received: Received) -> None:
        super().__init__(settled, received)
        self._routes = routes

    def accepted(self) -> bytes:
        assert self.decided is not None, "it was sent"
        now = time.perf_counter()
        action = self.received.wire_action
        metrics = self._routes.metrics
        metrics.publish_seconds.observe(action, now - self.publishing)
        metrics.count(action, Durability.KAFKA, now - self.started)
        return accepted(self.decided.event_id, Durability.KAFKA)
