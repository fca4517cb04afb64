"""The HTTP side of the streams service: health, readiness and metrics, served in the worker's own event loop."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.errors import ConfigurationError
from service.problems import answer_with_problems

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from prometheus_client import CollectorRegistry


def build_http(readiness: Callable[[], dict[str, Any]], registry: CollectorRegistry) -> FastAPI:
    """``readiness`` gives the details for ``/readyz``; its ``ready`` decides the status."""
    http = FastAPI(title="taskbridge streams", version="1", docs_url="/docs", redoc_url=None)
    answer_with_problems(http)

    @http.get("/healthz", summary="The process lives", tags=["operation"])
    async def healthz() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "ok"}

    @http.get("/readyz", summary="Tables are live and events are being processed", tags=["operation"])
    async def readyz() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        found = readiness()
        return JSONResponse(found, status_code=200 if found["ready"] else 503)

    @http.get("/metrics", summary="Prometheus metrics", tags=["operation"])
    async def metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return http


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Made by us, because uvicorn ends the process where it cannot have the port.

    Raises:
        ConfigurationError: the port is in use, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({error.strerror}): set STREAMS_PORT and STREAMS_HOST"
        ) from error


class Server(uvicorn.Server):
    """Uvicorn within a loop that is somebody else's: signals are the composition root's business."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
        )

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
