"""Operators' queries: the state of the bridge, and the history of a callback."""

# pyright: reportUnusedFunction=false

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response  # noqa: TC002 - as above

from taskbridge.center.api import models
from taskbridge.center.api.routes import ID_MAX, JsonAnswer
from taskbridge.runtime.access import TOKEN
from taskbridge.runtime.problems import documented
from taskbridge.runtime.refusals import Forbidden
from taskbridge.schemas.json_forms import to_json

if TYPE_CHECKING:
    from taskbridge.center.access.access import Access, Caller
    from taskbridge.center.operations.reporting import OperationsReporter

_InstanceId = Annotated[
    str, Query(min_length=1, max_length=ID_MAX, description="Yida's formInstId.", examples=["f30233fb-72e1-4af4"])
]

_Endpoint = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="Its name.", examples=["erp"])]
_Action = Annotated[Literal["test", "replay"], Path(description="What to do.")]


def operations_router(reporter: OperationsReporter, access: Access) -> APIRouter:
    """``/v1/ops/…``, for operators only: it shows something of every corp."""
    router = APIRouter(prefix="/v1/ops", tags=["operations"], dependencies=[TOKEN])
    refused = models.problems(400, 401, 403, 429, 503)

    async def operator(request: Request) -> Caller:
        """The caller; raises Forbidden if they are no operator."""
        caller = await access.caller_of(request)
        if not caller.is_operator:
            raise Forbidden("operators only: a token for all corps, or the role, is required")
        return caller

    @router.get("/overview", summary="Status of the bridge", responses=refused)
    async def overview(request: Request) -> Response:
        """Flow, edges, what was set aside, partitions, workers, replicas of the center and last errors."""
        await operator(request)
        return JsonAnswer(to_json(await reporter.overview()))

    @router.get("/callbacks", summary="Search an instance's callbacks", responses=refused)
    async def callbacks(request: Request, instance_id: _InstanceId) -> Response:
        """One search of states, events, quarantine, dead letters and notifications."""
        return JsonAnswer(to_json(await reporter.callbacks(instance_id, await operator(request))))

    @router.post("/webhooks/{endpoint}/{action}", summary="Act on a webhook endpoint", responses=_acted(refused))
    async def act(request: Request, endpoint: _Endpoint, action: _Action) -> Response:
        """The webhooks service sends an example now (`test`), or delivers again what was given up (`replay`)."""
        caller = await operator(request)
        await access.record(request, caller, f"webhooks_{action}", endpoint)
        return JsonAnswer(to_json(await reporter.act(endpoint, action)))

    return router


def _acted(refused: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    return {
        **refused,
        404: documented(404, "The endpoint is unknown, or no webhooks service is set."),
        502: documented(502, "The webhooks service does not answer, or refuses; the detail says why."),
    }
