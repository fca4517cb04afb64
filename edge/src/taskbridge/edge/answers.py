"""The answers to callbacks: a status, headers and a body for each outcome."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from taskbridge.edge.errors import NotDurable, Rejection, Unverified
from taskbridge.runtime.problems import RETRY_AFTER_S, internal_error, problem

if TYPE_CHECKING:
    from taskbridge.edge.events import Durability
    from taskbridge.runtime.problems import Headers

    Answer = tuple[HTTPStatus, Headers, bytes]

# An enumeration's lookup calls Python.
_OK = HTTPStatus.OK


def accepted(event_id: str, durability: Durability) -> Answer:
    body = f'{{"success":true,"eventId":"{event_id}","durability":"{durability}"}}'.encode()
    return _OK, [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")], body


def refused(error: Exception) -> Answer:
    """The problem document for a rejection, for ``NotDurable``, or for an error of ours."""
    if isinstance(error, (Rejection, NotDurable)):
        # RFC 9110 requires a challenge with every 401; it is the same for every cause.
        headers = {"WWW-Authenticate": 'Sign realm="taskbridge"'} if isinstance(error, Unverified) else {}
        if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers["Retry-After"] = str(RETRY_AFTER_S)
        response = problem(error.status, error.detail, kind=error.kind, headers=headers)
    else:
        response = internal_error()
    return HTTPStatus(response.status_code), response.raw_headers, bytes(response.body)
