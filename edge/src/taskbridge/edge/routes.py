"""The path of one callback: receive, decide, claim, publish, answer; what is rejected goes into the quarantine.

``FastCallbacks`` starts callbacks of Yida that arrived whole, without a task of their own. ``CallbackRoutes`` serves
all others, and continues those that the fast path could not finish: docs/adr/0012-the-fast-path-of-the-edge.md.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from taskbridge.edge.decision import SOURCE_PATHS, YIDA_PATHS, action_of
from taskbridge.edge.errors import (
    Malformed,
    NotDurable,
    Overloaded,
    Rejection,
    TooLarge,
    TooSlow,
    UnknownPath,
    UnsupportedType,
    Unverified,
)
from taskbridge.edge.publisher import Durability
from taskbridge.edge.server.protocol import FAST_REQUEST, MAX_HEADERS
from taskbridge.edge.server.requests import LargeBodies, receive, remote_address
from taskbridge.edge.verification.replays import claim
from taskbridge.runtime.problems import RETRY_AFTER_S, internal_error, problem
from taskbridge.runtime.producer import DeliveryFailed, QueueFull
from taskbridge.runtime.tracing import TRACEPARENT, trace_id_of, valid_traceparent

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from taskbridge.edge.decision import Decision
    from taskbridge.edge.events import Decided
    from taskbridge.edge.kafka.record import Record
    from taskbridge.edge.monitoring import Metrics
    from taskbridge.edge.publisher import KafkaPublisher
    from taskbridge.edge.quarantine import Quarantine
    from taskbridge.edge.request import Received
    from taskbridge.edge.server.admission import RejectionLog, Senders
    from taskbridge.edge.settings import EdgeSettings
    from taskbridge.edge.verification.replays import Window

_log = structlog.stdlib.get_logger(__name__)
_stdlib_log = logging.getLogger(__name__)

_KAFKA = Durability.KAFKA

_GONE = 499
"""The sender has closed the connection and does not see this response."""


def logs_accepted() -> bool:
    """Whether each callback is logged, which costs as much as the rest of its work."""
    return _stdlib_log.isEnabledFor(logging.DEBUG)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackRoutes:
    """``POST /yida/tasks/{action}`` and ``/sources/{source}/tasks/{action}`` for the five actions."""

    decision: Decision
    window: Window
    publisher: KafkaPublisher
    metrics: Metrics
    senders: Senders
    quarantine: Quarantine
    rejections: RejectionLog
    large_bodies: LargeBodies = field(default_factory=LargeBodies)

    def routes(self) -> list[Route]:
        """For requests with the path of a callback that are none, such as a GET."""
        return [
            Route(path, partial(self._answer_request, action), methods=["POST"], name=action)
            for path, action in (YIDA_PATHS | SOURCE_PATHS).items()
        ]

    def action_of(self, scope: Scope) -> str | None:
        """The action of a callback, ``UNKNOWN`` if its path names none, None if it is no callback."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        return action_of(scope["path"])

    async def serve(self, wire_action: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one callback without a framework's layers; an unexpected error is raised after the response."""
        self.senders.name_sender(scope)
        try:
            response = await self._answer(wire_action, scope, receive)
        except Exception:
            await internal_error()(scope, receive, send)
            raise
        await response(scope, receive, send)

    async def _answer_request(self, wire_action: str, request: Request) -> Response:
        return await self._answer(wire_action, request.scope, request.receive)

    async def _answer(self, wire_action: str, scope: Scope, from_network: Receive) -> Response:
        fast: FastCallback | None = scope.get(FAST_REQUEST)
        started = time.perf_counter() if fast is None else fast.started
        received = None
        decided = None if fast is None else fast.decided
        try:
            self.senders.check(remote_address(scope))
            received = await receive(
                scope,
                from_network,
                wire_action,
                received_at=time.time_ns() // 1_000_000 if fast is None else fast.received_at,
                max_body_bytes=self.decision.rules.max_body_bytes,
                large_bodies=self.large_bodies,
            )
            if fast is None:
                decided = self._decide(received)
                durability = await self._publish(decided, received)
            else:
                durability = await self._continue(fast)
        except Rejection as rejection:
            begun = received or rejection.head
            quarantine_id = await self.quarantine.store(begun, rejection) if begun is not None else None
            self._log_rejection(rejection, _log_of(wire_action, scope, begun), remote_address(scope), quarantine_id)
            response, outcome = rejected(rejection), rejection.reason
        except NotDurable as error:
            log = _log_of(wire_action, scope, received)
            log.error("callback_not_durable", problem=str(error))  # noqa: TRY400 - foreseen: no traceback
            response, outcome = unavailable(), "not-durable"
        except ClientDisconnect:
            if self.rejections.admit("aborted", remote_address(scope)) is not None:
                _log_of(wire_action, scope, received).warning("callback_aborted")
            response, outcome = Response(status_code=_GONE), "aborted"
        except Exception:
            self.metrics.outcomes.count(wire_action, "error")
            if received is not None:
                await self.quarantine.store(received, _unforeseen(decided))
            raise
        else:
            assert decided is not None, "it is durable"
            if logs_accepted():
                _log_of(wire_action, scope, received).debug(
                    "callback_accepted", event_id=decided.event_id, app_type=decided.app_type, durability=durability
                )
            response = Response(_body(decided.event_id, durability), media_type="application/json")
            outcome = durability
        self.metrics.count(wire_action, outcome, time.perf_counter() - started)
        return response

    def _decide(self, received: Received) -> Decided:
        started = time.perf_counter()
        try:
            decided = self.decision.decide(received)
        except Exception:
            self.metrics.verify_seconds.observe(received.wire_action, time.perf_counter() - started)
            raise
        return self.claim(decided, received.wire_action, started)

    def claim(self, decided: Decided, wire_action: str, started: float) -> Decided:
        """Return the same event, once its signature is claimed for it."""
        try:
            claim(decided, self.window)
        finally:
            self.metrics.verify_seconds.observe(wire_action, time.perf_counter() - started)
        return decided

    async def _publish(self, decided: Decided, received: Received) -> Durability:
        started = time.perf_counter()
        traceparent = valid_traceparent(received.headers.get(TRACEPARENT))
        try:
            return await self.publisher.publish(decided, traceparent=traceparent)
        finally:
            self.metrics.publish_seconds.observe(received.wire_action, time.perf_counter() - started)

    async def _continue(self, fast: FastCallback) -> Durability:
        try:
            await fast.outcome()
        except (DeliveryFailed, QueueFull):
            # Kafka may have it nevertheless. A duplicate is allowed, a loss is not.
            assert fast.record is not None, "it was sent"
            return await self.publisher.spool(fast.record)
        else:
            return Durability.KAFKA
        finally:
            if fast.decided is not None:
                self.metrics.publish_seconds.observe(fast.wire_action, time.perf_counter() - fast.publishing)

    def _log_rejection(
        self, rejection: Rejection, log: structlog.stdlib.BoundLogger, source: str, quarantine_id: str | None
    ) -> None:
        left_out = self.rejections.admit(rejection.reason, source)
        if left_out is not None:
            more = {"left_out": left_out} if left_out else {}
            log.warning(
                "callback_rejected",
                reason=rejection.reason,
                detail=rejection.detail,
                app_type=rejection.app_type,
                quarantine_id=quarantine_id,
                **more,
            )


class FastCallbacks:
    """Starts callbacks of Yida that the native core decides at once. All others take the general path."""

    def __init__(self, routes: CallbackRoutes, settings: EdgeSettings, *, not_at: Container[int]) -> None:
        """``not_at`` are the ports where callbacks are not served."""
        self.routes = routes
        self._not_at = not_at
        # All of a request is no larger than any part of it may be. A header may count as one byte more than it has.
        self._max_bytes = min(routes.decision.rules.max_body_bytes, settings.max_header_bytes - MAX_HEADERS)

    def serves(self, port: int) -> bool:
        return port not in self._not_at

    def start(self, data: bytes, *, peer: str, settled: Callable[[FastCallback], None]) -> FastCallback | None:
        routes = self.routes
        if len(data) > self._max_bytes or not routes.publisher.is_direct() or logs_accepted():
            return None
        started = time.perf_counter()
        received_at = time.time_ns() // 1_000_000
        whole = routes.decision.decide_request(data, received_at)
        if whole is None:
            return None
        wire_action, forwarded_for, traceparent, found = whole
        hops = () if forwarded_for is None else (forwarded_for,)
        try:
            routes.senders.check(routes.senders.address(peer, hops))
        except Unverified:
            return None
        callback = FastCallback(routes.metrics, settled, data, wire_action, received_at, started)
        try:
            decided = routes.claim(routes.decision.event_of(wire_action, found), wire_action, started)
            callback.decided = decided
            callback.publishing = time.perf_counter()
            callback.record = routes.publisher.send(
                decided, traceparent=valid_traceparent(traceparent), then=callback.settle
            )
        except Exception as error:  # noqa: BLE001 - the general path handles it
            callback.error = error
        return callback


class FastCallback(Struct, eq=False):
    """A ``FastRequest``: one callback, from its bytes to its answer, which is written as soon as Kafka has the event.

    When anything else happens, the protocol hands it over to the general path, which continues from here. Nothing is
    decided or sent twice.
    """

    metrics: Metrics
    settled: Callable[[FastCallback], None]
    """Called once Kafka has acknowledged the event, or has not."""
    data: bytes
    wire_action: str
    received_at: int
    started: float
    publishing: float = 0.0
    decided: Decided | None = None
    record: Record | None = None
    error: Exception | None = None
    _outcome: asyncio.Future[None] | None = None

    def settle(self, error: Exception | None) -> None:
        self.error = error
        if self._outcome is None:
            self.settled(self)
        elif self._outcome.done():
            pass  # its task was cancelled
        elif error is None:
            self._outcome.set_result(None)
        else:
            self._outcome.set_exception(error)

    def hand_over(self, *, is_settled: bool) -> None:
        self._outcome = asyncio.get_running_loop().create_future()
        if is_settled:
            self.settle(self.error)

    async def outcome(self) -> None:
        """Return once Kafka has the event; raises the error that prevents it."""
        assert self._outcome is not None, "it was handed over"
        await self._outcome

    def accepted(self) -> bytes:
        assert self.decided is not None, "it was sent"
        now = time.perf_counter()
        self.metrics.publish_seconds.observe(self.wire_action, now - self.publishing)
        self.metrics.count(self.wire_action, _KAFKA, now - self.started)
        body = _body(self.decided.event_id, _KAFKA)
        return b"content-length: %d\r\ncontent-type: application/json\r\n\r\n%b" % (len(body), body)


def _unforeseen(decided: Decided | None) -> Rejection:
    """The rejection for an internal error; with the app if the callback was verified."""
    rejection = Rejection("error", "Internal error.")
    if decided is not None:
        rejection.app_type, rejection.proven = decided.app_type, True
    return rejection


def _log_of(wire_action: str, scope: Scope, received: Received | None) -> structlog.stdlib.BoundLogger:
    log = _log.bind(action=wire_action, remote_address=remote_address(scope))
    traceparent = received and valid_traceparent(received.headers.get(TRACEPARENT))
    return log.bind(trace_id=trace_id_of(traceparent)) if traceparent else log


# Responses.

STATUS: dict[type[Rejection], tuple[int, str]] = {
    Malformed: (400, "malformed"),
    Unverified: (401, "unverified"),
    UnknownPath: (404, "unknown-path"),
    TooSlow: (408, "too-slow"),
    TooLarge: (413, "too-large"),
    UnsupportedType: (415, "unsupported-type"),
    Overloaded: (503, "overloaded"),
}
"""Class of rejection → status and kind of problem."""

UNAVAILABLE = (503, "not-durable")


def _body(event_id: str, durability: Durability) -> bytes:
    return b'{"success":true,"eventId":"%b","durability":"%b"}' % (event_id.encode(), durability.encode())


def rejected(rejection: Rejection) -> Response:
    status, kind = STATUS[type(rejection)]
    # RFC 9110 requires a challenge with every 401; it is the same for every cause.
    headers = {"WWW-Authenticate": 'Sign realm="taskbridge"'} if isinstance(rejection, Unverified) else {}
    if isinstance(rejection, Overloaded):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return problem(status, rejection.detail, kind=kind, headers=headers)


def unavailable() -> Response:
    status, kind = UNAVAILABLE
    detail = "The event cannot be stored now. Send it again later."
    return problem(status, detail, kind=kind, headers={"Retry-After": str(RETRY_AFTER_S)})
