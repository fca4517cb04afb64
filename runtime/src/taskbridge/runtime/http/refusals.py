"""What the server writes by itself, as bytes: whole answers, and the problems of those that it turns away."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from taskbridge.runtime.http.problems import MEDIA_TYPE, problem

if TYPE_CHECKING:
    from collections.abc import Iterable

RETRY_AFTER_S = 5

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is answered when the server itself turns a request away."""

    status: HTTPStatus
    reason: str
    """The kind of problem, and the metric's label."""
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
PIPELINED = Refusal(HTTPStatus.BAD_REQUEST, "pipelined", "Too many pipelined requests on one connection.")
STOPPING = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "stopping", "The service is shutting down. Send the request again.")

SERVERS_REASONS = tuple(each.reason for each in (MALFORMED, SLOW_HEAD, LONG_URL, LARGE_HEAD, PIPELINED, STOPPING))


def not_admitted(reason: str) -> Refusal:
    """The gate gives the reason."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, reason, "Too many connections. Try again later.")


def encoded_answer(status: HTTPStatus, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    return b"".join((STATUS_LINE[status], *(b"%s: %s\r\n" % each for each in headers), b"\r\n", body))
