"""Maps the outcome of a callback to its HTTP response."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from starlette.responses import Response

from taskbridge.edge.errors import (
    Malformed,
    Overloaded,
    Rejection,
    TooLarge,
    TooSlow,
    UnknownPath,
    UnsupportedType,
    Unverified,
)
from taskbridge.edge.server.protocol import ANSWER_AT_ONCE
from taskbridge.runtime.problems import RETRY_AFTER_S, problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from taskbridge.edge.delivery.router import Durability

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

UNAVAILABLE = (503, "not-durable")


class Accepted(Response):
    """What nearly every callback gets, written straight down: an id and a word of ours need no JSON encoder."""

    def __init__(self, event_id: str, durability: Durability) -> None:
        self.status_code = 200
        self.background = None
        self.body = _body(event_id, durability)
        self.raw_headers = [(b"content-length", b"%d" % len(self.body)), (b"content-type", b"application/json")]

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        at_once = scope.get(ANSWER_AT_ONCE)
        if at_once is not None and at_once(self.raw_headers, self.body):
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


def around_id(durability: Durability) -> tuple[bytes, bytes]:
    """The same as it goes to the socket, from its own headers on: what is before and behind the id, which is a UUID."""
    some_id = str(UUID(int=0))
    body = _body(some_id, durability)
    answer = b"content-length: %d\r\ncontent-type: application/json\r\n\r\n%b" % (len(body), body)
    before, after = answer.split(some_id.encode())
    return before, after


def _body(event_id: str, durability: Durability) -> bytes:
    return b'{"success":true,"eventId":"%b","durability":"%b"}' % (event_id.encode(), durability.encode())


def rejected(rejection: Rejection) -> Response:
    status, kind = STATUS[type(rejection)]
    # RFC 9110 asks for a challenge with every 401; the same one whatever failed.
    headers = {"WWW-Authenticate": 'Sign realm="taskbridge"'} if isinstance(rejection, Unverified) else {}
    if isinstance(rejection, Overloaded):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return problem(status, rejection.detail, kind=kind, headers=headers)


def unavailable() -> Response:
    status, kind = UNAVAILABLE
    detail = "The event cannot be stored now. Send it again later."
    return problem(status, detail, kind=kind, headers={"Retry-After": str(RETRY_AFTER_S)})
