"""How much memory an open event stream takes, and how fast many are told of something at once.

    PYTHONPATH=tests/support:. uv run python tests/bench/event_streams.py --streams 10000

The worker's live side runs in a process of its own, without Kafka; the listeners are plain sockets in this one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any, cast

from schemas.events import Change, Status, TaskNotification, View
from service.open_files import allow_open_files
from streams.http import Server, build_http, listen
from streams.inbox_table.told import Told
from streams.live.hub import Hub
from streams.live.routes import events_router
from streams.metrics import Metrics
from streams.query.access import Access
from streams.query.forwarding import Forwarding
from streams.query.owners import Owners
from streams.query.routes import Desk

if TYPE_CHECKING:
    from collections.abc import Callable

_PARTITIONS = 12
_CORP = "ding5d17e3add038d44535c2f4657eb6378f"
_OWN_FILES = 256


def _notification(user_id: str) -> TaskNotification:
    return TaskNotification(
        notification_id="0b9f6d6e-5f0e-5e11-8b1c-0a3c2d1e4f50",
        corp_id=_CORP,
        recipient_id=user_id,
        view=View.PENDING,
        change=Change.ADDED,
        instance_id="65ab8549-aa06-486a-b5b7-8abe845303a5",
        task_id="TASK-1",
        title="张红的1位访客申请",
        url="https://yida.example/APP/processDetail?procInsId=65ab8549",
        app_type="APP_RY60OCRF33Z7534",
        originator=None,
        actor_id=None,
        status=Status.PENDING,
        occurred_at=1_769_846_400_000,
        event_id="0b9f6d6e-5f0e-5e11-8b1c-0a3c2d1e4f51",
    )


async def _worker(port: int, heartbeat_s: float) -> None:
    hub = Hub(next_offset=lambda _: 1, most=100_000, most_of_person=100_000, heartbeat_s=heartbeat_s)
    owners = Owners("http://127.0.0.1")
    owners.join(partitions=_PARTITIONS, distribution=dict, live=lambda: range(_PARTITIONS), changelog="inbox")
    access, reader = Access(tokens=None, rate_per_s=100_000), cast("Any", object())
    router = events_router(hub, lambda: reader, Desk(access, owners, Forwarding(None)))
    http = build_http(lambda: {"ready": True}, Metrics(), routers=[router])

    async def tell(user_id: str, offset: int) -> dict[str, int]:
        hub.told(0, [Told(offset, _CORP, user_id, _notification(user_id))])
        return {"streams": hub.count}

    http.add_api_route("/tell/{user_id}/{offset}", tell, methods=["POST"])
    beating = asyncio.create_task(_beat(hub, heartbeat_s))
    await Server(http).serve([listen("127.0.0.1", port)])
    beating.cancel()


async def _beat(hub: Hub, heartbeat_s: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(heartbeat_s / 15)
        hub.beat(loop.time())


def _resident_kib(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def _cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Listener(asyncio.Protocol):
    def __init__(self, user_id: str, told: Callable[[float], None]) -> None:
        self._user_id, self._told = user_id, told
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        head = f"GET /v1/corps/{_CORP}/users/{self._user_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        cast("asyncio.Transport", transport).write(f"{head}Accept: text/event-stream\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            assert data.startswith(b"HTTP/1.1 200"), data
            self.opened.set_result(None)
        if b"event: notification" in data:
            self._told(time.perf_counter())


async def _measure(pid: int, port: int, streams: int, heartbeat_s: float) -> None:
    loop, told = asyncio.get_running_loop(), list[float]()
    while True:
        with contextlib.suppress(ConnectionError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    before, started = _resident_kib(pid), time.perf_counter()
    for start in range(0, streams, 500):
        # A tenth listen to one person, the others to one each.
        batch = range(start, min(start + 500, streams))
        users = ["everybody" if each % 10 == 0 else f"0169{each:010}" for each in batch]
        made = [
            await loop.create_connection(lambda user=each: _Listener(user, told.append), "127.0.0.1", port)
            for each in users
        ]
        await asyncio.gather(*(protocol.opened for _, protocol in made))
    opened_s = time.perf_counter() - started
    await asyncio.sleep(1)
    after = _resident_kib(pid)
    _say(f"{streams} streams opened in {opened_s:.1f} s")
    _say(f"resident: {before / 1024:.0f} MiB before, {after / 1024:.0f} MiB with them", end="")
    _say(f": {(after - before) / streams:.1f} KiB a stream")
    cpu = _cpu_s(pid)
    await asyncio.sleep(heartbeat_s)
    _say(f"heartbeats of {heartbeat_s:.0f} s: {(_cpu_s(pid) - cpu) / heartbeat_s * 100:.1f} % of a core")
    _say(f"resident after all had a heartbeat: {(_resident_kib(pid) - before) / streams:.1f} KiB a stream")
    one, many = [await _tell(port, "0169" + f"{7:010}", n, told, 1) for n in range(10, 60)], list[float]()
    for number in range(100, 105):
        many.append(await _tell(port, "everybody", number, told, (streams + 9) // 10))
    _say(f"one of them told of something: {median(one) * 1000:.1f} ms; {(streams + 9) // 10} at once: ", end="")
    _say(f"{median(many) * 1000:.0f} ms until the last; resident {_resident_kib(pid) / 1024:.0f} MiB")


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)


async def _tell(port: int, user_id: str, offset: int, told: list[float], listeners: int) -> float:
    told.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.perf_counter()
    writer.write(f"POST /tell/{user_id}/{offset} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    await reader.read()
    writer.close()
    while len(told) < listeners:  # noqa: ASYNC110 - many protocols fill it
        await asyncio.sleep(0.0005)
    return max(told) - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--heartbeat", type=float, default=15.0)
    parser.add_argument("--port", type=int, default=18512)
    parser.add_argument("--worker", action="store_true", help="for itself")
    arguments = parser.parse_args()
    wanted = arguments.streams + _OWN_FILES
    if allow_open_files(wanted) < wanted:
        sys.exit(f"this process may not open {wanted} files: ulimit -Hn")
    if arguments.worker:
        asyncio.run(_worker(arguments.port, arguments.heartbeat))
        return
    command = [sys.executable, __file__, "--worker", "--streams", str(arguments.streams)]
    command += ["--port", str(arguments.port), "--heartbeat", str(arguments.heartbeat)]
    worker = subprocess.Popen(command)
    try:
        asyncio.run(_measure(worker.pid, arguments.port, arguments.streams, arguments.heartbeat))
    finally:
        worker.terminate()
        worker.wait(10)


if __name__ == "__main__":
    main()
