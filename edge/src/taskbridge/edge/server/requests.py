"""Receives one callback from the network, within limits of size and time."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace
from starlette.requests import ClientDisconnect

from taskbridge.edge.errors import Overloaded, Rejection, TooLarge, TooSlow
from taskbridge.edge.request import Received

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from starlette.types import Receive, Scope

WHOLE_BODY = "taskbridge.body"
"""Key of a request's scope: a small body that arrived whole, so that none is received through ASGI."""

BODY_TIMEOUT_S = 20
"""Yida sends a few kilobytes at once. Without a bound, slow senders could hold every connection."""

FREE_BODY_BYTES = 64 << 10
"""Memory that any callback may use while it is received; Yida's are far smaller."""
HEAD_BYTES = 16 << 10
"""Stored of a body that is not accepted: enough to identify its sender."""
HEAD_WAIT_S = 1.0
"""How long to wait for that, when the headers show that the body will not be accepted."""
LARGE_BODIES_BYTES = 64 << 20
"""Memory for all bytes beyond that: no sender is verified yet, and a thousand connections must not fill memory."""


@dataclass(slots=True)
class LargeBodies:
    """The memory that bodies beyond FREE_BODY_BYTES share while they are received."""

    room: int = LARGE_BODIES_BYTES

    @contextmanager
    def share(self) -> Generator[Callable[[int], None]]:
        """A function to call with the present size of one body; its share is released at the end.

        The function raises Overloaded when there is no room.
        """
        used = 0

        def grown(size: int) -> None:
            nonlocal used
            more = max(0, size - FREE_BODY_BYTES) - used
            if more > self.room:
                raise Overloaded("overloaded", "Too many large bodies at once. Send it again later.")
            used += more
            self.room -= more

        try:
            yield grown
        finally:
            self.room += used


async def receive(
    scope: Scope,
    from_network: Receive,
    wire_action: str,
    *,
    received_at: int,
    max_body_bytes: int,
    large_bodies: LargeBodies,
) -> Received:
    """Read the request, and stop as soon as it exceeds a limit. The rejection's ``head`` then has its beginning.

    Raises:
        TooLarge: the body, or the query string, has more than ``max_body_bytes``.
        TooSlow: the body did not arrive within BODY_TIMEOUT_S.
        Overloaded: too many large bodies are being received.
        ClientDisconnect: the sender is gone.
    """
    query: bytes = scope["query_string"]
    # Not Starlette's wrapper, which decodes at each look. Of a repeated name, the first counts.
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
    head = Received(
        wire_action=wire_action,
        received_at=received_at,
        remote_address=remote_address(scope),
        method=scope["method"],
        path=scope["path"],
        query=query,
        headers=headers,
        body=b"",
    )
    whole = scope.get(WHOLE_BODY)
    if whole is not None and len(whole) <= max_body_bytes and len(query) <= max_body_bytes:
        return replace(head, body=bytes(whole))  # there is nothing to wait for
    body = bytearray()
    try:
        announced = headers.get("content-length", "")
        if len(query) > max_body_bytes or (announced.isdecimal() and int(announced) > max_body_bytes):
            await _receive_beginning(from_network, body, headers)
            raise _too_large(max_body_bytes)
        async with asyncio.timeout(BODY_TIMEOUT_S):
            with large_bodies.share() as grown:
                await _read(from_network, body, max_body_bytes, grown)
    except TimeoutError as error:
        slow = TooSlow("slow-body", f"The body did not arrive within {BODY_TIMEOUT_S} seconds.")
        slow.head = _head(head, body)
        raise slow from error
    except Rejection as rejection:
        rejection.head = _head(head, body)
        raise
    return replace(head, body=bytes(body))


def remote_address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


async def _read(from_network: Receive, body: bytearray, max_body_bytes: int, grown: Callable[[int], None]) -> None:
    more = True
    while more:
        more = await _receive(from_network, body)
        # While it arrives: a chunked body announces no length.
        if len(body) > max_body_bytes:
            raise _too_large(max_body_bytes)
        grown(len(body))


async def _receive(from_network: Receive, body: bytearray) -> bool:
    """Append the next part to the body; returns whether there is more."""
    message = await from_network()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    body += message.get("body", b"")
    return message.get("more_body", False)


async def _receive_beginning(from_network: Receive, body: bytearray, headers: Mapping[str, str]) -> None:
    """Receive the first bytes of a body that will not be accepted, unless its sender waits for 100 Continue."""
    if "expect" not in headers:
        with suppress(TimeoutError):
            async with asyncio.timeout(HEAD_WAIT_S):
                await _receive(from_network, body)


def _head(head: Received, body: bytearray) -> Received:
    return replace(head, query=head.query[:HEAD_BYTES], body=bytes(body[:HEAD_BYTES]))


def _too_large(max_body_bytes: int) -> TooLarge:
    return TooLarge("too-large", f"More than {max_body_bytes} bytes.")
