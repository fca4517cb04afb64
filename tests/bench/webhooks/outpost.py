"""The peer: Outpost by Hookdeck, with its queue in RabbitMQ, its tenants in Redis and its log in PostgreSQL.

Its two programs are built of a checkout of https://github.com/hookdeck/outpost: ``go build -o FOLDER ./cmd/outpost
./cmd/outpost-server``. RabbitMQ and Redis are Debian's packages.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx2
from tests.bench.machine import cpu_seconds, resident_mb
from tests.bench.services import answers, wait_until
from tests.bench.toolchains import need
from tests.bench.webhooks.installations import Cpu
from tests.bench.webhooks.receiver import SECRET

from support.center import PostgresServer
from taskbridge.local.child import Child
from taskbridge.local.host import LOOPBACK, free_port, free_ports
from taskbridge.schemas.json_forms import notification_json, to_json

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from tests.bench.streams.setup import Setup
    from tests.bench.webhooks.load import Sent
    from tests.bench.webhooks.receiver import Receiver

OUTPOST = "Outpost"
_RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_KEY, _TOPIC = "key", "task.notification"
_POSTING = 40
"""Requests at once to its API."""


class Outpost:
    """One of each of its services, and of the servers it needs."""

    name = OUTPOST

    def __init__(
        self, setup: Setup, programs: Path, receiver: Receiver, endpoints: Sequence[str], *, in_flight: int
    ) -> None:
        """``programs`` is the folder with ``outpost`` and ``outpost-server``.

        Raises:
            ToolMissing: Redis or RabbitMQ.
        """
        need("redis-server", "apt-get install redis-server")
        need(str(_RABBITMQ), "apt-get install rabbitmq-server")
        self._setup, self._programs, self._receiver, self._endpoints = setup, programs, receiver, endpoints
        self._concurrency = len(endpoints) * in_flight
        self._folder = setup.folder / "outpost"
        self._folder.mkdir()
        self._url = f"http://{LOOPBACK}:{free_port()}"

    def __enter__(self) -> Self:
        self._running = ExitStack()
        postgres = PostgresServer({}, folder=self._setup.folder)
        self._running.callback(postgres.stop)
        redis_port, rabbit_port, dist_port, epmd_port = free_ports(4)
        redis = ["redis-server", "--port", str(redis_port), "--bind", LOOPBACK, "--appendonly", "yes"]
        self._servers = [postgres.pid, self._start("redis", [*redis, "--dir", str(self._folder)], {})]
        self._servers.append(self._start_rabbitmq(rabbit_port, dist_port, epmd_port))
        self._settings = {
            "API_PORT": self._url.rpartition(":")[2],
            "API_KEY": _KEY,
            "API_JWT_SECRET": "secret",
            "AES_ENCRYPTION_SECRET": "0123456789abcdef",
            "DEPLOYMENT_ID": "bench",
            "TOPICS": _TOPIC,
            "REDIS_HOST": LOOPBACK,
            "REDIS_PORT": str(redis_port),
            "POSTGRES_URL": f"{postgres.url()}?sslmode=disable",
            "RABBITMQ_SERVER_URL": f"amqp://guest:guest@{LOOPBACK}:{rabbit_port}",
            "DESTINATIONS_WEBHOOK_MODE": "standard",
            "DELIVERY_MAX_CONCURRENCY": str(self._concurrency),
            "PUBLISH_MAX_CONCURRENCY": str(_POSTING),
            "LOG_MAX_CONCURRENCY": "4",
            "LOG_LEVEL": "error",
            "DISABLE_TELEMETRY": "true",
        }
        environment = {**os.environ, **self._settings}
        migrate = [self._programs / "outpost", "migrate", "apply", "--yes"]
        subprocess.run(migrate, env=environment, cwd=self._folder, check=True, capture_output=True)
        self._api = self._start("api", [str(self._programs / "outpost-server")], {**self._settings, "SERVICE": "api"})
        wait_until(lambda: answers(f"{self._url}/healthz"), "Outpost is ready")
        self._add_endpoints()
        self._used, self._workers = 0.0, list[Child]()
        self._start_workers()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_workers()
        self._running.close()

    def publish(self, due: Iterable[Sent]) -> None:
        """Post each to the API when it is due; returns when all are accepted."""
        asyncio.run(self._post(due))

    async def _post(self, due: Iterable[Sent]) -> None:
        headers, waiting, turn = {"authorization": f"Bearer {_KEY}"}, iter(due), asyncio.Lock()

        async def following() -> Sent | None:
            async with turn:
                return await asyncio.to_thread(next, waiting, None)  # it sleeps until one is due

        async def post(session: aiohttp.ClientSession) -> None:
            while (each := await following()) is not None:
                new = notification_json(each.notification())
                event = {"tenant_id": each.endpoint, "topic": _TOPIC, "id": each.id, "data": new}
                async with session.post(f"{self._url}/api/v1/publish", data=to_json(event)) as response:
                    response.raise_for_status()

        async with aiohttp.ClientSession(headers={**headers, "content-type": "application/json"}) as session:
            await asyncio.gather(*(post(session) for _ in range(_POSTING)))

    @contextmanager
    def collecting(self) -> Generator[None]:
        """Nothing is delivered meanwhile: its API alone would be slower than its deliveries."""
        self._stop_workers()
        yield
        self._start_workers()

    @property
    def cpu(self) -> Cpu:
        own = self._used + cpu_seconds(self._api) + sum(cpu_seconds(each.pid) for each in self._workers)
        return Cpu(own, sum(map(cpu_seconds, self._servers)))

    @property
    def memory_mb(self) -> float:
        return resident_mb(self._api) + sum(resident_mb(each.pid) for each in self._workers)

    def _add_endpoints(self) -> None:
        client = httpx2.Client(
            base_url=f"{self._url}/api/v1", headers={"authorization": f"Bearer {_KEY}"}, trust_env=False
        )
        with client:
            for each in self._endpoints:
                client.put(f"/tenants/{each}").raise_for_status()
                given = {"config": {"url": f"{self._receiver.url}/{each}"}, "credentials": {"secret": SECRET}}
                destination = {"type": "webhook", "topics": ["*"], **given}
                client.post(f"/tenants/{each}/destinations", json=destination).raise_for_status()

    def _start_workers(self) -> None:
        argv = [str(self._programs / "outpost-server")]
        self._workers = [self._child(each, argv, {**self._settings, "SERVICE": each}) for each in ("delivery", "log")]

    def _stop_workers(self) -> None:
        self._used += sum(cpu_seconds(each.pid) for each in self._workers)
        for each in self._workers:
            each.end(signal.SIGTERM, timeout_s=20)
        self._workers = []

    def _start_rabbitmq(self, port: int, dist_port: int, epmd_port: int) -> int:
        folder = self._folder / "rabbitmq"
        folder.mkdir()
        environment: dict[str, Any] = {
            "HOME": folder,
            "RABBITMQ_BASE": folder,
            "RABBITMQ_MNESIA_BASE": folder / "mnesia",
            "RABBITMQ_LOG_BASE": folder / "log",
            "RABBITMQ_CONFIG_FILE": folder / "none",
            "RABBITMQ_CONF_ENV_FILE": folder / "none.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "plugins",
            "RABBITMQ_NODENAME": f"bench-{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": port,
            "RABBITMQ_DIST_PORT": dist_port,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": epmd_port,
            "ERL_EPMD_ADDRESS": LOOPBACK,
        }
        epmd = self._start("epmd", [need("epmd", "apt-get install rabbitmq-server")], environment)
        assert epmd
        pid = self._start("rabbitmq", [str(_RABBITMQ)], environment)
        log = self._folder / "rabbitmq.log"
        wait_until(lambda: "Starting broker... completed" in log.read_text(), "RabbitMQ is ready")
        return pid

    def _start(self, name: str, argv: Sequence[str], environment: Mapping[str, object]) -> int:
        child = self._child(name, argv, environment)
        self._running.callback(child.end, signal.SIGTERM, timeout_s=20)
        return child.pid

    def _child(self, name: str, argv: Sequence[str], environment: Mapping[str, object]) -> Child:
        env = {**os.environ, **{name: str(value) for name, value in environment.items()}}
        log = self._folder / f"{name}.log"
        return Child(list(argv), env=env, cwd=self._folder, log_path=log, orphan_signal=signal.SIGKILL)
