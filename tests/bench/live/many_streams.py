"""The memory of an open event stream, and how fast one notification reaches many streams.

The listeners are plain sockets in this process.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, cast

from tests.bench.live.holding import CORP
from tests.bench.machine import cpu_seconds, resident_mb
from tests.bench.services import start_service, wait_until

from taskbridge.local.host import LOOPBACK, free_port
from taskbridge.local.jvm import port_answers
from taskbridge.runtime.process import allow_open_files
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_OWN_FILES = 256
_HEARTBEAT_S = 15.0
_TOGETHER = 500
_SHARED = 10
"""One in so many listens to the same person."""


def measure_streams(streams: int, folder: Path) -> list[str]:
    """What so many open streams came to, in sentences.

    Raises:
        OperatorError: this process may not open so many files.
        NotCounted: nothing listens.
    """
    needed = streams + _OWN_FILES
    if allow_open_files(needed) < needed:
        raise OperatorError(f"this process may not open {needed} files: ulimit -Hn")
    port = free_port()
    with ExitStack() as stack:
        pid = start_service(stack, "tests.bench.live.holding", str(port), str(_HEARTBEAT_S), folder=folder)
        wait_until(lambda: port_answers(LOOPBACK, port), "the worker listens")
        return asyncio.run(_measure(pid, port, streams))


class _Listener(asyncio.Protocol):
    def __init__(self, user_id: str, received: Callable[[float], None]) -> None:
        self._user_id, self._received = user_id, received
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        head = f"GET /v1/corps/{CORP}/users/{self._user_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        cast("asyncio.Transport", transport).write(f"{head}Accept: text/event-stream\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            assert data.startswith(b"HTTP/1.1 200"), data
            self.opened.set_result(None)
        if b"event: notification" in data:
            self._received(time.perf_counter())


async def _measure(pid: int, port: int, streams: int) -> list[str]:
    received = list[float]()
    await asyncio.sleep(1)
    before, began = resident_mb(pid), time.perf_counter()
    await _open(port, streams, received)
    opened_s = time.perf_counter() - began
    await asyncio.sleep(1)
    opened = resident_mb(pid)
    cpu = cpu_seconds(pid)
    await asyncio.sleep(_HEARTBEAT_S)
    share = (cpu_seconds(pid) - cpu) / _HEARTBEAT_S
    beaten = resident_mb(pid)
    one = [await _send(port, _user(1), number, received, 1) for number in range(10, 60)]
    shared = -(-streams // _SHARED)
    many = [await _send(port, _user(0), number, received, shared) for number in range(100, 105)]
    return [
        f"Opened in {opened_s:.1f} s.",
        f"Resident: {before:.0f} MiB before, {opened:.0f} MiB with them, {beaten:.0f} MiB after a heartbeat each.",
        f"Memory of a stream: {(beaten - before) * 1024 / streams:.1f} KiB.",
        f"A heartbeat each every {_HEARTBEAT_S:.0f} s: {share:.1%} of a core.",
        f"One notification to a person's only listener: {median(one) * 1000:.1f} ms.",
        f"One notification to a person's {shared:,} listeners: {median(many) * 1000:.0f} ms until the last has it.",
    ]


async def _open(port: int, streams: int, received: list[float]) -> None:
    loop = asyncio.get_running_loop()
    for begin in range(0, streams, _TOGETHER):
        users = map(_user, range(begin, min(begin + _TOGETHER, streams)))
        made = [
            await loop.create_connection(lambda user=each: _Listener(user, received.append), LOOPBACK, port)
            for each in users
        ]
        await asyncio.gather(*(protocol.opened for _, protocol in made))


def _user(number: int) -> str:
    return "everybody" if number % _SHARED == 0 else f"0169{number:010}"


async def _send(port: int, user_id: str, offset: int, received: list[float], listeners: int) -> float:
    received.clear()
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    started = time.perf_counter()
    writer.write(f"POST /send/{user_id}/{offset} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    await reader.read()
    writer.close()
    while len(received) < listeners:  # noqa: ASYNC110 - many protocols fill it
        await asyncio.sleep(0.0005)
    return max(received) - started
