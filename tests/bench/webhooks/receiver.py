"""A fast HTTP receiver in a process of its own, and its client.

It notes endpoint, id and time of each delivery whose signature is right, and answers 204; at ``/silent`` it never
answers. Run as ``python -m tests.bench.webhooks.receiver PORT``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import httptools
import httpx2
import uvloop
from tests.bench.services import answers, start_service, wait_until

from taskbridge.local.host import LOOPBACK, free_port
from taskbridge.runtime.standard_webhooks import ID, SIGNATURE, TIMESTAMP, key_of, matching

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

SECRET = "whsec_" + "c2VjcmV0" * 6
_KEYS = [key_of(SECRET)]
SILENT = "silent"
_COUNT, _ARRIVALS = "/count", "/arrivals"


class Arrival(NamedTuple):
    id: str
    at_ns: int
    """By the clock that all processes share."""


class Connection(asyncio.Protocol):
    """One connection; requests on it come one after the other."""

    def __init__(self, arrivals: dict[str, list[Arrival]]) -> None:
        self._arrivals = arrivals

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    # Of the parser.

    def on_message_begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body = b""

    def on_url(self, url: bytes) -> None:
        self._path = url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        at_ns, name = time.monotonic_ns(), self._path.removeprefix("/")
        if self._path == _COUNT:
            self._answer(str(sum(len(each) for each in self._arrivals.values())).encode())
        elif self._path == _ARRIVALS:
            lines = [f"{name} {each.id} {each.at_ns}" for name, found in self._arrivals.items() for each in found]
            self._arrivals.clear()
            self._answer("\n".join(lines).encode())
        elif name != SILENT:
            given, signatures = self._headers[ID], self._headers[SIGNATURE]
            is_right = matching(given, self._headers[TIMESTAMP], self._body, keys=_KEYS, signatures=signatures)
            if is_right == [True]:
                self._arrivals[name].append(Arrival(given, at_ns))
                self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                self._transport.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")

    def _answer(self, body: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


class Receiver:
    """The process, as the harness sees it."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self.pid = start_service(stack, __name__, str(port), folder=folder)
        self._client = stack.enter_context(httpx2.Client(base_url=self.url, trust_env=False, timeout=30))
        wait_until(lambda: answers(self.url + _COUNT), "the receiver is ready")

    def count(self) -> int:
        """Deliveries since ``take``."""
        return int(self._client.get(_COUNT).text)

    def take(self) -> Mapping[str, Sequence[Arrival]]:
        """What has arrived since the last time, by endpoint, in order."""
        found = defaultdict[str, list[Arrival]](list)
        for line in self._client.get(_ARRIVALS).text.splitlines():
            name, given, at_ns = line.split(" ")
            found[name].append(Arrival(given, int(at_ns)))
        return found


async def _serve(port: int) -> None:
    arrivals = defaultdict[str, list[Arrival]](list)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(arrivals), LOOPBACK, port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
