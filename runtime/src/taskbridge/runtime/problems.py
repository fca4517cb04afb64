"""RFC 9457 problem documents: the body of every HTTP error, from an application or from the server itself."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
_METHODS = ("DELETE", "GET", "POST", "PUT")

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "success"],
    "properties": {
        "type": {"type": "string", "description": "Kind of problem: about:blank or urn:taskbridge:problem:…"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What failed and what to do, in one sentence."},
        "success": {"type": "boolean", "enum": [False]},
    },
}


def problem(
    status: int, detail: str, *, kind: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A problem document. ``kind`` is a short name of the cause that never changes; ``detail`` is for people."""
    content = _content(status, detail, f"urn:taskbridge:problem:{kind}" if kind else "about:blank")
    return JSONResponse(content, status_code=status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def documented(status: int, meaning: str) -> dict[str, Any]:
    content = {"schema": PROBLEM_SCHEMA, "example": _content(status, meaning, "about:blank")}
    return {"description": meaning, "content": {MEDIA_TYPE: content}}


def _content(status: int, detail: str, name: str) -> dict[str, Any]:
    title = HTTPStatus(status).phrase
    return {"type": name, "title": title, "status": status, "detail": detail, "success": False}


def internal_error() -> JSONResponse:
    """The response to a request that failed because of a bug; the log has the cause, the response has not."""
    return problem(500, "Internal error; the log has the details.", kind="internal-error")


def answer_with_problems(app: FastAPI) -> None:
    """Make the framework's own errors problem documents too: 404, 405 and bugs."""

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = error.headers
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # The framework names the methods of the first route of this path only.
            known = [
                method
                for method in _METHODS
                if any(each.matches({**request.scope, "method": method})[0] is Match.FULL for each in app.routes)
            ]
            headers = {"Allow": ", ".join(known)}
        return problem(error.status_code, str(error.detail), headers=headers)

    async def any_error(_request: Request, _error: Exception) -> Response:
        return internal_error()

    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, any_error)


# Responses that a server writes as bytes, without an application.

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Refusal:
    status: HTTPStatus
    reason: str
    detail: str

    def encoded(self, headers: Headers) -> bytes:
        body = bytes(problem(self.status, self.detail, kind=self.reason).body)
        lines = [
            *headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if self.status is HTTPStatus.SERVICE_UNAVAILABLE:
            lines.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        return encoded_answer(self.status, lines, body)


MALFORMED = Refusal(HTTPStatus.BAD_REQUEST, "malformed-http", "The request is not valid HTTP/1.1.")
SLOW_HEAD = Refusal(HTTPStatus.REQUEST_TIMEOUT, "slow-head", "The request headers did not arrive in time.")
LONG_URL = Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, "long-url", "The URL is too long. Send the parameters in the body.")
LARGE_HEAD = Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "large-head", "The request headers are too large.")
LARGE_BODY = Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", "The request body is too large.")
SLOW_BODY = Refusal(HTTPStatus.REQUEST_TIMEOUT, "slow-body", "The request body did not arrive in time.")
PIPELINED = Refusal(HTTPStatus.BAD_REQUEST, "pipelined", "Too many pipelined requests on one connection.")
STOPPING = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "stopping", "The service is shutting down. Send the request again.")

SERVERS_REASONS = tuple(each.reason for each in (MALFORMED, SLOW_HEAD, LONG_URL, LARGE_HEAD, PIPELINED, STOPPING))


def not_admitted(reason: str) -> Refusal:
    """``reason`` is the edge's connection limit that was reached."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, reason, "Too many connections. Try again later.")


def encoded_answer(status: HTTPStatus, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    return b"".join([STATUS_LINE[status], *[b"%s: %s\r\n" % each for each in headers], b"\r\n", body])
