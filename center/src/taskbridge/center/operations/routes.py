"""Operators' queries: the state of the bridge, and the history of a callback."""

# pyright: reportUnusedFunction=false

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Path, Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response  # noqa: TC002 - as above

from taskbridge.center.api.guard import Operator, guarded_router
from taskbridge.center.api.models import ID_MAX
from taskbridge.center.api.routes import JsonAnswer
from taskbridge.runtime.problems import documented

if TYPE_CHECKING:
    from fastapi import APIRouter

    from taskbridge.center.access.access import Access
    from taskbridge.center.operations.reporting import OperationsReporter

_InstanceId = Annotated[
    str, Query(min_length=1, max_length=ID_MAX, description="Yida's formInstId.", examples=["f30233fb-72e1-4af4"])
]

_Endpoint = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="Its name.", examples=["erp"])]
_Action = Annotated[Literal["test", "replay"], Path(description="What to do.")]
_ACTED: dict[int | str, dict[str, Any]] = {
    404: documented(404, "The endpoint is unknown, or no webhooks service is set."),
    502: documented(502, "The webhooks service does not answer, or refuses; the detail says why."),
}


def operations_router(reporter: OperationsReporter, access: Access) -> APIRouter:
    """``/v1/ops/…``, for operators only: it shows something of every corp."""
    router = guarded_router(access, "operations")

    @router.get("/ops/overview", summary="Status of the bridge")
    async def overview(_: Operator) -> Response:
        """Flow, edges, what was set aside, partitions, workers, replicas of the center and last errors."""
        return JsonAnswer(await reporter.overview())

    @router.get("/ops/callbacks", summary="Search an instance's callbacks")
    async def callbacks(request: Request, caller: Operator, instance_id: _InstanceId) -> Response:
        """One search of states, events, quarantine, dead letters and notifications."""
        await access.record_read(request, caller, instance_id)
        return JsonAnswer(await reporter.callbacks(instance_id, caller))

    @router.post("/ops/webhooks/{endpoint}/{action}", summary="Act on a webhook endpoint", responses=_ACTED)
    async def act(request: Request, caller: Operator, endpoint: _Endpoint, action: _Action) -> Response:
        """The webhooks service sends an example now (`test`), or delivers again what was given up (`replay`)."""
        await access.record(request, caller, f"webhooks_{action}", endpoint)
        return JsonAnswer(await reporter.act(endpoint, action))

    return router
