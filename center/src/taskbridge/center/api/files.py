"""Opens a file of a form: a redirect to a temporary address, which the vendor gives for one click.

The address is in the redirect only: in no list, event, log or audit entry. A page costs no call of the vendor's API.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import structlog
from fastapi import Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import RedirectResponse, Response

from taskbridge.center.access.audit import FILE_OPENED
from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.api import models
from taskbridge.center.api.form_files import FILES_MAX, PLACE_MAX, FormFile
from taskbridge.center.api.guard import InstanceId, InstanceReader  # noqa: TC001 - FastAPI resolves them
from taskbridge.center.message_page import refusal_page
from taskbridge.runtime.database import DatabaseUnavailable, Threads
from taskbridge.runtime.rates import Rate
from taskbridge.runtime.refusals import Forbidden, NotNow, Refused, Unknown
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.views import concerns

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access, Caller
    from taskbridge.center.actions.systems import OpenFile
    from taskbridge.center.api.queries import Queries
    from taskbridge.schemas.events import TaskState

    FileOpener = Callable[[str, str, str], OpenFile | None]
    """What opens files of a corp, a source and an app; None if nothing here does."""

_HOUR_S = 3600.0
_OF_CALLER, _OF_CORP = 120, 1200
"""Files that a caller and a corp may open in an hour: the corp's calls are counted, and decisions need them."""
_FOREIGN = ("cross-site", "same-site")
_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
_LOCATION = {"schema": {"type": "string", "format": "uri"}, "example": "https://files.example/4f?Signature=5e"}
_REDIRECT: dict[int | str, dict[str, Any]] = {
    303: {"description": "The file, at a temporary address.", "headers": {"Location": _LOCATION}}
}
_CHINESE: dict[type[Refused], str] = {
    Unknown: "文件不存在，或您无权查看。请刷新任务页面后再试。",
    TooManyQueries: "打开文件过于频繁，请稍后再试。",
    Forbidden: "请从任务页面打开文件。",
}
_CHINESE_UNAVAILABLE = "暂时无法打开文件，请稍后再试，或在审批页面查看。"

_Place = Annotated[
    str,
    Query(max_length=PLACE_MAX, description="A key of `files` in the history.", examples=["attachmentField_slip"]),
]
_Number = Annotated[int, Query(ge=0, lt=FILES_MAX, description="Which file at that place, from 0.", examples=[0])]

log = structlog.get_logger(__name__)


def add_files_route(router: APIRouter, access: Access, queries: Queries, threads: Threads, opener: FileOpener) -> None:
    """``/instances/{instance_id}/files``."""
    of_caller, of_corp = Rate(_OF_CALLER, per_s=_HOUR_S), Rate(_OF_CORP, per_s=_HOUR_S)

    async def address(request: Request, caller: Caller, instance_id: str, place: str, number: int) -> str:
        if request.headers.get("sec-fetch-site") in _FOREIGN:
            raise Forbidden("a page elsewhere may not open files")
        state, file = await threads.run(queries.file, instance_id, caller, place, number)
        open_file = opener(state.corp_id, state.source, state.app_type)
        if open_file is None:
            raise Unknown("files of this app are opened on the approval page only")
        for rate, source in ((of_caller, caller.rate_key), (of_corp, state.corp_id)):
            if not rate.allows(source, now=time.monotonic()):
                raise TooManyQueries("too many files were opened in this hour: try again later", retry_after_s=60)
        await access.record(request, caller, FILE_OPENED, f"{state.instance_id} {place}/{number}")
        return await _address_of(file, _vendors_user(caller, state), open_file)

    @router.get(
        "/instances/{instance_id:path}/files",
        summary="Open a file of the form",
        response_class=RedirectResponse,
        status_code=303,
        responses=_REDIRECT | models.problems(404),
    )
    async def open_file(  # pyright: ignore[reportUnusedFunction]
        request: Request, caller: InstanceReader, instance_id: InstanceId, place: _Place, number: _Number
    ) -> Response:
        """Redirects to a temporary address at the vendor, which costs one call of its API. Each time is recorded.

        120 an hour for a caller, and 1,200 for an organisation. A browser gets a page where it fails.
        """
        try:
            found = await address(request, caller, instance_id, place, number)
        except (Refused, DatabaseUnavailable) as refused:
            if "text/html" not in request.headers.get("accept", ""):
                raise
            return _refusal(refused)
        return RedirectResponse(found, 303, headers=_HEADERS)


def _vendors_user(caller: Caller, state: TaskState) -> str | None:
    """The person, if the vendor knows that the instance concerns them; for others, None: we have checked them."""
    is_of_corp = caller.corp_id == state.corp_id and caller.user_id is not None
    return caller.user_id if is_of_corp and concerns(state, caller.user_id or "") else None


async def _address_of(file: FormFile, user_id: str | None, open_file: OpenFile) -> str:
    try:
        found = await open_file(user_id, file.address)
    except OperatorError as error:
        log.warning("file_not_opened", problem=str(error))
        raise NotNow("the vendor does not give the file now: see the log", retry_after_s=60) from None
    if found is None:
        raise Unknown("the vendor has no such file")
    if not _is_https(found):
        # Without the address.
        log.warning("file_not_opened", problem="the vendor's address is not one of https")
        raise NotNow("the vendor gives no usable address: see the log", retry_after_s=60)
    return found


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    return parts.scheme == "https" and bool(host) and "@" not in parts.netloc and "\\" not in url and url.isprintable()


def _refusal(refused: Refused | DatabaseUnavailable) -> Response:
    """For a person, who has clicked."""
    heading = "文件未打开 · File not opened"
    return refusal_page(refused, title=heading, heading=heading, chinese=_CHINESE, otherwise=_CHINESE_UNAVAILABLE)
