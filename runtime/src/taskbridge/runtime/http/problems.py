"""RFC 9457 problem documents: the one shape of every HTTP error that a service answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "success"],
    "properties": {
        "type": {
            "type": "string",
            "description": "Kind of problem: about:blank or urn:taskbridge:problem:…",
        },
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What failed and what to do, in one sentence."},
        "success": {"type": "boolean", "enum": [False]},
    },
}


def problem(
    status: int, detail: str, *, kind: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A problem document. ``kind`` is a short name for the cause, the same for ever; ``detail`` is for people."""
    content = _content(status, detail, f"urn:taskbridge:problem:{kind}" if kind else "about:blank")
    return JSONResponse(content, status_code=status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def documented(status: int, meaning: str) -> dict[str, Any]:
    """A problem as an answer in an OpenAPI document, with an example."""
    content = {"schema": PROBLEM_SCHEMA, "example": _content(status, meaning, "about:blank")}
    return {"description": meaning, "content": {MEDIA_TYPE: content}}


def _content(status: int, detail: str, name: str) -> dict[str, Any]:
    title = HTTPStatus(status).phrase
    return {"type": name, "title": title, "status": status, "detail": detail, "success": False}


def unforeseen() -> JSONResponse:
    """What is answered to a request that failed for a reason of ours, which is in the log and not in the answer."""
    return problem(500, "Internal error; the log has the details.", kind="internal-error")


def answer_with_problems(app: FastAPI) -> None:
    """Make the framework's own errors (404, 405, anything unforeseen) problem documents too."""

    async def http_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, str(error.detail), headers=error.headers)

    async def any_error(_request: Request, _error: Exception) -> Response:
        return unforeseen()

    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, any_error)
