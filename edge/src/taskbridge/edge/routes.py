"""The path of one callback: receive, decide, claim, publish, answer; what is rejected goes into the quarantine."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from taskbridge.edge import answers
from taskbridge.edge.deciding.paths import SOURCE_PATHS, YIDA_PATHS, action_of
from taskbridge.edge.delivery.router import Durability
from taskbridge.edge.errors import NotDurable, Rejection
from taskbridge.edge.server.direct import BEGUN, Begun
from taskbridge.edge.server.requests import LargeBodies, receive, remote_address
from taskbridge.edge.verification.replays import claim
from taskbridge.runtime.http.problems import unforeseen
from taskbridge.runtime.producing.producer import DeliveryFailed, QueueFull
from taskbridge.runtime.tracing.traceparent import TRACEPARENT, trace_id_of, valid_traceparent

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from taskbridge.edge.decided import Decided
    from taskbridge.edge.deciding.decision import Decision
    from taskbridge.edge.delivery.publisher import Publisher
    from taskbridge.edge.kafka.record import Record
    from taskbridge.edge.monitoring.metrics import Metrics
    from taskbridge.edge.quarantine import Quarantine
    from taskbridge.edge.received import Received
    from taskbridge.edge.server.rejection_log import RejectionLog
    from taskbridge.edge.server.sources import Sources
    from taskbridge.edge.verification.replays import Window

_log = structlog.stdlib.get_logger(__name__)
_stdlib_log = logging.getLogger(__name__)

_GONE = 499
"""Nobody sees this answer: the sender has hung up."""


def logs_accepted() -> bool:
    """Whether each callback gets a line, which costs as much as all else that is done for it."""
    return _stdlib_log.isEnabledFor(logging.DEBUG)


class BegunCallback(Begun, eq=False, kw_only=True):
    """One that went directly so far; here it goes on, where that did not work out."""

    started: float
    publishing: float = 0.0
    decided: Decided | None = None
    record: Record | None = None

    @property
    def received(self) -> Received:
        """The request: it is made of the piece where somebody wants it, which nearly nobody does."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackRoutes:
    """``POST /yida/tasks/{action}`` and ``/sources/{source}/tasks/{action}`` for the five actions."""

    decision: Decision
    window: Window
    publisher: Publisher
    metrics: Metrics
    sources: Sources
    quarantine: Quarantine
    rejections: RejectionLog
    large_bodies: LargeBodies = field(default_factory=LargeBodies)

    def routes(self) -> list[Route]:
        """For what is no callback though it has the path of one, such as a GET."""
        return [
            Route(path, partial(self._answer_request, action), methods=["POST"], name=action)
            for path, action in (YIDA_PATHS | SOURCE_PATHS).items()
        ]

    def action_of(self, scope: Scope) -> str | None:
        """The action that a request is a callback of, ``UNKNOWN`` where its path does not say, None when it is none."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        return action_of(scope["path"])

    async def serve(self, wire_action: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one callback without any layer of a framework; what was not foreseen is raised after the answer."""
        self.sources.name_sender(scope)
        try:
            response = await self._answer(wire_action, scope, receive)
        except Exception:
            await unforeseen()(scope, receive, send)
            raise
        await response(scope, receive, send)

    async def _answer_request(self, wire_action: str, request: Request) -> Response:
        return await self._answer(wire_action, request.scope, request.receive)

    async def _answer(self, wire_action: str, scope: Scope, from_network: Receive) -> Response:
        direct: BegunCallback | None = scope.get(BEGUN)
        started = time.perf_counter() if direct is None else direct.started
        received = None if direct is None else direct.received
        decided = None if direct is None else direct.decided
        try:
            if direct is not None:
                durability = await self._goes_on(direct)
            else:
                self.sources.check(remote_address(scope))
                received = await receive(
                    scope,
                    from_network,
                    wire_action,
                    received_at=time.time_ns() // 1_000_000,
                    max_body_bytes=self.decision.rules.max_body_bytes,
                    large_bodies=self.large_bodies,
                )
                decided = self.decide(received)
                durability = await self._publish(decided, received)
        except Rejection as rejection:
            begun = received or rejection.head
            kept = await self.quarantine.keep(begun, rejection) if begun is not None else None
            self._log_rejection(rejection, _log_of(wire_action, scope, begun), remote_address(scope), kept)
            response, outcome = answers.rejected(rejection), rejection.reason
        except NotDurable as error:
            log = _log_of(wire_action, scope, received)
            log.error("callback_not_durable", problem=str(error))  # noqa: TRY400 - foreseen: no traceback
            response, outcome = answers.unavailable(), "not-durable"
        except ClientDisconnect:
            if self.rejections.admit("aborted", remote_address(scope)) is not None:
                _log_of(wire_action, scope, received).warning("callback_aborted")
            response, outcome = Response(status_code=_GONE), "aborted"
        except Exception:
            self.metrics.outcomes.count(wire_action, "error")
            if received is not None:
                await self.quarantine.keep(received, _unforeseen(decided))
            raise
        else:
            assert decided is not None, "it is durable"
            if logs_accepted():
                _log_of(wire_action, scope, received).debug(
                    "callback_accepted", event_id=decided.event_id, app_type=decided.app_type, durability=durability
                )
            response, outcome = answers.Accepted(decided.event_id, durability), durability
        self.metrics.count(wire_action, outcome, time.perf_counter() - started)
        return response

    def decide(self, received: Received) -> Decided:
        started = time.perf_counter()
        try:
            decided = self.decision.of(received)
        except Exception:
            self.metrics.verify_seconds.observe(received.wire_action, time.perf_counter() - started)
            raise
        return self.claimed(decided, received.wire_action, started)

    def claimed(self, decided: Decided, wire_action: str, started: float) -> Decided:
        """The same, once its signature is claimed for it."""
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

    async def _goes_on(self, direct: BegunCallback) -> Durability:
        try:
            await direct.outcome()
        except (DeliveryFailed, QueueFull):
            # Perhaps it arrived all the same, as in ``Router.keep``.
            assert direct.record is not None, "it was sent"
            return await self.publisher.keep_elsewhere(direct.record)
        else:
            return Durability.KAFKA
        finally:
            if direct.decided is not None:
                took = time.perf_counter() - direct.publishing
                self.metrics.publish_seconds.observe(direct.received.wire_action, took)

    def _log_rejection(
        self, rejection: Rejection, log: structlog.stdlib.BoundLogger, source: str, kept: str | None
    ) -> None:
        left_out = self.rejections.admit(rejection.reason, source)
        if left_out is not None:
            said = {"left_out": left_out} if left_out else {}
            log.warning(
                "callback_rejected",
                reason=rejection.reason,
                detail=rejection.detail,
                app_type=rejection.app_type,
                quarantine_id=kept,
                **said,
            )


def _unforeseen(decided: Decided | None) -> Rejection:
    """What the quarantine is told of an error of ours; the event, where it was understood so far."""
    rejection = Rejection("error", "Internal error.")
    if decided is not None:
        rejection.app_type, rejection.proven = decided.app_type, True
    return rejection


def _log_of(wire_action: str, scope: Scope, received: Received | None) -> structlog.stdlib.BoundLogger:
    log = _log.bind(action=wire_action, remote_address=remote_address(scope))
    traceparent = received and valid_traceparent(received.headers.get(TRACEPARENT))
    return log.bind(trace_id=trace_id_of(traceparent)) if traceparent else log
