"""Why a query is not answered: each class names its HTTP status.

Refused
├── BadQuery         400  the query itself is wrong
├── Unauthorized     401  the caller is not known
├── Forbidden        403  the caller may not see this
├── UnknownPerson    403  the caller signed in by an id that no person has
├── Unknown          404  it does not exist, or this caller may not see it: the two look the same
├── TooManyQueries   429  this caller exceeds its rate
└── NotNow           503  the right worker cannot answer at the moment; the same query may succeed soon

A partition whose store went to another worker while it was read (``PartitionNotHeld``) is answered as ``NotNow``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from fastapi.exceptions import RequestValidationError

from taskbridge.runtime.problems import problem
from taskbridge.schemas.errors import TaskbridgeError
from taskbridge.streams.tables.store import PartitionNotHeld

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response


class Refused(TaskbridgeError):
    """The root. The message is for the caller and goes into the problem's ``detail``."""

    status: ClassVar[int] = 400
    kind: ClassVar[str] = "bad-query"

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after_s is None else {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}


class BadQuery(Refused):
    """The query is invalid."""


class Unauthorized(Refused):
    """The bearer token is missing or unknown."""

    status = 401
    kind = "unauthorized"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(Refused):
    """The caller may not read this corp or user."""

    status = 403
    kind = "forbidden"


class UnknownPerson(Refused):
    """The id of the signed-in person matches nobody, or several people."""

    status = 403
    kind = "unknown-person"


class Unknown(Refused):
    """It does not exist, or the caller may not read it."""

    status = 404
    kind = "unknown"


class TooManyQueries(Refused):
    """The caller has exceeded its query rate."""

    status = 429
    kind = "too-many-queries"


class NotNow(Refused):
    """The worker that has the data is unknown, is restoring it, or cannot be reached."""

    status = 503
    kind = "not-now"

    def __init__(self, detail: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)


def refusal_answer(error: Refused | PartitionNotHeld) -> Response:
    """The problem document of the refusal."""
    if isinstance(error, PartitionNotHeld):
        error = NotNow("the data is moving to another worker")
    return problem(error.status, str(error), kind=error.kind, headers=error.headers)


def answer_refusals(app: FastAPI) -> None:
    """Turn every refusal, and what the framework finds wrong with a query, into its problem document."""

    async def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused | PartitionNotHeld)
        return refusal_answer(error)

    async def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return problem(BadQuery.status, found, kind=BadQuery.kind)

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(PartitionNotHeld, refused)
    app.add_exception_handler(RequestValidationError, invalid)
