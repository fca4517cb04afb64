"""Operators' queries: the state of the bridge, and the history of a callback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response  # noqa: TC002 - as above

from taskbridge.center.access.access import TOKEN
from taskbridge.center.access.refusals import Forbidden
from taskbridge.center.api.routes import ID_MAX
from taskbridge.streams.api.forwarding import FORWARDED_HEADER
from taskbridge.streams.query import models
from taskbridge.streams.query.answers import json_answer

if TYPE_CHECKING:
    from taskbridge.center.access.access import Access
    from taskbridge.center.operations.reporting import OperationsReporter

_InstanceId = Annotated[
    str,
    Query(min_length=1, max_length=ID_MAX, description="Yida's formInstId.", examples=["f30233fb-72e1-4af4"]),
]


def operations_router(reporter: OperationsReporter, access: Access) -> APIRouter:
    """``/v1/ops/…``, for operators only: it shows something of every corp."""
    router = APIRouter(prefix="/v1/ops", tags=["operations"], dependencies=[TOKEN])
    refused = models.problems(400, 401, 403, 429, 503)

    async def authorization_of(request: Request) -> str | None:
        """What goes along to other workers.

        Raises:
            Unauthorized, Forbidden: not from an operator.
        """
        if not (await access.caller_of(request)).is_operator:
            raise Forbidden("operators only: a token for all corps is required")
        return request.headers.get("authorization")

    @router.get("/overview", summary="Status of the bridge", responses=refused)
    async def overview(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Flow, edges, what was set aside, partitions, workers and last errors, of all workers together."""
        return json_answer(await reporter.overview(await authorization_of(request)))

    @router.get("/callbacks", summary="Search an instance's callbacks", responses=refused)
    async def callbacks(request: Request, instance_id: _InstanceId) -> Response:  # pyright: ignore[reportUnusedFunction]
        """One search of states, events, quarantine, dead letters and notifications, and a verdict in a sentence."""
        return json_answer(await reporter.callbacks(instance_id, await authorization_of(request)))

    @router.get("/worker", include_in_schema=False)
    async def worker(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        await authorization_of(request)
        return json_answer(reporter.share())

    @router.get("/instance", include_in_schema=False)
    async def instance(request: Request, instance_id: _InstanceId) -> Response:  # pyright: ignore[reportUnusedFunction]
        authorization = await authorization_of(request)
        forwarded = FORWARDED_HEADER in request.headers
        return json_answer(await reporter.instance(instance_id, forwarded=forwarded, authorization=authorization))

    return router
