"""The database: SQLite or PostgreSQL behind one interface, and what differs between the two."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog
from sqlalchemy import URL, BigInteger, String, bindparam, cast, create_engine, delete, event, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from taskbridge.runtime.process import only_one_in
from taskbridge.runtime.rates import PerSource
from taskbridge.schemas.errors import ConfigurationError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, Engine, Table

    from taskbridge.runtime.settings import DatabaseSettings

T = TypeVar("T")

log = structlog.get_logger(__name__)

Key = String().with_variant(postgresql.VARCHAR(collation="C"), "postgresql")
"""A text that compares by its bytes in both databases."""
_BUSY_S = 30.0
"""How long a writer of SQLite waits for a writer in another process."""
_POSTGRESQL = ("postgres", "postgresql", "postgresql+psycopg")
_POOL = {"pool_size": 16, "max_overflow": 16, "pool_timeout": 10}
_REACHABLE = {"connect_timeout": 5, "tcp_user_timeout": 10_000, "keepalives_idle": 10}
"""A server that vanished without a word is noticed within seconds."""
# A process that is frozen within a transaction must not hold its locks: another replica waits for them. It may be
# frozen between two statements, or while it receives a large answer, of which the server then cannot send the rest. To
# compile a search takes longer than the search. While a table is filled, PostgreSQL has no statistics of it, and would
# read all of it for each batch.
_LIMITS = "-c lock_timeout=20s -c idle_in_transaction_session_timeout=10s -c tcp_user_timeout=10s"
_PLANS = "-c jit=off -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
_ALL_PLANS = "; ".join(f"SET LOCAL enable_{each} = on" for each in ("seqscan", "hashjoin", "mergejoin"))
"""For queries of whole tables."""
_SESSION = f"-c timezone=UTC {_LIMITS} {_PLANS}"

# A batch of a follower changes more than the 1,000 pages after which SQLite would write all of them to the file.
_PRAGMAS = (
    "journal_mode = WAL",
    "wal_autocheckpoint = 16000",
    "cache_size = -65536",
    "foreign_keys = ON",
    # A crash of the machine may undo the latest transactions, never a part of one: see ``positions.note_boot``.
    "synchronous = NORMAL",
)
_WRITES, _LASTS = "taskbridge_writes", "taskbridge_lasts"
_PURGED_ROWS, _PURGE_S = 5_000, 3600.0
_SAMPLED_ROWS = 400
"""Of each index, as SQLite recommends."""
_QUOTE = '", "'
_TRANSACTION_TIMEOUT_SINCE = (17,)
"""The first PostgreSQL that ends a transaction after a time."""
_TYPES = {bool: "boolean", int: "bigint", str: "text", bytes: "bytea"}
"""PostgreSQL's, for the columns of ``Upsert``."""
_DAMAGED = (11, 26)  # SQLITE_CORRUPT, SQLITE_NOTADB
_CONFLICTS = ("40001", "40P01", "55P03")
"""PostgreSQL: serialization failure, deadlock, lock timeout."""
_TOO_LARGE = "54000"
"""PostgreSQL: an index row above its limit."""
_BUSY = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED


