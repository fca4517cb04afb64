"""The answers to callbacks: a status, headers and a body for each outcome."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from taskbridge.edge.errors import (
    Malformed,
    NotDurable,
    Overloaded,
    Rejection,
    TooLarge,
    TooSlow,
    UnknownPath,
    UnsupportedType,
    Unverified,
)
from taskbridge.runtime.problems import RETRY_AFTER_S, internal_error, problem

if TYPE_CHECKING:
    from taskbridge.edge.events import Durability
    from taskbridge.runtime.problems import Headers

    Answer = tuple[HTTPStatus, Headers, bytes]

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

# An enumeration's lookup calls Python.
_OK = HTTPStatus.OK


def accepted(event_id: str, durability: Durability) -> Answer:
    body = f'{{"success":true,"eventId":"{event_id}","durability":"{durability}"}}'.encode()
    return _OK, [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")], body


def refused(error: Exception) -> Answer:
    """The problem document for a rejection, for ``NotDurable``, or for an error of ours."""
    if isinstance(error, Rejection):
        status, kind = STATUS[type(error)]
        # RFC 9110 requires a challenge with every 401; it is the same for every cause.
        headers = {"WWW-Authenticate": 'Sign realm="taskbridge"'} if isinstance(error, Unverified) else {}
        if isinstance(error, Overloaded):
            headers["Retry-After"] = str(RETRY_AFTER_S)
        response = problem(status, error.detail, kind=kind, headers=headers)
    elif isinstance(error, NotDurable):
        status, kind = UNAVAILABLE
        detail = "The event cannot be stored now. Send it again later."
        response = problem(status, detail, kind=kind, headers={"Retry-After": str(RETRY_AFTER_S)})
    else:
        response = internal_error()
    return HTTPStatus(response.status_code), response.raw_headers, bytes(response.body)
