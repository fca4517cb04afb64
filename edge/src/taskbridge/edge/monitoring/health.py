"""What operators and orchestrators ask: is the process alive, can it keep a callback, what has it counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from taskbridge.runtime.openapi import LIVENESS, METRICS, READINESS
from taskbridge.runtime.process import identity

if TYPE_CHECKING:
    from taskbridge.edge.delivery.publisher import Publisher
    from taskbridge.edge.monitoring.worker_metrics import WorkerMetrics
    from taskbridge.edge.verification.credentials import CredentialsFile

_OK = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRoutes:
    """With ``details`` for operators; without, what anybody may know who can send callbacks."""

    credentials: CredentialsFile
    publisher: Publisher
    metrics: WorkerMetrics
    core: str
    """What decides callbacks: ``native`` or ``python``."""
    details: bool = True

    def router(self) -> APIRouter:
        router = APIRouter(tags=["health"])
        router.add_api_route("/healthz", self._healthz, methods=["GET"], responses=LIVENESS)
        router.add_api_route("/readyz", self._readyz, methods=["GET"], responses=READINESS)
        if self.details:
            router.add_api_route("/metrics", self._metrics, methods=["GET"], response_class=Response, responses=METRICS)
        return router

    async def _healthz(self) -> Response:
        """The process lives."""
        return JSONResponse({"status": "ok"})

    async def _readyz(self) -> Response:
        """200 when a callback can be accepted and kept, else 503; the body says what is missing.

        Where operators have an address of their own it says so there, and anywhere else ``ready`` alone. Degraded: it
        can be kept, though not as it should be, in the spool alone for example; or the last change of the credentials
        is not in force.
        """
        has_apps = self.credentials.current.count > 0
        credentials = self.credentials.problem or (_OK if has_apps else "no apps")
        parts = {**self.publisher.health(), "credentials": credentials}
        ready = has_apps and self.publisher.can_keep()
        degraded = ready and any(part != _OK for part in parts.values())
        body: dict[str, Any] = {"ready": ready}
        if self.details:
            body |= {"degraded": degraded, **parts, "core": self.core}
        return JSONResponse(body, status_code=200 if ready else 503, headers=identity("edge"))

    async def _metrics(self) -> Response:
        """In Prometheus' text format."""
        return Response(self.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
