"""The one place where what became of a callback is turned into an HTTP answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from edge.callbacks import ACTIONS
from edge.errors import Malformed, Overloaded, Rejection, TooLarge, TooSlow, UnknownPath, UnsupportedType, Unverified
from edge.server.scope import ANSWER_AT_ONCE
from service.problems import MEDIA_TYPE, PROBLEM_SCHEMA, problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from edge.durability import Durability

RETRY_AFTER_S = 5

STATUS: dict[type[Rejection], tuple[int, str]] = {
    Malformed: (400, "malformed"),
    Unverified: (401, "unverified"),
    UnknownPath: (404, "unknown-path"),
    TooSlow: (408, "too-slow"),
    TooLarge: (413, "too-large"),
    UnsupportedType: (415, "unsupported-type"),
    Overloaded: (503, "overloaded"),
}
"""Class of rejection → status and kind of problem."""

_UNAVAILABLE = (503, "not-durable")


class Accepted(Response):
    """What nearly every callback gets, written straight down: an id and a word of ours need no JSON encoder."""

    def __init__(self, event_id: str, durability: Durability) -> None:
        self.status_code = 200
        self.background = None
        self.body = f'{{"success":true,"eventId":"{event_id}","durability":"{durability}"}}'.encode()
        self.raw_headers = [(b"content-length", b"%d" % len(self.body)), (b"content-type", b"application/json")]

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        at_once = scope.get(ANSWER_AT_ONCE)
        if at_once is not None and at_once(self.raw_headers, self.body):
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


def accepted(event_id: str, durability: Durability) -> Response:
    return Accepted(event_id, durability)


def rejected(rejection: Rejection) -> Response:
    status, kind = STATUS[type(rejection)]
    # RFC 9110 asks for a challenge with every 401; the same one whatever failed.
    headers = {"WWW-Authenticate": 'Sign realm="yida"'} if isinstance(rejection, Unverified) else {}
    if isinstance(rejection, Overloaded):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return problem(status, rejection.detail, kind=kind, headers=headers)


def unavailable() -> Response:
    status, kind = _UNAVAILABLE
    detail = "The event cannot be kept now. Send it again later."
    return problem(status, detail, kind=kind, headers={"Retry-After": str(RETRY_AFTER_S)})


def callback_paths() -> dict[str, Any]:
    """The callbacks' part of the OpenAPI document."""
    return {f"/yida/tasks/{wire_action}": {"post": _operation(wire_action)} for wire_action in ACTIONS}


def _operation(wire_action: str) -> dict[str, Any]:
    parameters = {"type": "object", "additionalProperties": {"type": "string"}, "required": ["sign"]}
    media_types = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
    return {
        "summary": f"Yida reports: {ACTIONS[wire_action].lower()}",
        "description": "Parameters may stand in the body, in the query string, or in both, each once.",
        "operationId": f"yida_task_{wire_action}",
        "requestBody": {"content": {media_type: {"schema": parameters} for media_type in media_types}},
        "responses": {
            "200": _answer("The event is durable.", "application/json", _ACCEPTED),
            "400": _problem("The request cannot be understood."),
            "401": _problem("The request is not proven to come from a known app."),
            "408": _problem("The body did not arrive in time."),
            "413": _problem("The request is over the limit."),
            "415": _problem("The content type or character set is not accepted."),
            "503": _problem("Nothing can keep the event now; see Retry-After."),
        },
    }


_ACCEPTED: dict[str, Any] = {
    "type": "object",
    "required": ["success", "eventId", "durability"],
    "properties": {
        "success": {"type": "boolean", "enum": [True]},
        "eventId": {"type": "string", "format": "uuid"},
        "durability": {"type": "string", "enum": ["kafka", "spool"]},
    },
}


def _answer(description: str, media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _problem(description: str) -> dict[str, Any]:
    return _answer(description, MEDIA_TYPE, PROBLEM_SCHEMA)
