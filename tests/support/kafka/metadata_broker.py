"""A fake broker that answers only metadata requests; it may answer that there are no brokers.

A real one does so while the controller has fenced it, as after a restart or a long pause.
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


_METADATA, _FIND_COORDINATOR, _API_VERSIONS = 3, 10, 18
_NOT_AVAILABLE = 15


class MetadataBroker:
    """While ``is_fenced`` it names no broker; ``requests`` counts metadata requests.

    With ``coordinates_after`` it accepts requests for a coordinator, and refuses that many of them.
    """

    def __init__(self) -> None:
        self.is_fenced = False
        self.requests = 0
        self.coordinates_after: int | None = None
        self.port = 0
        self.connections: list[asyncio.Transport] = []

    def answer(self, request: bytes) -> bytes:
        api, _, correlation = struct.unpack_from(">hhi", request)
        answers = {_API_VERSIONS: self._versions, _FIND_COORDINATOR: self._coordinator, _METADATA: self._metadata}
        body = struct.pack(">i", correlation) + answers[api]()
        return struct.pack(">i", len(body)) + body

    def _versions(self) -> bytes:
        """In version 3: the accepted versions of each request."""
        most = {_METADATA: 4, _API_VERSIONS: 3}
        if self.coordinates_after is not None:
            most[_FIND_COORDINATOR] = 0
        accepted = b"".join(struct.pack(">hhhb", api, 0, most[api], 0) for api in most)
        return struct.pack(">hb", 0, len(most) + 1) + accepted + struct.pack(">ib", 0, 0)

    def _metadata(self) -> bytes:
        """In version 4."""
        self.requests += 1
        this_one = struct.pack(">i", 1) + _text("127.0.0.1") + struct.pack(">ih", self.port, -1)
        brokers = [] if self.is_fenced else [this_one]
        leader, error = (-1, 5) if self.is_fenced else (1, 0)
        head = struct.pack(">ii", 0, len(brokers)) + b"".join(brokers) + _text("cluster")
        partition = struct.pack(">hiiiiii", error, 0, leader, 1, 1, 1, 1)
        return head + struct.pack(">iih", leader, 1, 0) + _text("events") + struct.pack(">bi", 0, 1) + partition

    def _coordinator(self) -> bytes:
        """In version 0."""
        assert self.coordinates_after is not None, "no client sends a request that is not accepted"
        self.coordinates_after -= 1
        error, broker = (_NOT_AVAILABLE, -1) if self.coordinates_after >= 0 else (0, 1)
        return struct.pack(">hi", error, broker) + _text("127.0.0.1") + struct.pack(">i", self.port)


class _Connection(asyncio.Protocol):
    def __init__(self, broker: MetadataBroker) -> None:
        self._broker = broker
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._broker.connections.append(self._transport)

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
        # The last accepted socket becomes a connection some turns of the loop later.
        for _ in range(5):
            await asyncio.sleep(0)
            for connection in broker.connections:
                connection.abort()
        await asyncio.sleep(0)


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()
