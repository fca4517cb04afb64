"""Receives one callback from the network, within limits of size and time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request

from edge.errors import TooLarge, TooSlow

if TYPE_CHECKING:
    from collections.abc import Mapping

BODY_TIMEOUT_S = 20
"""Yida sends a few kilobytes at once. Without a bound, slow senders could hold every connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request as it arrived, byte for byte: all that is needed to run it again."""

    wire_action: str
    received_at: int
    remote_address: str
    method: str
    path: str
    query: bytes
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(repr=False)


async def receive(request: Request, wire_action: str, *, received_at: int, max_body_bytes: int) -> Received:
    """Read the request, and stop as soon as it is over a limit.

    Raises:
        TooLarge: the body, or the query string, has more than ``max_body_bytes``.
        TooSlow: the body did not arrive within BODY_TIMEOUT_S.
        ClientDisconnect: the sender is gone.
    """
    query: bytes = request.scope["query_string"]
    # Not Starlette's wrapper, which decodes anew at each look. Of a name that stands twice, the first counts.
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(request.scope["headers"])}
    announced = headers.get("content-length", "")
    if len(query) > max_body_bytes or (announced.isdecimal() and int(announced) > max_body_bytes):
        raise _too_large(max_body_bytes)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await _body(request, max_body_bytes)
    except TimeoutError as error:
        raise TooSlow("slow-body", f"The body did not arrive within {BODY_TIMEOUT_S} seconds.") from error
    return Received(
        wire_action=wire_action,
        received_at=received_at,
        remote_address=remote_address(request),
        method=request.method,
        path=request.scope["path"],
        query=query,
        headers=headers,
        body=body,
    )


def remote_address(request: Request) -> str:
    return request.client.host if request.client else ""


async def _body(request: Request, max_body_bytes: int) -> bytes:
    body = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        # Counted while it arrives: a chunked body announces no length.
        if len(body) > max_body_bytes:
            raise _too_large(max_body_bytes)
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(max_body_bytes: int) -> TooLarge:
    return TooLarge("too-large", f"More than {max_body_bytes} bytes.")