def clean(text: str) -> str:
    """As texts are stored and queried: without U+0000."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class DatabaseUnavailable(OperatorError):
    """The database does not answer, or refuses: the request can be repeated later."""

    is_conflict = False
    """Whether another transaction was in the way, so that the same one may succeed at once."""


class DatabaseDamaged(DatabaseUnavailable):
    """The SQLite file cannot be read."""


def in_key_order(table: Table, where: ColumnElement[bool]) -> ColumnElement[bool]:
    """For DELETE or UPDATE of several rows: locks them in the order of their keys, as every transaction does."""
    key = table.primary_key.columns
    found = select(*key).where(where).order_by(*key).with_for_update().cte(nesting=True)
    return tuple_(*key).in_(select(found))


class Upsert:
    """A statement that inserts rows of these columns, or of all, and replaces those whose key is there.

    With ``only_new``, rows that are there stay as they are; with ``only_lock`` too, and they are locked.
    """

    def __init__(
        self,
        table: Table,
        columns: Sequence[str] = (),
        *,
        key: Sequence[str] = (),
        only_new: bool = False,
        only_lock: bool = False,
    ) -> None:
        columns = columns or [each.name for each in table.columns]
        key = key or [each.name for each in table.primary_key.columns]
        new = table.name if only_lock else "excluded"
        changes = ", ".join(f'"{each}" = {new}."{each}"' for each in columns if each not in key)
        head = f'INSERT INTO {table.name} ("{_QUOTE.join(columns)}")'
        tail = f'ON CONFLICT ("{_QUOTE.join(key)}") DO {"NOTHING" if only_new else f"UPDATE SET {changes}"}'
        lists = ", ".join(f"%b::{_TYPES[table.c[each].type.python_type]}[]" for each in columns)
        self.sqlite = f"{head} VALUES ({', '.join('?' * len(columns))}) {tail}"
        self.postgresql = f"{head} SELECT * FROM unnest({lists}) {tail}"  # noqa: S608 - names of ours


class Database:
    """One engine. Every method blocks; connections are pooled and belong to one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer at a time, and wakes a waiting one late: threads of this process wait here instead.
        self._turn = threading.Lock() if self.is_sqlite else nullcontext()
        # In PostgreSQL, a query alone needs no transaction, which would cost two more requests.
        self._reading = engine if self.is_sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writing = engine.execution_options(**{_WRITES: True})
        self._lasting = engine.execution_options(**{_WRITES: True, _LASTS: True})

    @contextmanager
    def read(self) -> Generator[Connection]:
        """A connection for queries, which see one state of the database in SQLite. Raises DatabaseUnavailable."""
        with self._explained(), self._reading.connect() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Generator[Connection]:
        """As ``read``, for minutes: all queries see one state of either database, and their rows are streamed."""
        with self._explained(), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
                connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = 0; {_ALL_PLANS}")
            yield connection.execution_options(yield_per=1000)

    @contextmanager
    def write(self, *, durable: bool = False, within_s: int | None = None) -> Generator[Connection]:
        """A transaction, committed at the end of the block and rolled back where it raises.

        ``durable``: in SQLite too, it survives a crash of the machine. ``within_s``: PostgreSQL 17 ends it after this
        time, for what sends many rows at once: no other limit ends that of a process which is frozen while it sends.

        Raises:
            DatabaseUnavailable: Nothing was written, as far as is known: a lost connection hides the end of a commit.
            IntegrityError, DataError: The rows are wrong, and nothing was written.
        """
        with self._explained(), self._turn, (self._lasting if durable else self._writing).begin() as connection:
            version = connection.dialect.server_version_info or ()
            if within_s is not None and not self.is_sqlite and version >= _TRANSACTION_TIMEOUT_SINCE:
                connection.exec_driver_sql(f"SET LOCAL transaction_timeout = '{within_s}s'")
            yield connection

    def insert(self, table: Table) -> Any:
        """``INSERT`` with ``on_conflict_do_update``, which both databases have under the same names."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def lock(self, connection: Connection, key: int) -> None:
        """Have a lock until the transaction ends, after waiting for others. SQLite has one writer anyway."""
        if not self.is_sqlite:
            connection.execute(select(func.pg_advisory_xact_lock(key)))

    def put(self, connection: Connection, upsert: Upsert, rows: Sequence[Sequence[Any]]) -> None:
        """Insert all rows, or update those that are there. A key may occur once.

        PostgreSQL gets a list for each column: one statement for all rows, sent and planned once.
        """
        if rows and self.is_sqlite:
            connection.exec_driver_sql(upsert.sqlite, list(map(tuple, rows)))
        elif rows:
            connection.exec_driver_sql(upsert.postgresql, tuple(map(list, zip(*rows, strict=True))))

    def among(self, column: ColumnElement[str] | ColumnElement[int]) -> ColumnElement[bool]:
        """Whether the value is one of those in the parameter ``keys``: what the method ``keys`` makes of them."""
        if self.is_sqlite:
            return column.in_(select(func.json_each(bindparam("keys")).table_valued("value").c.value))
        kind = String if column.type.python_type is str else BigInteger
        return column == func.any(cast(bindparam("keys"), postgresql.ARRAY(kind)))

    def keys(self, values: Iterable[str] | Iterable[int]) -> dict[str, Any]:
        """The parameter of ``among``: one, however many there are, so that its statement is built once."""
        return {"keys": msgspec.json.encode(list(values)).decode() if self.is_sqlite else list(values)}

    def purge(self, table: Table, where: ColumnElement[bool]) -> int:
        """Delete these rows; returns how many. Each transaction is small, so that other writers wait for a moment only.

        Raises DatabaseUnavailable: the rest is left for the next time.
        """
        key = table.primary_key.columns
        # It waits for no other transaction while it has locks: rows that another one has are for the next time. The
        # rows are chosen once, which SQL promises of a CTE alone.
        found = select(*key).where(where).limit(_PURGED_ROWS).with_for_update(skip_locked=True, of=table)
        some = delete(table).where(tuple_(*key).in_(select(found.cte(nesting=True))))
        total = 0
        while True:
            with self.write() as connection:
                count = connection.execute(some).rowcount
            total += count
            if count < _PURGED_ROWS:
                return total

    def analyze(self, connection: Connection, tables: Iterable[Table]) -> None:
        """Update the planner's statistics of these tables from a sample of their rows, which takes moments."""
        if self.is_sqlite:
            connection.exec_driver_sql(f"PRAGMA analysis_limit = {_SAMPLED_ROWS}")
            for each in tables:
                connection.exec_driver_sql(f"ANALYZE {each.name}")
        else:
            connection.exec_driver_sql(f"ANALYZE {', '.join(each.name for each in tables)}")

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except (IntegrityError, DataError):
            raise
        except (DBAPIError, PoolExhausted) as error:
            cause = getattr(error, "orig", None)
            if cause is not None and getattr(cause, "sqlstate", None) == _TOO_LARGE:
                raise DataError(None, None, cause) from error
            raise self._explanation(error) from error

    def _explanation(self, error: SQLAlchemyError) -> DatabaseUnavailable:
        cause = getattr(error, "orig", None) or error
        line = str(cause).partition("\n")[0]
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            return DatabaseDamaged(
                f"the database {self.engine.url.database} is damaged ({line}). Of the task center: stop it and run"
                " 'taskbridge center --rebuild', which sets the file aside and reads the topics again"
            )
        # The query may have a password too.
        url = self.engine.url.set(query={})
        where = url.database if self.is_sqlite else url.render_as_string(hide_password=True)
        found = DatabaseUnavailable(f"the database {where}: {line}")
        found.is_conflict = code in _BUSY or getattr(cause, "sqlstate", None) in _CONFLICTS
        return found


