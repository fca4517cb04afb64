"""The webhooks service on SQLite and on PostgreSQL, as processes of a run."""

from __future__ import annotations

import re
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import httpx2
from tests.bench.center.installations import POSTGRESQL
from tests.bench.machine import cpu_seconds, resident_mb
from tests.bench.services import answers, start_service, wait_until
from tests.bench.webhooks.load import kafka_publisher
from tests.bench.webhooks.receiver import SECRET

from support.center import PostgresServer
from taskbridge.local.host import LOOPBACK, free_port
from taskbridge.runtime.database import open_database
from taskbridge.runtime.migrations import migrate
from taskbridge.webhooks.migrations import FOLDER

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from types import TracebackType
    from typing import Self

    from tests.bench.streams.setup import Setup
    from tests.bench.webhooks.receiver import Receiver


class Cpu(NamedTuple):
    """CPU seconds of the measured service, and of its servers: database and queue."""

    service: float
    servers: float

    def since(self, earlier: Cpu) -> Cpu:
        return Cpu(self.service - earlier.service, self.servers - earlier.servers)


class Webhooks:
    """One replica with a new database."""

    def __init__(
        self, setup: Setup, database: str, receiver: Receiver, endpoints: Sequence[str], in_flight: int
    ) -> None:
        self.name = database
        self._setup, self._receiver, self._in_flight = setup, receiver, in_flight
        port = free_port()
        self._url = f"http://{LOOPBACK}:{port}"
        self._folder = setup.folder / f"webhooks-{port}"
        self._folder.mkdir()
        self._file = self._folder / "endpoints.toml"
        self._settings = {
            "WEBHOOKS_PORT": str(port),
            "WEBHOOKS_KAFKA_BOOTSTRAP_SERVERS": setup.bootstrap_servers,
            "WEBHOOKS_SCHEMA_REGISTRY_URL": setup.registry_url,
            "WEBHOOKS_DATA_DIR": str(self._folder),
            "WEBHOOKS_ENDPOINTS_FILE": str(self._file),
            "WEBHOOKS_ALLOWED_NETWORKS": "127.0.0.0/8",
        }
        self._server: PostgresServer | None = None
        self.publish = kafka_publisher(setup)
        self.use(endpoints)

    def __enter__(self) -> Self:
        self._running = ExitStack()
        if self.name == POSTGRESQL:
            # Durable, unlike that of the tests; it runs as another user where these run as root.
            self._setup.folder.chmod(0o711)
            self._server = PostgresServer({"shared_buffers": "512MB"}, folder=self._setup.folder)
            self._running.callback(self._server.stop)
            self._settings["WEBHOOKS_DATABASE_URL"] = self._server.url()
            with closing(open_database(self._server.url(), self._folder)) as new:
                migrate(new, FOLDER)
        self.pid = start_service(
            self._running, "taskbridge.cli", "webhooks", settings=self._settings, folder=self._folder
        )
        wait_until(lambda: answers(f"{self._url}/readyz"), f"webhooks on {self.name} are ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    @contextmanager
    def collecting(self) -> Generator[None]:
        """What is published within is a backlog at the end: notifications come faster than they are delivered."""
        yield

    def use(self, endpoints: Sequence[str]) -> None:
        """Have these endpoints in the file; the service sees it within a second or two."""
        self._file.write_text("\n".join(self._endpoint(each) for each in endpoints))

    def _endpoint(self, name: str) -> str:
        return (
            f'[[endpoints]]\nname = "{name}"\nurl = "{self._receiver.url}/{name}"\nsecrets = ["{SECRET}"]\n'
            f'corps = ["{name}"]\nin_flight = {self._in_flight}\n'
        )

    def waiting(self, endpoint: str) -> int:
        """How many deliveries wait for it."""
        return self._gauge("waiting_deliveries", endpoint) or 0

    def uses(self, endpoint: str) -> bool:
        """Whether notifications become deliveries to it."""
        return self._gauge("endpoint_disabled", endpoint) is not None

    def _gauge(self, name: str, endpoint: str) -> int | None:
        line = rf'^taskbridge_webhooks_{name}{{endpoint="{endpoint}"}} (\S+)$'
        found = re.search(line, httpx2.get(f"{self._url}/metrics", trust_env=False).text, re.MULTILINE)
        return None if found is None else int(float(found[1]))

    @property
    def cpu(self) -> Cpu:
        return Cpu(cpu_seconds(self.pid), 0.0 if self._server is None else cpu_seconds(self._server.pid))

    @property
    def memory_mb(self) -> float:
        return resident_mb(self.pid)
