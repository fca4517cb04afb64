"""A broker that answers nothing but what brokers and topics there are; it may say that there are no brokers.

So says a real one while the controller has fenced it, as after a restart or a long pause.
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_METADATA, _API_VERSIONS = 3, 18


class MetadataBroker:
    """``is_fenced`` while it names no broker; ``asked`` counts the questions for brokers and topics."""

    def __init__(self) -> None:
        self.is_fenced = False
        self.asked = 0
        self.port = 0

    def answer(self, request: bytes) -> bytes:
        api, _, correlation = struct.unpack_from(">hhi", request)
        body = struct.pack(">i", correlation) + (_versions() if api == _API_VERSIONS else self._metadata())
        return struct.pack(">i", len(body)) + body

    def _metadata(self) -> bytes:
        """In version 4."""
        self.asked += 1
        this_one = struct.pack(">i", 1) + _text("127.0.0.1") + struct.pack(">ih", self.port, -1)
        brokers = [] if self.is_fenced else [this_one]
        leader, error = (-1, 5) if self.is_fenced else (1, 0)
        head = struct.pack(">ii", 0, len(brokers)) + b"".join(brokers) + _text("cluster")
        partition = struct.pack(">hiiiiii", error, 0, leader, 1, 1, 1, 1)
        return head + struct.pack(">iih", leader, 1, 0) + _text("events") + struct.pack(">bi", 0, 1) + partition


class _Connection(asyncio.Protocol):
    def __init__(self, broker: MetadataBroker) -> None:
        self._broker = broker
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := 4 + int.from_bytes(self._received[:4], "big")) <= len(self._received):
            request, self._received = self._received[4:end], self._received[end:]
            self._transport.write(self._broker.answer(request))


@asynccontextmanager
async def metadata_broker() -> AsyncGenerator[MetadataBroker]:
    broker = MetadataBroker()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(broker), "127.0.0.1", 0)
    broker.port = server.sockets[0].getsockname()[1]
    try:
        yield broker
    finally:
        server.close()


def _versions() -> bytes:
    """In version 3: of each request the versions that are taken."""
    taken = b"".join(
        struct.pack(">hhhb", api, least, most, 0) for api, least, most in ((_METADATA, 0, 4), (_API_VERSIONS, 0, 3))
    )
    return struct.pack(">hb", 0, 3) + taken + struct.pack(">ib", 0, 0)


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()
