"""The audit trail for auditors: as JSON, page by page, and as a whole for a spreadsheet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response, StreamingResponse

from taskbridge.center.access.audit import AuditEntry
from taskbridge.center.api import models
from taskbridge.center.api.routes import JsonAnswer
from taskbridge.center.api.spreadsheet import csv_documented, csv_headers, csv_lines
from taskbridge.runtime.access import TOKEN
from taskbridge.runtime.refusals import Forbidden
from taskbridge.schemas.json_forms import to_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from taskbridge.center.access.access import Access
    from taskbridge.center.access.audit import Audit

_PART = 1000
_CSV = csv_documented("All entries, newest first, with a line of names.", f"{','.join(AuditEntry._fields)}\r\n")


def audit_router(audit: Audit, access: Access) -> APIRouter:
    """``/v1/audit`` and ``/v1/audit.csv``."""
    router = APIRouter(prefix="/v1", tags=["audit"], dependencies=[TOKEN])
    refused = models.problems(400, 401, 403, 429, 503)

    async def check(request: Request) -> None:
        caller = await access.caller_of(request)
        if not caller.is_auditor:
            raise Forbidden("auditors only: the role, or a token for all corps, is required")

    @router.get("/audit", summary="Audit trail, newest first", response_model=models.AuditOut, responses=refused)
    async def entries(  # pyright: ignore[reportUnusedFunction]
        request: Request,
        before: Annotated[int | None, Query(ge=1, le=1 << 62, description="Only entries before this number.")] = None,
        limit: Annotated[int, Query(ge=1, le=_PART, description="Maximum number of entries.")] = 100,
    ) -> Response:
        await check(request)
        found = await audit.page(before=before, limit=limit)
        return JsonAnswer(to_json({"items": [each.shown() for each in found]}))

    @router.get(
        "/audit.csv", summary="Audit trail for a spreadsheet", response_class=Response, responses={**refused, **_CSV}
    )
    async def spreadsheet(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        """All entries, newest first."""
        await check(request)
        return StreamingResponse(_csv(audit), headers=csv_headers("audit.csv"), media_type="text/csv")

    return router


async def _csv(audit: Audit) -> AsyncGenerator[str]:
    before: int | None = None
    yield csv_lines([AuditEntry._fields])
    while found := await audit.page(before=before, limit=_PART):
        yield csv_lines(each.shown().values() for each in found)
        before = found[-1].seq
