"""The audit trail for auditors: as JSON, page by page, and as a whole for a spreadsheet."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response, StreamingResponse

from taskbridge.center.access.audit import AuditEntry
from taskbridge.center.api import models
from taskbridge.center.api.routes import JsonAnswer
from taskbridge.runtime.access import TOKEN
from taskbridge.runtime.refusals import Forbidden
from taskbridge.schemas.json_forms import to_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from taskbridge.center.access.access import Access
    from taskbridge.center.access.audit import Audit

_PART = 1000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""With these, a spreadsheet would take a text for a formula."""


_CSV: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "All entries, newest first, with a line of names.",
        "content": {"text/csv": {"schema": {"type": "string"}, "example": f"{','.join(AuditEntry._fields)}\r\n"}},
    }
}


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
        headers = {"cache-control": "no-store", "content-disposition": 'attachment; filename="audit.csv"'}
        return StreamingResponse(_csv(audit), headers=headers, media_type="text/csv")

    return router


async def _csv(audit: Audit) -> AsyncGenerator[str]:
    before: int | None = None
    yield ",".join(AuditEntry._fields) + "\r\n"
    while found := await audit.page(before=before, limit=_PART):
        text = io.StringIO()
        csv.writer(text).writerows([_cell(each) for each in entry.shown().values()] for entry in found)
        yield text.getvalue()
        before = found[-1].seq


def _cell(value: object) -> str:
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
