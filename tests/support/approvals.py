"""DingTalk's approvals in a test: its events, the fake gateway, the service, and the real edge in this process."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import httpx2
from pydantic import SecretStr

from support.edge.client import EdgeTransport
from support.edge.fakes import CORP_ID, SOURCE, SOURCE_SECRET, SYSTEM_TOKEN, MemoryPublisher, write_credentials
from support.fake_gateway import FakeGateway
from taskbridge.dingtalk.approvals.app import Service
from taskbridge.dingtalk.approvals.mapping import INSTANCE, TASK
from taskbridge.dingtalk.approvals.settings import ApprovalsSettings
from taskbridge.edge.app import create_app
from taskbridge.edge.settings import EdgeSettings
from taskbridge.runtime.bounded_http import open_http
from taskbridge.runtime.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

PROCESS, INSTANCE_ID = "PROC-27BBC5E6", "ce133dd0-5b22-9516"
BEGAN, ENDED = 1_670_983_873_000, 1_670_983_893_000


def task_event(kind: str, **more: object) -> tuple[str, dict[str, Any]]:
    """Type and data of an event about a task, as in the vendor's documents."""
    data = {"processInstanceId": INSTANCE_ID, "corpId": CORP_ID, "businessId": "20260038", "title": "考勤-测试"}
    task = {"type": kind, "createTime": BEGAN, "processCode": PROCESS, "taskId": 811165, "staffId": "0805"}
    ended = {} if kind in ("start", "comment") else {"finishTime": ENDED}
    return TASK, {**data, "bizCategoryId": "attendance.goout", **task, **ended, **more}


def instance_event(kind: str, **more: object) -> tuple[str, dict[str, Any]]:
    """The same, about an instance."""
    ended = {} if kind == "start" else {"finishTime": ENDED}
    data = {"processInstanceId": INSTANCE_ID, "corpId": CORP_ID, "businessId": "20260038", "title": "考勤-测试"}
    instance = {"type": kind, "createTime": BEGAN, "processCode": PROCESS, "staffId": "manager75"}
    return INSTANCE, {**data, "url": "https://aflow.dingtalk.com/homepage.htm?corpid=1", **instance, **ended, **more}


class Waiting:
    """A clock whose ``sleep`` returns at once, and notes how long it would have been."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.ahead_s = 0.0
        """Of the time of this machine."""

    def now_ms(self) -> int:
        return SystemClock().now_ms() + int(self.ahead_s * 1000)

    def monotonic_s(self) -> float:
        return SystemClock().monotonic_s() + self.ahead_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@dataclass
class Line:
    """The connection to the edge."""

    requests: list[httpx2.Request] = field(default_factory=list[httpx2.Request])
    """What was posted."""
    is_down: bool = False
    opens: asyncio.Event = field(default_factory=asyncio.Event)
    """Until it is set, nothing arrives."""

    async def carry(self, request: httpx2.Request) -> None:
        if self.is_down:
            raise httpx2.ConnectError("down")
        self.requests.append(request)
        await self.opens.wait()


@dataclass
class Approvals:
    gateway: FakeGateway
    line: Line
    service: Service
    clock: Waiting
    publisher: MemoryPublisher = field(default_factory=MemoryPublisher)
    """Of the edge in this process."""
    running: asyncio.Task[Any] | None = None

    def start(self) -> None:
        self.running = asyncio.create_task(self.service.stream.run())

    async def stop(self) -> None:
        if self.running is not None:
            self.running.cancel()
            with suppress(asyncio.CancelledError):
                await self.running

    @property
    def statuses(self) -> list[str]:
        """What was answered to events, in this order."""
        found = (json.loads(each["data"]) for each in self.gateway.answers)
        return [each["status"] for each in found if "status" in each]

    def outcomes(self) -> dict[tuple[str, str], float]:
        """How many events of a type had an outcome."""
        return {
            (each.labels["type"], each.labels["outcome"]): each.value
            for family in self.service.registry.collect()
            for each in family.samples
            if each.name == "taskbridge_approvals_events_total"
        }


async def until(condition: Callable[[], object]) -> None:
    """Let everything else run until the condition holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - anything may make it hold
            await asyncio.sleep(0.001)


@asynccontextmanager
async def approvals(folder: Path, **options: Any) -> AsyncGenerator[Approvals]:
    """The service between the fake gateway and an edge in this process."""
    write_credentials(folder / "credentials.toml", SYSTEM_TOKEN, secrets=(SOURCE_SECRET,))
    publisher = MemoryPublisher()
    edge = create_app(
        EdgeSettings(
            kafka_bootstrap_servers="127.0.0.1:1",
            schema_registry_url="http://127.0.0.1:1",
            credentials_file=folder / "credentials.toml",
            data_dir=folder / "edge",
        ),
        publisher=publisher,
    )
    async with (
        edge.router.lifespan_context(edge) as served,
        approvals_to("http://edge", EdgeTransport(edge, cast("dict[str, Any]", served)), **options) as found,
    ):
        found.publisher = publisher
        yield found


@asynccontextmanager
async def approvals_to(
    edge_url: str,
    transport: httpx2.AsyncBaseTransport | None = None,
    *,
    app_secret: str = "fake-app-secret",  # noqa: S107
    remarks: bool = True,
    calls_per_day: int = 2000,
) -> AsyncGenerator[Approvals]:
    """The service between the fake gateway and this edge; connected, if the secret is right."""
    gateway, line, clock = FakeGateway(), Line(), Waiting()
    line.opens.set()
    async with (
        gateway.serving() as url,
        open_http(url, timeout_s=10) as dingtalk,
        httpx2.AsyncClient(
            transport=transport, base_url=edge_url, trust_env=False, event_hooks={"request": [line.carry]}
        ) as edge,
    ):
        settings = ApprovalsSettings(
            app_key=gateway.app_key,
            app_secret=SecretStr(app_secret),
            edge_url=edge_url,
            source=SOURCE,
            source_secret=SecretStr(SOURCE_SECRET),
            remarks=remarks,
            calls_per_day=calls_per_day,
            api_url=url,
        )
        found = Approvals(gateway, line, Service(settings, dingtalk=dingtalk, edge=edge, clock=clock), clock)
        found.start()
        if app_secret == gateway.app_secret:
            await until(lambda: gateway.is_connected and found.service.stream.problem is None)
        try:
            yield found
        finally:
            await found.stop()
