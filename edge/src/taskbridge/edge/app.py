"""The composition root of the edge: builds everything once, and runs the process."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI
from starlette.routing import Route

from taskbridge.edge.decision.decide import SOURCE_PATHS, YIDA_PATHS, Decision, Rules
from taskbridge.edge.monitoring import Metrics, readiness
from taskbridge.edge.openapi import document_callbacks
from taskbridge.edge.path import CallbackPath
from taskbridge.edge.publisher import KafkaPublisher
from taskbridge.edge.quarantine import Quarantine
from taskbridge.edge.server.admission import GATE, Gate, RejectionLog, Senders, with_open_files
from taskbridge.edge.server.exchange import ENDPOINT
from taskbridge.edge.server.serving import end_on_signal, serve
from taskbridge.edge.server.sockets import listen_with_peers, passed_sockets
from taskbridge.edge.settings import EdgeSettings
from taskbridge.edge.tracing import trace_drained
from taskbridge.edge.verification.credentials import CredentialsFile, TokenUse
from taskbridge.edge.verification.replays import FileWindows
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.openapi import amend_document, serve_docs
from taskbridge.runtime.operation import end_within, operation_router
from taskbridge.runtime.problems import answer_with_problems
from taskbridge.runtime.process import collect_garbage_rarely
from taskbridge.runtime.settings import load_settings, run_program
from taskbridge.runtime.topic_admin import partitions_setting
from taskbridge.runtime.tracing import tracing_from_environment
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.topics import DEFAULT_PARTITIONS

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncGenerator, Mapping

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from taskbridge.edge.server.sockets import Sockets
    from taskbridge.runtime.otel import Tracing

_LAST_S = 12
"""How long callbacks whose connections are lost, and then the parts, may take at the end."""

_log = structlog.stdlib.get_logger(__name__)


class EdgeApp(FastAPI):
    """Answers all requests but callbacks, which the protocol gives to ``callbacks``."""

    def __init__(self, callbacks: CallbackPath, operators: Mapping[int, FastAPI], **options: Any) -> None:
        """``operators`` are the applications of separate ports, by port."""
        super().__init__(**options)
        self.callbacks = callbacks
        self._operators = operators
        # For other methods than POST.
        self.router.routes += [Route(path, _never, methods=["POST"]) for path in (*YIDA_PATHS, *SOURCE_PATHS)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._operators and scope["type"] == "http" and (app := self._operators.get(scope["server"][1])) is not None:
            await app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def _never(_request: Request) -> Response:
    raise RuntimeError("served by another protocol than EdgeProtocol")


def create_app(
    settings: EdgeSettings,
    *,
    partitions: int = DEFAULT_PARTITIONS,
    publisher: KafkaPublisher | None = None,
    owns_process: bool = False,
    tracing: Tracing | None = None,
) -> FastAPI:
    """The edge, not yet started. ``partitions`` applies to missing topics; ``publisher`` replaces Kafka in tests.

    With ``owns_process`` the process is tuned for the edge alone, and ends in bounded time after the last callback.

    Raises ConfigurationError if the credentials, the Kafka configuration or the data folder cannot be used.
    """
    _make_data_dir(settings)
    credentials = CredentialsFile(settings.credentials_file)
    metrics = Metrics()
    drained = None if tracing is None else partial(trace_drained, tracing)
    events = publisher or KafkaPublisher(settings, partitions=partitions, metrics=metrics.registry, on_drained=drained)
    token_use = TokenUse(settings.data_dir)
    senders = Senders(networks=settings.source_networks, trusted_proxies=settings.trusted_proxies)
    gate = Gate(settings, count=metrics.count_refused)
    window = FileWindows(settings.data_dir, entries=settings.replay_window_entries)
    metrics.watch(credentials=credentials, publisher=events, token_use=token_use, window=window, gate=gate)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        if decision.core != "native":
            _log.warning("native_core_not_built", effect="callbacks are decided in Python: as right, and slower")
        window.open()
        await events.start()
        upkeep = [asyncio.create_task(each) for each in (credentials.watch(), token_use.flush_regularly())]
        if settings.workers is not None:
            problem = "EDGE_WORKERS has no effect: an edge is one process; start more edges"
            _log.warning("setting_without_effect", problem=problem)
        _log.info("edge_started", apps=credentials.current.count)
        if owns_process:
            collect_garbage_rarely()
        yield {GATE: gate, ENDPOINT: callbacks}
        if owns_process:
            end_within(_LAST_S, 0)
        for each in upkeep:
            each.cancel()
        await asyncio.gather(*upkeep, return_exceptions=True)
        await callbacks.close()
        await events.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
        token_use.flush()
        window.close()
        _log.info("edge_stopped")

    decision = Decision(
        credentials=credentials,
        rules=Rules(
            bearer_tokens=[token.get_secret_value() for token in settings.bearer_tokens],
            delete_extra_keys=settings.delete_extra_keys,
            max_body_bytes=settings.max_body_bytes,
            token_used=token_use.note,
            reading_used=metrics.readings.count,
            skipped=metrics.count_left_out,
        ),
    )
    operators: dict[int, FastAPI] = {}
    callbacks = CallbackPath(
        decision=decision,
        window=window,
        publisher=events,
        metrics=metrics,
        senders=senders,
        quarantine=Quarantine(settings, events, metrics.quarantine),
        rejections=RejectionLog(),
        max_body_bytes=settings.max_body_bytes,
        tracing=tracing,
        not_at=operators,
    )
    if settings.operator_port is not None:
        operators[settings.operator_port] = FastAPI(openapi_url=None)
    app = EdgeApp(
        callbacks,
        operators,
        title="taskbridge edge",
        summary="Receives Yida's task callbacks, and responds once they are stored durably.",
        version=version("taskbridge-edge"),
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    serve_docs(app)
    for each in (app, *operators.values()):
        answer_with_problems(each)
        details = each is not app or not operators
        each.include_router(
            operation_router(
                readiness=partial(readiness, credentials, events, core=decision.core, details=details),
                ready="Ready when a callback can be accepted and stored",
                registry=metrics.registry if details else None,
            )
        )
    amend_document(app, partial(document_callbacks, bearer_needed=bool(settings.bearer_tokens)))
    return app


def run() -> None:
    """Serve until SIGTERM, SIGHUP or Ctrl-C, then finish open requests and exit with 0.

    A wrong configuration is one line on standard error and exit code 1.
    """
    end_on_signal()
    try:
        settings, app = _configured()
        passed = passed_sockets(os.environ)
        sockets = _sockets(settings, passed)
    except ConfigurationError as error:
        sys.exit(f"taskbridge edge: {error}")
    serve(app, sockets, are_held=bool(passed.callbacks))


def main() -> None:
    """The program ``taskbridge-edge``."""
    run_program("edge", run, does="Run the edge", needs="EDGE_CREDENTIALS_FILE=credentials.toml ")


def _sockets(settings: EdgeSettings, passed: Sockets) -> list[socket.socket]:
    sockets = passed.callbacks or listen_with_peers(settings.host, settings.port, data_dir=settings.data_dir)
    if settings.operator_port is None:
        if passed.operator:
            raise ConfigurationError("EDGE_OPERATOR_PORT: required if the supervisor passes a socket for operators")
        return sockets
    return sockets + (
        passed.operator or listen_with_peers(settings.operator_host, settings.operator_port, data_dir=settings.data_dir)
    )


def _configured() -> tuple[EdgeSettings, FastAPI]:
    settings = load_settings(EdgeSettings, os.environ)
    partitions = partitions_setting(os.environ)
    configure_logs(settings.log_format, settings.log_level)
    settings = with_open_files(settings)
    tracing = tracing_from_environment(os.environ, "taskbridge-edge")
    return settings, create_app(settings, partitions=partitions, owns_process=True, tracing=tracing)


def _make_data_dir(settings: EdgeSettings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"data folder {settings.data_dir}: {error.strerror}") from error
