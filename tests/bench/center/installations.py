"""The task center on SQLite and on PostgreSQL, of this checkout and of an earlier one, as processes of a run."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy import func, select
from tests.bench.command import NotCounted
from tests.bench.machine import bytes_below, cpu_seconds, resident_mb
from tests.bench.services import answers, run_service, start_service, wait_until
from tests.bench.toolchains import CHECKOUT

from support.center import PostgresServer
from taskbridge.local.host import LOOPBACK, free_port
from taskbridge.runtime.database import open_database
from taskbridge.runtime.follow.tables import positions
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from tests.bench.streams.setup import Setup

    from taskbridge.runtime.database import Database

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
DATABASES = (SQLITE, POSTGRESQL)
_RATE = "1000000"
"""One client sends all requests: here its rate is measured."""


class Center:
    """One replica with a database of its own, which stays over its restarts. PostgreSQL runs all the time.

    ``checkout`` may be another one, with an environment of its own: an earlier release takes part.
    """

    def __init__(self, setup: Setup, database: str, stack: ExitStack, *, checkout: Path = CHECKOUT) -> None:
        self.name = database if checkout == CHECKOUT else f"{database}, earlier"
        self.checkout = checkout
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._setup = setup
        self._folder = setup.folder / f"center-{self.port}"
        self._folder.mkdir()
        self._server: PostgresServer | None = None
        if database == POSTGRESQL:
            # Durable, unlike that of the tests; it runs as another user where these run as root.
            setup.folder.chmod(0o711)
            self._server = PostgresServer({"shared_buffers": "512MB"}, folder=setup.folder)
            stack.callback(self._server.stop)
        self._settings = {
            "CENTER_PORT": str(self.port),
            "CENTER_KAFKA_BOOTSTRAP_SERVERS": setup.bootstrap_servers,
            "CENTER_SCHEMA_REGISTRY_URL": setup.registry_url,
            "CENTER_DATA_DIR": str(self._folder),
            "CENTER_QUERY_RATE_PER_S": _RATE,
            "CENTER_EVENT_STREAMS": "100000",
        }
        if self._server is not None:
            self._settings["CENTER_DATABASE_URL"] = self._server.url()
        run_service("taskbridge.cli", "center", "--migrate", settings=self._settings, checkout=checkout)

    def __enter__(self) -> Self:
        self._running = ExitStack()
        self.pid = start_service(
            self._running,
            "taskbridge.cli",
            "center",
            settings=self._settings,
            folder=self._setup.folder,
            checkout=self.checkout,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def until_ready(self) -> None:
        wait_until(lambda: answers(f"{self.url}/readyz"), f"{self.name} is ready")

    @property
    def cpu(self) -> tuple[float, float]:
        """CPU seconds of the center, and of its database server."""
        return cpu_seconds(self.pid), 0.0 if self._server is None else cpu_seconds(self._server.pid)

    @property
    def memory_mb(self) -> float:
        return resident_mb(self.pid)

    @property
    def database_mb(self) -> float:
        return bytes_below(self._folder if self._server is None else self._server.folder) / (1 << 20)

    def reached(self) -> int:
        """The number of records of the states topic that the database has."""
        query = select(func.coalesce(func.sum(positions.c.next_offset), 0))
        with self._opened() as database, database.read() as connection:
            return int(connection.scalar(query.where(positions.c.topic == TASK_STATES.name)) or 0)

    def vacuum(self) -> None:
        """As PostgreSQL does by itself within minutes: counts and searches then read the index alone."""
        if self._server is not None:
            with psycopg.connect(self._server.url(), autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")

    def _opened(self) -> closing[Database]:
        return closing(open_database(self._settings.get("CENTER_DATABASE_URL"), self._folder))


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The consumption of a number of states by a center that was just started."""

    states: int
    seconds: float
    center_cpu_s: float
    server_cpu_s: float
    memory_mb: float
    database_mb: float

    @property
    def per_second(self) -> float:
        return self.states / self.seconds


def catch_up(center: Center, setup: Setup) -> CaughtUp:
    """From the first record that is in the database to the last; the center runs, and was started just before."""
    end = sum(setup.kafka.ends(TASK_STATES.name, setup.partitions))
    before = center.reached()
    wait_until(lambda: center.reached() > before, f"{center.name} follows")
    first, cpu, began = center.reached(), center.cpu, time.monotonic()
    while (reached := center.reached()) < end:
        setup.progress(f"{center.name}: {reached:,} of {end:,} states, {center.memory_mb:.0f} MiB")
        time.sleep(0.5)
    seconds = time.monotonic() - began
    center_cpu, server_cpu = (now - then for now, then in zip(center.cpu, cpu, strict=True))
    if reached == first:
        raise NotCounted(f"{center.name} had caught up before it was measured")
    return CaughtUp(end - first, seconds, center_cpu, server_cpu, center.memory_mb, center.database_mb)


def check_checkout(checkout: Path) -> None:
    """Raises ConfigurationError where it cannot be started."""
    if not (checkout / ".venv").is_dir():
        raise ConfigurationError(
            f"{checkout} is no checkout after `uv sync`: --earlier names one, as git worktree makes them"
        )