_caller: ContextVar[str] = ContextVar("caller", default="")


@contextmanager
def working_for(caller: str) -> Generator[None]:
    """What runs in threads within the block is the work of this caller."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


class Threads:
    """Runs what blocks in a few threads: more would only wait for the interpreter's lock and the database.

    A caller has less than half of them, and one for searches while others are at work: two who search as fast as they
    can leave threads, and the interpreter's lock, to a third, and to their own short queries. What writes has threads
    of its own, as many as can write at once: no query waits for those who wait to write.
    """

    def __init__(self, count: int, *, writers: int = 1, answer_s: float | None = None) -> None:
        """``answer_s``: how long a caller waits at most, so that a frozen database does not hold every client."""
        self._readers, self._writers = _Pool(count, "query"), _Pool(writers, "write")
        self._answer_s = answer_s

    async def run(self, function: Callable[..., T], *arguments: object, is_search: bool = False) -> T:
        """What the function returns or raises; DatabaseUnavailable if it has not returned in time."""
        return await self._within(self._readers.run(function, *arguments, is_search=is_search))

    async def write(self, function: Callable[..., T], *arguments: object) -> T:
        """As ``run``, for what writes. What has not returned in time may still be written."""
        return await self._within(self._writers.run(function, *arguments))

    async def _within(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(self._answer_s):
                return await work
        except TimeoutError as error:
            raise DatabaseUnavailable(f"the database gave no answer within {self._answer_s} s") from error

    def close(self, *, wait: bool = False) -> None:
        """With ``wait``, return once no function runs any more."""
        for each in (self._readers, self._writers):
            each.threads.shutdown(wait=wait, cancel_futures=True)


class _Pool:
    def __init__(self, count: int, name: str) -> None:
        self.threads = ThreadPoolExecutor(count, name)
        self._turns = PerSource(lambda: asyncio.Semaphore(max(1, (count - 1) // 2)))
        self._searches = PerSource(lambda: asyncio.Semaphore(1))
        self._at_work: list[str] = []
        """The caller of each function that has not ended."""

    async def run(self, function: Callable[..., T], *arguments: object, is_search: bool = False) -> T:
        if not (caller := _caller.get()):
            return await asyncio.wrap_future(self.threads.submit(function, *arguments))
        turns, loop = [self._turns.of(caller)], asyncio.get_running_loop()
        if is_search and (not (one := self._searches.of(caller)).locked() or {*self._at_work} - {caller}):
            turns.insert(0, one)
        with ExitStack() as taken:
            for each in turns:
                await each.acquire()
                taken.callback(each.release)
            work = self.threads.submit(function, *arguments)
            self._at_work.append(caller)
            taken.callback(self._at_work.remove, caller)
            give_back = taken.pop_all().close

        def over(_work: Future[T]) -> None:
            with suppress(RuntimeError):  # the loop may have ended
                loop.call_soon_threadsafe(give_back)

        # Nobody may wait for the result any more: only the end of the work frees the thread.
        work.add_done_callback(over)
        return await asyncio.wrap_future(work)


async def purge_hourly(purge: Callable[[], object]) -> None:
    """Purge once an hour, until cancelled. What a purge leaves that fails is for the next time.

    Not in a thread of ``Threads``: a purge is many transactions, between which others write.
    """
    while True:
        try:
            await asyncio.to_thread(purge)
        except DatabaseUnavailable as error:
            log.warning("old_rows_not_deleted", problem=str(error))
        except Exception:
            # The service would end, and after its restart again.
            log.exception("old_rows_not_deleted")
        await asyncio.sleep(_PURGE_S)


@contextmanager
def database_of(service: str, settings: DatabaseSettings, *, alone: bool = True) -> Generator[Database]:
    """The database of the settings; with ``alone``, no other process may use the SQLite file: ConfigurationError."""
    url, folder = settings.database_url, settings.data_dir
    with ExitStack() as stack:
        if url is None and alone:
            prefix = service.upper()
            stack.enter_context(only_one_in(folder, f"{service}.lock", setting=f"{prefix}_DATA_DIR"))
        given = None if url is None else url.get_secret_value()
        yield stack.enter_context(closing(open_database(given, folder, service=service)))


def open_database(url: str | None, data_dir: Path, *, service: str = "center") -> Database:
    """The database at ``url``; without one, the service's SQLite file in ``data_dir``. Connects at the first use.

    Raises ConfigurationError if the URL is not PostgreSQL's, or the folder cannot be created.
    """
    if url is None:
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{service.upper()}_DATA_DIR={data_dir} cannot be created: {error.strerror}"
            ) from error
        return _sqlite(data_dir / f"{service}.db")
    if (parsed := _parsed(url)) is None or parsed.drivername not in _POSTGRESQL:
        raise ConfigurationError(
            f"{service.upper()}_DATABASE_URL must be postgresql://user:password@host:port/database"
        )
    return _postgresql(parsed, _SESSION)


def open_target(url: str | Path, *, schema: str) -> Database:
    """A database of the customer's: the schema of a PostgreSQL, or a SQLite file. Connects at the first use.

    Raises:
        ConfigurationError: The URL is of no such database.
    """
    if isinstance(url, Path):
        return _sqlite(url)
    parsed = _parsed(url)
    if parsed is not None and parsed.drivername == "sqlite" and parsed.database:
        return _sqlite(Path(parsed.database))
    if parsed is None or parsed.drivername not in _POSTGRESQL:
        raise ConfigurationError("the target must be postgresql://user:password@host:port/database or sqlite:///FILE")
    return _postgresql(parsed, f"{_SESSION} -c search_path={schema}")


def _parsed(url: str) -> URL | None:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        return None  # the message may show the password


def _sqlite(path: Path) -> Database:
    session = {"timeout": _BUSY_S}
    # A path may have what means something in a URL.
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url, connect_args=session, hide_parameters=True, **_POOL)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return Database(engine)


def _postgresql(url: URL, options: str) -> Database:
    # Without a driver in the URL, SQLAlchemy would look for psycopg2.
    url = url.set(drivername="postgresql+psycopg")
    session = {"options": options, **_REACHABLE}
    return Database(create_engine(url, connect_args=session, pool_pre_ping=True, hide_parameters=True, **_POOL))


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # Transactions are begun by us: the driver would begin them late, and not for reads.
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and then writes would fail where another one wrote in between.
    options = connection.get_execution_options()
    writes = options.get(_WRITES)
    if writes:
        connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if options.get(_LASTS) else 'NORMAL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
