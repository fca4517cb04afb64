"""The parts of the edge without its work: HTTP alone on its loop with its parser, and Kafka alone through its producer.

What the edge takes beyond the sum of both is the work on a callback.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from tests.bench.edge.loads import CONNECTIONS

from taskbridge.native._native import read_request
from taskbridge.runtime.kafka import producer_config
from taskbridge.runtime.producer import AsyncProducer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

_BODY = b'{"success":true,"eventId":"00000000-0000-0000-0000-000000000000","durability":"kafka"}'
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
_HEADERS = [("ce_specversion", b"1.0"), *((f"ce_header{number}", b"of an event" * 3) for number in range(6))]


class Echo(asyncio.Protocol):
    """Answers each plain callback, and a GET, and hangs up at anything else."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if read_request(data) is None and not data.startswith(b"GET "):
            self._transport.close()
        self._transport.write(_ANSWER)


class Run:
    """As many records in flight as a closed loop has connections; each acknowledgement sends the next record."""

    def __init__(self, producer: AsyncProducer, topic: str, bodies: list[bytes], seconds: float) -> None:
        self._producer, self._topic, self._bodies = producer, topic, bodies
        self._ends = time.perf_counter() + seconds
        self._open = CONNECTIONS
        self.times: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for _ in range(CONNECTIONS):
            self.send()

    def send(self) -> None:
        value = self._bodies[len(self.times) % len(self._bodies)]
        self._producer.send(_Sent(self), self._topic, key=os.urandom(18), value=value, headers=_HEADERS)

    def end(self, began: float) -> None:
        now = time.perf_counter()
        self.times.append(now - began)
        if now < self._ends:
            self.send()
            return
        self._open -= 1
        if not self._open:
            self.done.set_result(None)


class _Sent:
    def __init__(self, run: Run) -> None:
        self._run, self._began = run, time.perf_counter()

    def done(self) -> bool:
        return False

    def set_result(self, _result: None, /) -> None:
        self._run.end(self._began)

    def set_exception(self, error: Exception, /) -> None:
        self._run.done.set_exception(error)


async def _produce(request: Request) -> JSONResponse:
    """Send the lines of the body for so many seconds, and answer as ``wrk.lua`` prints."""
    bodies = (await request.body()).splitlines()
    began = time.perf_counter()
    run = Run(request.state.producer, os.environ["PEER_TOPIC"], bodies, float(request.query_params["seconds"]))
    await run.done
    took, times = time.perf_counter() - began, sorted(run.times)
    p50, p99 = (round(times[int(len(times) * share)] * 1e6) for share in (0.5, 0.99))
    return JSONResponse({"requests": len(times), "microseconds": round(took * 1e6), "p50_us": p50, "p99_us": p99})


@asynccontextmanager
async def _with_producer(_app: Starlette) -> AsyncGenerator[dict[str, AsyncProducer]]:
    producer = AsyncProducer(producer_config(os.environ["PEER_BOOTSTRAP_SERVERS"], {"linger.ms": "0"}))
    yield {"producer": producer}
    await producer.close()


async def _echo(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


async def _ready(_request: Request) -> JSONResponse:
    return JSONResponse({})


def main() -> None:
    port = int(os.environ["PEER_PORT"])
    if sys.argv[1:] == ["echo"]:
        uvloop.run(_echo(port))
        return
    routes = [Route("/healthz", _ready), Route("/", _produce, methods=["POST"])]
    app = Starlette(routes=routes, lifespan=_with_producer)
    uvicorn.run(app, host="127.0.0.1", port=port, loop="uvloop", log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
