"""The path of one callback: decide, claim, publish, answer; a rejected callback goes into the quarantine.

``server`` receives the request and writes the answer: docs/adr/0012-one-path-for-callbacks.md.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.answers import accepted, refused
from taskbridge.edge.decision.decide import action_of
from taskbridge.edge.errors import NotDurable, Rejection
from taskbridge.edge.server.exchange import LargeBodies
from taskbridge.edge.tracing import publish_traced
from taskbridge.edge.verification.replays import claim
from taskbridge.runtime.tracing import TRACEPARENT, trace_id_of, valid_traceparent

if TYPE_CHECKING:
    from collections.abc import Container

    from taskbridge.edge.decision.decide import Decision
    from taskbridge.edge.events import Decided, Durability
    from taskbridge.edge.monitoring import Metrics
    from taskbridge.edge.publisher import KafkaPublisher
    from taskbridge.edge.quarantine import Quarantine
    from taskbridge.edge.request import Received
    from taskbridge.edge.server.admission import RejectionLog, Senders
    from taskbridge.edge.server.exchange import Exchange
    from taskbridge.edge.verification.replays import Window
    from taskbridge.runtime.otel import Tracing

_log = structlog.stdlib.get_logger(__name__)
_stdlib_log = logging.getLogger(__name__)

_LOOK_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackPath:
    """``POST /yida/tasks/{action}`` and ``/sources/{source}/tasks/{action}`` for the five actions."""

    decision: Decision
    window: Window
    publisher: KafkaPublisher
    metrics: Metrics
    senders: Senders
    quarantine: Quarantine
    rejections: RejectionLog
    max_body_bytes: int
    tracing: Tracing | None = None
    not_at: Container[int] = ()
    """The ports of operators, where no callback is accepted."""
    large_bodies: LargeBodies = field(default_factory=LargeBodies)
    open: set[Exchange] = field(default_factory=set["Exchange"])
    """The callbacks that are not answered yet."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set["asyncio.Task[None]"])

    def action_of(self, path: str, port: int) -> str | None:
        return None if port in self.not_at else action_of(path)

    def accept(self, exchange: Exchange) -> None:
        self.open.add(exchange)
        received, decided = exchange.received, None
        try:
            decided, decided_at = self._decide(received)
            then = partial(self._conclude, exchange, decided, decided_at)
            if self.tracing is None:
                traceparent = valid_traceparent(received.headers.get(TRACEPARENT))
                self.publisher.publish_then(decided, traceparent=traceparent, then=then)
            else:
                publish_traced(self.tracing, self.publisher, received, decided, then)
        except Exception as error:  # noqa: BLE001 - it gets its answer
            self._start_refusal(exchange, error, received, decided)

    def refuse(self, exchange: Exchange, rejection: Rejection, begun: Received | None) -> None:
        self.open.add(exchange)
        self._start_refusal(exchange, rejection, begun, None)

    def abort(self, exchange: Exchange) -> None:
        received = exchange.received
        if self.rejections.admit("aborted", received.remote_address) is not None:
            _log_of(received).warning("callback_aborted")
        self._count(exchange, "aborted")

    async def close(self) -> None:
        """Return once all callbacks are answered whose connections are lost: their events must be stored too."""
        while self.open:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(_LOOK_S)

    def _decide(self, received: Received) -> tuple[Decided, float]:
        """The event, whose signature is claimed, and when that was."""
        started = time.perf_counter()
        try:
            decided = self.decision.decide(received)
            claim(decided.mark, self.window, sender=decided.sender, other_scheme=decided.other_scheme)
        finally:
            ended = time.perf_counter()
            self.metrics.verify_seconds.observe(received.wire_action, ended - started)
        return decided, ended

    def _conclude(
        self, exchange: Exchange, decided: Decided, decided_at: float, outcome: Durability | Exception
    ) -> None:
        """The event is durable, or cannot be."""
        received = exchange.received
        self.metrics.publish_seconds.observe(received.wire_action, time.perf_counter() - decided_at)
        if isinstance(outcome, Exception):
            self._start_refusal(exchange, outcome, received, decided)
            return
        # A line for each callback costs as much as the rest of its work.
        if _stdlib_log.isEnabledFor(logging.DEBUG):
            _log_of(received).debug(
                "callback_accepted", event_id=decided.event_id, app_type=decided.app_type, durability=outcome
            )
        self._count(exchange, outcome)
        self.open.discard(exchange)
        exchange.answer(*accepted(decided.event_id, outcome))

    def _start_refusal(
        self, exchange: Exchange, error: Exception, begun: Received | None, decided: Decided | None
    ) -> None:
        task = asyncio.get_running_loop().create_task(self._refuse(exchange, error, begun, decided))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _refuse(
        self, exchange: Exchange, error: Exception, begun: Received | None, decided: Decided | None
    ) -> None:
        received = exchange.received
        try:
            if isinstance(error, Rejection):
                quarantine_id = None if begun is None else await self.quarantine.store(begun, error)
                self._log_rejection(error, received, quarantine_id)
                self._count(exchange, error.reason)
            elif isinstance(error, NotDurable):
                _log_of(received).error("callback_not_durable", problem=str(error))
                self._count(exchange, "not-durable")
            else:
                _log_of(received).error("callback_failed", exc_info=error)
                self.metrics.outcomes.count(received.wire_action, "error")
                await self.quarantine.store(received, _unforeseen(decided))
        finally:
            self.open.discard(exchange)
            exchange.answer(*refused(error))

    def _count(self, exchange: Exchange, outcome: str) -> None:
        self.metrics.count(exchange.received.wire_action, outcome, time.perf_counter() - exchange.started)

    def _log_rejection(self, rejection: Rejection, received: Received, quarantine_id: str | None) -> None:
        left_out = self.rejections.admit(rejection.reason, received.remote_address)
        if left_out is not None:
            more = {"left_out": left_out} if left_out else {}
            _log_of(received).warning(
                "callback_rejected",
                reason=rejection.reason,
                detail=rejection.detail,
                app_type=rejection.app_type,
                quarantine_id=quarantine_id,
                **more,
            )


def _unforeseen(decided: Decided | None) -> Rejection:
    """The rejection for an internal error; with the app if the callback was verified."""
    rejection = Rejection("error", "Internal error.")
    if decided is not None:
        rejection.app_type, rejection.proven = decided.app_type, True
    return rejection


def _log_of(received: Received) -> structlog.stdlib.BoundLogger:
    log = _log.bind(action=received.wire_action, remote_address=received.remote_address)
    traceparent = valid_traceparent(received.headers.get(TRACEPARENT))
    return log.bind(trace_id=trace_id_of(traceparent)) if traceparent else log
