"""Why a query is not answered: each class names its HTTP status. ``DatabaseUnavailable`` is answered as ``NotNow``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import structlog
from fastapi.exceptions import RequestValidationError

from taskbridge.runtime.database import DatabaseUnavailable
from taskbridge.runtime.problems import problem
from taskbridge.schemas.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

_log = structlog.get_logger(__name__)


class Refused(TaskbridgeError):
    """The root. The message is for the caller and goes into the problem's ``detail``."""

    status: ClassVar[int]
    kind: ClassVar[str]

    def __init_subclass__(cls, *, status: int, kind: str) -> None:
        cls.status, cls.kind = status, kind

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after_s is None else {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}


class BadQuery(Refused, status=400, kind="bad-query"):
    """The query is invalid."""


class Unauthorized(Refused, status=401, kind="unauthorized"):
    """The bearer token is missing or unknown."""

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(Refused, status=403, kind="forbidden"):
    """The caller may not read this corp or user."""


class Unknown(Refused, status=404, kind="unknown"):
    """It does not exist, or the caller may not read it."""


class NotNow(Refused, status=503, kind="not-now"):
    """The data is not complete yet, or the database does not answer."""

    def __init__(self, detail: str, *, retry_after_s: float | None = 1.0) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)


def answer_refusals(app: FastAPI, count: Callable[[], None]) -> None:
    """Turn refusals, failures of the database, and what the framework finds wrong with a query into problem documents.

    ``count`` is called for each failure of the database.
    """

    async def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return problem(error.status, str(error), kind=error.kind, headers=error.headers)

    async def unavailable(request: Request, error: Exception) -> Response:
        count()
        _log.warning("database_unavailable", problem=str(error))
        return await refused(request, NotNow("the database does not answer: try again later", retry_after_s=2))

    async def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return problem(BadQuery.status, found, kind=BadQuery.kind)

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(DatabaseUnavailable, unavailable)
    app.add_exception_handler(RequestValidationError, invalid)
