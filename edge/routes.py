"""The path of one callback: receive, understand, publish, answer; what is rejected goes into the quarantine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from edge import answers
from edge.callbacks import ACTIONS
from edge.errors import NotDurable, Rejection
from edge.publisher import valid_traceparent
from edge.requests import LargeBodies, receive, remote_address
from edge.understanding import understand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.credentials import CredentialsFile
    from edge.durability import Durability
    from edge.metrics import Metrics
    from edge.publisher import Publisher
    from edge.quarantine import Quarantine
    from edge.rejection_log import RejectionLog
    from edge.replays import Window
    from edge.requests import Received
    from edge.settings import EdgeSettings
    from edge.sources import Sources
    from edge.token_use import TokenUse
    from schemas.events import TaskEvent

_log = structlog.stdlib.get_logger(__name__)

_GONE = 499
"""Nobody sees this answer: the sender has hung up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackRoutes:
    """``POST /yida/tasks/{action}`` for the five actions."""

    settings: EdgeSettings
    credentials: CredentialsFile
    publisher: Publisher
    metrics: Metrics
    sources: Sources
    token_use: TokenUse
    window: Window
    quarantine: Quarantine
    rejections: RejectionLog
    large_bodies: LargeBodies = field(default_factory=LargeBodies)

    def routes(self) -> list[Route]:
        # Starlette's own routes: FastAPI's would parse the body and resolve dependencies for every callback.
        return [
            Route(f"/yida/tasks/{action}", partial(self._answer, action), methods=["POST"], name=action)
            for action in ACTIONS
        ]

    async def _answer(self, wire_action: str, request: Request) -> Response:
        started = time.perf_counter()
        received: Received | None = None
        log = _log.bind(action=wire_action, remote_address=remote_address(request))
        try:
            self.sources.check(remote_address(request))
            received = await receive(
                request,
                wire_action,
                received_at=time.time_ns() // 1_000_000,
                max_body_bytes=self.settings.max_body_bytes,
                large_bodies=self.large_bodies,
            )
            with self.metrics.verify_seconds.labels(wire_action).time():
                event = understand(
                    received,
                    credentials=self.credentials.current,
                    bearer_tokens=self._bearer_tokens(),
                    delete_extra_keys=self.settings.delete_extra_keys,
                    window=self.window,
                    used=self.token_use.note,
                )
            with self.metrics.publish_seconds.labels(wire_action).time():
                durability = await self._publish(event, received)
        except Rejection as rejection:
            # A request that was not received whole cannot be kept.
            kept = await self.quarantine.keep(received, rejection) if received is not None else None
            self._log_rejection(log, rejection, remote_address(request), kept)
            response, outcome = answers.rejected(rejection), rejection.reason
        except NotDurable as error:
            log.error("callback_not_durable", problem=str(error))  # noqa: TRY400 - foreseen: no traceback
            response, outcome = answers.unavailable(), "not-durable"
        except ClientDisconnect:
            if self.rejections.admit("aborted", remote_address(request)) is not None:
                log.warning("callback_aborted")
            response, outcome = Response(status_code=_GONE), "aborted"
        except Exception:
            self.metrics.callbacks.labels(wire_action, "error").inc()
            raise
        else:
            log.info("callback_accepted", event_id=event.event_id, app_type=event.app_type, durability=durability)
            response, outcome = answers.accepted(event.event_id, durability), durability
        self.metrics.callbacks.labels(wire_action, outcome).inc()
        self.metrics.seconds.labels(wire_action).observe(time.perf_counter() - started)
        return response

    async def _publish(self, event: TaskEvent, received: Received) -> Durability:
        traceparent = valid_traceparent(received.headers.get("traceparent"))
        return await self.publisher.publish(event, traceparent=traceparent)

    def _bearer_tokens(self) -> Sequence[str]:
        return [token.get_secret_value() for token in self.settings.bearer_tokens]

    def _log_rejection(
        self, log: structlog.stdlib.BoundLogger, rejection: Rejection, source: str, kept: str | None
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
