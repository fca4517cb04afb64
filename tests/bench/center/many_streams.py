"""The memory of an open event stream of a running center, and how fast one state reaches many streams.

The listeners are plain sockets in this process.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import TYPE_CHECKING, cast

from tests.bench.center.company import CORP
from tests.bench.command import NotCounted
from tests.bench.streams.records import Writer

from taskbridge.local.host import LOOPBACK
from taskbridge.runtime.process import allow_open_files
from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Status, TaskEntry, TaskState
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.center.installations import Center
    from tests.bench.streams.setup import Setup

_OWN_FILES = 256
_HEARTBEAT_S = 15.0
_TOGETHER = 500
_ARRIVES_WITHIN_S = 30.0
_SHARED = 10
"""One in so many listens to the same person."""


def measure_streams(setup: Setup, center: Center, streams: int) -> list[str]:
    """What so many open streams came to, in sentences.

    Raises:
        OperatorError: this process may not open so many files.
    """
    needed = streams + _OWN_FILES
    if allow_open_files(needed) < needed:
        raise OperatorError(f"this process may not open {needed} files: ulimit -Hn")
    return asyncio.run(_measure(setup, center, streams))


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


async def _measure(setup: Setup, center: Center, streams: int) -> list[str]:
    received = list[float]()
    await asyncio.sleep(1)
    before, began = center.memory_mb, time.perf_counter()
    await _open(center.port, streams, received)
    opened_s = time.perf_counter() - began
    await asyncio.sleep(1)
    opened, (cpu, _) = center.memory_mb, center.cpu
    await asyncio.sleep(_HEARTBEAT_S)
    share = (center.cpu[0] - cpu) / _HEARTBEAT_S
    beaten = center.memory_mb
    writer = Writer(setup, linger_ms=0)
    one = [await _send(setup, writer, _user(1), received, 1) for _ in range(50)]
    shared = -(-streams // _SHARED)
    many = [await _send(setup, writer, _user(0), received, shared) for _ in range(5)]
    return [
        f"Opened in {opened_s:.1f} s.",
        f"Resident: {before:.0f} MiB before, {opened:.0f} MiB with them, {beaten:.0f} MiB after a heartbeat each.",
        f"Memory of a stream: {(beaten - before) * 1024 / streams:.1f} KiB.",
        f"A heartbeat each every {_HEARTBEAT_S:.0f} s: {share:.1%} of a core.",
        f"From a state's record to its person's only listener: {median(one) * 1000:.1f} ms.",
        f"To a person's {shared:,} listeners: {median(many) * 1000:.0f} ms until the last has it.",
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


async def _send(setup: Setup, writer: Writer, user_id: str, received: list[float], listeners: int) -> float:
    """From when the state of a new task is produced until all have its notification."""
    received.clear()
    now = time.time_ns()
    task = TaskEntry("TASK-1", Status.PENDING, (user_id,), created_at=now // 1_000_000)
    state = TaskState(f"many-{now}", CORP, "APP_1", now // 1_000_000, 1, title="张红的1位访客申请", tasks=(task,))
    value = task_state_codec(setup.registry).encode(state)
    started = time.perf_counter()
    writer.write(TASK_STATES.name, state.instance_id.encode(), value)
    deadline = started + _ARRIVES_WITHIN_S
    while len(received) < listeners:
        if time.perf_counter() > deadline:
            raise NotCounted(f"only {len(received)} of {listeners} event streams have a change")
        writer.poll()
        await asyncio.sleep(0.0005)
    return max(received) - started
