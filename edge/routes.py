"""The path of one callback: receive, parse, find the app, verify, understand, publish, answer."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from edge import answers
from edge.callbacks import ACTIONS, event_of, locate
from edge.errors import NotDurable, Rejection
from edge.parameters import read_parameters
from edge.publisher import valid_traceparent
from edge.requests import receive, remote_address
from edge.verification import check_bearer, verify
from service.problems import unforeseen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

    from edge.credentials import CredentialsFile
    from edge.metrics import Metrics
    from edge.publisher import Durability, Publisher
    from edge.requests import Received
    from edge.settings import EdgeSettings
    from schemas.events import TaskEvent

_log = structlog.stdlib.get_logger(__name__)
_stdlib_log = logging.getLogger(__name__)
"""Asked for its level before a line is made: a line costs as much as all else that is done for a callback."""

_ACTION_OF_PATH = {f"/yida/tasks/{action}": action for action in ACTIONS}

_GONE = 499
"""Nobody sees this answer: the sender has hung up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackRoutes:
    """``POST /yida/tasks/{action}`` for the five actions."""

    settings: EdgeSettings
    credentials: CredentialsFile
    publisher: Publisher
    metrics: Metrics

    def routes(self) -> list[Route]:
        """For what is no callback though it has the path of one, such as a GET."""
        return [
            Route(path, partial(self._answer, action), methods=["POST"], name=action)
            for path, action in _ACTION_OF_PATH.items()
        ]

    def action_of(self, scope: Scope) -> str | None:
        """The action that a request is a callback of, or None when it is none."""
        return _ACTION_OF_PATH.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None

    async def serve(self, wire_action: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one callback without any layer of a framework; what was not foreseen is raised after the answer."""
        try:
            response = await self._answer(wire_action, Request(scope, receive))
        except Exception:
            await unforeseen()(scope, receive, send)
            raise
        await response(scope, receive, send)

    async def _answer(self, wire_action: str, request: Request) -> Response:
        started = time.perf_counter()
        try:
            received = await receive(
                request,
                wire_action,
                received_at=time.time_ns() // 1_000_000,
                max_body_bytes=self.settings.max_body_bytes,
            )
            event = self._understand(received)
            durability = await self._publish(event, received)
        except Rejection as rejection:
            _log_of(wire_action, request).warning(
                "callback_rejected", reason=rejection.reason, detail=rejection.detail, app_type=rejection.app_type
            )
            response, outcome = answers.rejected(rejection), rejection.reason
        except NotDurable as error:
            log = _log_of(wire_action, request)
            log.error("callback_not_durable", problem=str(error))  # noqa: TRY400 - foreseen: no traceback
            response, outcome = answers.unavailable(), "not-durable"
        except ClientDisconnect:
            _log_of(wire_action, request).warning("callback_aborted")
            response, outcome = Response(status_code=_GONE), "aborted"
        except Exception:
            self.metrics.callbacks.labels(wire_action, "error").inc()
            raise
        else:
            if _stdlib_log.isEnabledFor(logging.DEBUG):
                _log_of(wire_action, request).debug(
                    "callback_accepted", event_id=event.event_id, app_type=event.app_type, durability=durability
                )
            response, outcome = answers.accepted(event.event_id, durability), durability
        self.metrics.count(wire_action, outcome, time.perf_counter() - started)
        return response

    def _understand(self, received: Received) -> TaskEvent:
        """The event that the request reports.

        Raises:
            Rejection: it cannot be understood, or not be proven. What is not understood at all wins over what is not
                proven, and that over what is proven but incomplete.
        """
        readings = read_parameters(received.query, received.headers.get("content-type"), received.body)
        callback = locate(received.wire_action, readings[0])
        try:
            check_bearer(received.headers.get("authorization"), self._bearer_tokens(), callback)
            verified = verify(
                callback,
                readings,
                credentials=self.credentials.current,
                delete_extra_keys=self.settings.delete_extra_keys,
            )
            return event_of(callback, verified, received_at=received.received_at)
        except Rejection as rejection:
            rejection.app_type = callback.app_type
            raise

    async def _publish(self, event: TaskEvent, received: Received) -> Durability:
        traceparent = valid_traceparent(received.headers.get("traceparent"))
        return await self.publisher.publish(event, traceparent=traceparent)

    def _bearer_tokens(self) -> Sequence[str]:
        return [token.get_secret_value() for token in self.settings.bearer_tokens]


def _log_of(wire_action: str, request: Request) -> structlog.stdlib.BoundLogger:
    return _log.bind(action=wire_action, remote_address=remote_address(request))
