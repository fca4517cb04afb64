"""A spool on a disk that a test decides about or can fill, and a Kafka that acknowledges on command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from taskbridge.edge.kafka.client import KafkaClient
from taskbridge.edge.kafka.record import Record
from taskbridge.edge.spool.folder import SpoolFolder
from taskbridge.edge.spool.recovery import open_or_recover
from taskbridge.edge.spool.writer import Spool
from taskbridge.runtime.producer import AsyncProducer, Delivery, QueueFull
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence
    from pathlib import Path

    from taskbridge.edge.kafka.record import SpooledRecord
    from taskbridge.edge.spool.metrics import SpoolMetrics
    from taskbridge.schemas.errors import TaskbridgeError


REGISTRY = FakeRegistry()
SCHEMA = task_event_codec(REGISTRY).schema


def record(number: int = 0, *, key: str | None = None, size: int = 100, topic: str = TASK_EVENTS.name) -> Record:
    """A record that its body distinguishes from others."""
    body = f"{number}:".encode().ljust(size, b".")
    return Record(topic=topic, key=(key or f"k{number}").encode(), headers=(), schema=SCHEMA.key, body=body)


def number_of(value: Record | bytes) -> int:
    body = value[5:] if isinstance(value, bytes) else value.body
    return int(body.split(b":")[0])


def numbers(records: Sequence[SpooledRecord]) -> list[int]:
    return [number_of(each) for each in records]


class Disk:
    """The free space that the writer sees."""

    def __init__(self) -> None:
        self.free = 1 << 40
        self.total = 1 << 40

    def __call__(self) -> tuple[int, int]:
        return self.free, self.total


@asynccontextmanager
async def open_spool(
    folder: Path,
    *,
    max_bytes: int = 1 << 30,
    metrics: SpoolMetrics | None = None,
    disk: Disk | None = None,
    remove: bool = False,
) -> AsyncGenerator[Spool]:
    """A spool that the folder treats as another process's; closed with the block."""
    files = SpoolFolder(folder)
    files.prepare()
    claim = files.claim_own()
    opened = open_or_recover(claim.path, [SCHEMA])
    spool = Spool(opened.store, opened.totals, claim, max_bytes=max_bytes, metrics=metrics, free_bytes=disk or Disk())
    try:
        yield spool
    finally:
        await (spool.close(remove=True) if remove else spool.close())


class TestProducer(AsyncProducer):
    """Acknowledges at once, or when ``release`` is called; fails what ``failing`` has an error for."""

    __test__ = False

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.sent: list[int] = []
        self.delivered: list[int] = []
        self.keys_under_way: list[bytes | None] = []
        self.overlaps: list[bytes | None] = []
        self.failing: dict[int, TaskbridgeError] = {}
        self.held = False
        self.silent: set[int] = set()
        """Records that get no report, until it is emptied."""
        self.delay_s = 0.0
        self.queue_full = False
        self.reachable = True
        self._held: list[tuple[Delivery, int, bytes | None]] = []

    async def answers(self, *, timeout_s: float = 1.0) -> bool:  # noqa: ARG002 - the overridden signature
        return self.reachable

    def send(
        self,
        delivery: Delivery,
        topic: str,  # noqa: ARG002 - the overridden signature
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),  # noqa: ARG002 - the overridden signature
    ) -> None:
        if self.queue_full:
            delivery.set_exception(QueueFull("full"))
            return
        assert value is not None
        number = number_of(value)
        self.sent.append(number)
        if key in self.keys_under_way:
            self.overlaps.append(key)
        self.keys_under_way.append(key)
        self._held.append((delivery, number, key))
        if not self.held:
            asyncio.get_running_loop().call_later(self.delay_s, self.release)

    def release(self) -> None:
        """Deliver the reports that are outstanding."""
        held, self._held = self._held, []
        for delivery, number, key in held:
            if number in self.silent:
                self._held.append((delivery, number, key))
                continue
            self.keys_under_way.remove(key)
            if delivery.done():
                continue
            if number in self.failing:
                delivery.set_exception(self.failing[number])
            else:
                self.delivered.append(number)
                delivery.set_result(None)

    async def close(self, *, timeout_s: float = 5) -> int:  # noqa: ARG002 - the overridden signature
        return 0


async def open_client(producer: TestProducer, *, partitions: int = 1) -> KafkaClient:
    """A way to Kafka that is open."""
    path = KafkaClient(lambda: producer, REGISTRY)
    path.start()
    path.load_ids(SCHEMA)
    for topic in (TASK_EVENTS, CALLBACKS_QUARANTINE):
        path.open(topic.name, partitions=partitions)
    await path.check()
    return path


async def until(condition: object, *, timeout_s: float = 60) -> None:
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.005)


def can_mount() -> bool:
    return os.geteuid() == 0


@contextmanager
def small_disk(path: Path, *, megabytes: int) -> Generator[None]:
    """A tmpfs of this size at ``path``; needs root."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "taskbridge-test", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(folder: Path) -> Path:
    """Use all free space of the disk; return the file whose removal frees it."""
    ballast = folder / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(descriptor, b"\0" * size)
    finally:
        os.close(descriptor)
    return ballast
