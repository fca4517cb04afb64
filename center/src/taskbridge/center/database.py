"""The database: SQLite or PostgreSQL behind one interface, and what differs between the two."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sqlalchemy import Connection, Engine, Table

_BUSY_S = 30.0
"""How long a writer of SQLite waits for the other one."""


class DatabaseUnavailable(OperatorError):
    """The database does not answer, or refuses: the request can be repeated later."""


class Database:
    """One engine. Every method blocks; connections are pooled and belong to one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Generator[Connection]:
        """A connection for queries, which see one state of the database in SQLite.

        Raises:
            DatabaseUnavailable: it does not answer.
        """
        try:
            with self.engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise DatabaseUnavailable(_first_line(error)) from error

    @contextmanager
    def write(self, *, durable: bool = True) -> Generator[Connection]:
        """A transaction, committed at the end of the block and rolled back where it raises.

        With ``durable`` false, PostgreSQL may lose the latest of them in a crash, never a part of one: enough for what
        follows a topic, with its position in the same transaction.

        Raises:
            DatabaseUnavailable: nothing was written.
        """
        try:
            with self.engine.begin() as connection:
                if not self.is_sqlite and not durable:
                    connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
                yield connection
        except DBAPIError as error:
            raise DatabaseUnavailable(_first_line(error)) from error

    def insert(self, table: Table) -> Any:
        """``INSERT`` with ``on_conflict_do_update``, which both databases have under the same names."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str | None, data_dir: Path) -> Database:
    """The database at ``url``; without one, the SQLite file in ``data_dir``. Connects at the first use."""
    if url is None:
        data_dir.mkdir(parents=True, exist_ok=True)
        engine = create_engine(f"sqlite:///{data_dir / 'center.db'}", connect_args={"timeout": _BUSY_S})
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return Database(engine)
    # Without a driver in the URL, SQLAlchemy would look for psycopg2.
    parsed = make_url(url)
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return Database(create_engine(parsed, pool_pre_ping=True, pool_size=16))


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # Transactions are begun by us: the driver would begin them late, and not for reads.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON", "cache_size = -65536"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _first_line(error: DBAPIError) -> str:
    return str(error.orig or error).partition("\n")[0]
