"""Callbacks keep coming, each on a new connection, while the edge of a bridge is restarted.

TASKBRIDGE_RESTARTS=10 TASKBRIDGE_RESTARTS_RATE=500 is the size that is promised; the default is smaller, to be quick.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from support.background import InBackground
from support.edge.fakes import SYSTEM_TOKEN, write_credentials
from support.edge.process import wait_until
from support.http_clients import callback
from taskbridge.local.bridge import Bridge, BridgeOptions
from taskbridge.local.host import free_ports
from taskbridge.local.stack import KAFKA_VARIABLE, REGISTRY_VARIABLE
from taskbridge.runtime.process import allow_open_files

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from taskbridge.local.jvm import Endpoints

pytestmark = [pytest.mark.integration, pytest.mark.disasters]

RESTARTS = int(os.environ.get("TASKBRIDGE_RESTARTS", "3"))
RATE = float(os.environ.get("TASKBRIDGE_RESTARTS_RATE", "60"))
ANSWER_WITHIN_S = 60
HOW = (signal.SIGTERM, signal.SIGHUP)


class OpenSenders(InBackground):
    """Posts at a steady rate without waiting for earlier answers, each on a new connection."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.outcomes: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._port = port

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        sys.stderr.write(f"\n[restarts] {dict(self.outcomes)}, slowest {self.slowest_s:.1f} s\n")

    def work(self) -> None:
        asyncio.run(self._post_all())

    async def _post_all(self) -> None:
        began, posted = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while not self.is_over.is_set():
                while posted < (time.monotonic() - began) * RATE:
                    posted += 1
                    # Every second one leaves it to us to close.
                    last = ("Connection: close",) if posted % 2 else ()
                    group.create_task(self._post(callback(f"inst-{posted}", *last)))
                await asyncio.sleep(0.005)

    async def _post(self, request: bytes) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                self.outcomes[await self._answer(request)] += 1
        except (OSError, EOFError) as error:
            self.outcomes[type(error).__name__] += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    async def _answer(self, request: bytes) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(request)
            return (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        finally:
            writer.close()


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.nightly)], ids=["one edge", "two edges"])
def bridge(request: pytest.FixtureRequest, stack: Endpoints, tmp_path: Path) -> Generator[Bridge]:
    allow_open_files(8192)
    edge, center, streams, kafka, registry = free_ports(5)
    write_credentials(tmp_path / "credentials.toml", SYSTEM_TOKEN)
    bridge = Bridge(
        BridgeOptions(
            data_dir=tmp_path,
            edge_port=edge,
            center_port=center,
            streams_port=streams,
            kafka_port=kafka,
            registry_port=registry,
            credentials=tmp_path / "credentials.toml",
            edges=request.param,
        ),
        progress=lambda _: None,
        environment={
            **os.environ,
            KAFKA_VARIABLE: stack.bootstrap_servers,
            REGISTRY_VARIABLE: stack.registry_url,
        },
    )
    try:
        bridge.start().close()
        yield bridge
    finally:
        bridge.stop()


def restart(bridge: Bridge, signum: signal.Signals) -> None:
    pid = bridge.pid("edge")
    assert pid is not None
    os.kill(pid, signum)
    wait_until(lambda: bridge.pid("edge") not in (None, pid), what="another process serves")


def served(senders: OpenSenders, more: int) -> None:
    """Return when so many more callbacks were accepted."""
    before = senders.outcomes["200"]
    wait_until(lambda: senders.outcomes["200"] >= before + more, what=f"{more} more are accepted")


@pytest.mark.timeout(120 + 20 * RESTARTS)
def test_no_callback_is_refused_while_the_edge_is_restarted(bridge: Bridge) -> None:
    port = int(bridge.edge_url.rpartition(":")[2])
    with OpenSenders(port) as senders:
        for number in range(RESTARTS):
            served(senders, int(RATE))
            restart(bridge, HOW[number % len(HOW)])
        served(senders, int(RATE))
    assert set(senders.outcomes) == {"200"}

    # Killed, it leaves those unanswered that it had accepted, and no others.
    with OpenSenders(port) as senders:
        served(senders, int(RATE))
        restart(bridge, signal.SIGKILL)
        served(senders, int(RATE))
    assert set(senders.outcomes) <= {"200", "ConnectionResetError", "IncompleteReadError"}
