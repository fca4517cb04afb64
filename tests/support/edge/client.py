"""A client of an edge in this process: each request goes through the edge's protocol, without a socket."""

from __future__ import annotations

import asyncio
import http.client
import io
import threading
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import urlsplit

import httpx2
import uvicorn
from uvicorn.server import ServerState

from taskbridge.edge.server.protocol import EdgeProtocol

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from fastapi import FastAPI

    from taskbridge.edge.app import EdgeApp

_PIECE = 256 << 10


class Wire(asyncio.Transport):
    """Stores what is written."""

    def __init__(self, peer: str = "127.0.0.1", port: int = 8000) -> None:
        super().__init__()
        self.written = b""
        self.closed = asyncio.Event()
        self.reads = True
        self._known = {"peername": (peer, 5), "sockname": ("127.0.0.1", port)}

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._known.get(name, default)

    def write(self, data: Any) -> None:
        if not self.is_closing():
            self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()

    def abort(self) -> None:
        self.closed.set()

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class _Written:
    """What ``http.client`` reads an answer from."""

    def __init__(self, written: bytes) -> None:
        self._written = written

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._written)


class EdgeClient(httpx2.Client):
    """Runs the app while it is open. Each request has its own connection."""

    def __init__(self, app: FastAPI, *, peer: str = "testclient") -> None:
        super().__init__(base_url="http://testserver", transport=_Transport(self))
        self.app = cast("EdgeApp", app)
        self.peer = peer
        self._served: dict[str, Any] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._lifespan = self.app.router.lifespan_context(self.app)
        self._served = cast("dict[str, Any]", self._run(self._lifespan.__aenter__()))
        return self

    def __exit__(self, *error: object) -> None:
        if self._loop.is_closed():
            return
        self._run(self._lifespan.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        super().__exit__(None, None, None)

    def sends(self, *pieces: bytes, port: int = 80, hangs_up: bool = False) -> bytes:
        """What the edge writes on a connection that brings these pieces, until either side closes it."""
        wire = Wire(self.peer, port)
        return self._run(_exchange(self.app, self._served, wire, pieces, hangs_up=hangs_up))

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)


class EdgeTransport(httpx2.AsyncBaseTransport):
    """The same in the present loop, while the app's lifespan, which gave ``served``, is open."""

    def __init__(self, app: FastAPI, served: dict[str, Any]) -> None:
        self._app = app
        self._served = served

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        return _answer(request, await _exchange(self._app, self._served, Wire(), [_encoded(request)]))


class _Transport(httpx2.BaseTransport):
    def __init__(self, client: EdgeClient) -> None:
        self._client = client

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        parts = urlsplit(str(request.url))
        return _answer(request, self._client.sends(_encoded(request), port=parts.port or 80))


async def _exchange(
    app: FastAPI, served: dict[str, Any], wire: Wire, pieces: Sequence[bytes], *, hangs_up: bool = False
) -> bytes:
    config = uvicorn.Config(app, http=EdgeProtocol, log_config=None, lifespan="off", server_header=False)
    config.load()
    protocol = EdgeProtocol(config, ServerState(), served)
    protocol.connection_made(wire)
    for piece in pieces:
        for at in range(0, len(piece), _PIECE):
            if not wire.is_closing():
                protocol.data_received(piece[at : at + _PIECE])
        await asyncio.sleep(0)
    if not hangs_up:
        await wire.closed.wait()
    protocol.connection_lost(None)
    return wire.written


def _encoded(request: httpx2.Request) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % each for each in request.headers.raw if each[0].lower() != b"connection"]
    body = request.content
    if "transfer-encoding" in request.headers:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body


def _answer(request: httpx2.Request, written: bytes) -> httpx2.Response:
    answer = http.client.HTTPResponse(cast("Any", _Written(written)), method=request.method)
    answer.begin()
    content = answer.read()
    headers = [(name, value) for name, value in answer.getheaders() if name.lower() != "connection"]
    return httpx2.Response(answer.status, headers=headers, content=content, request=request)
