"""Errors of databases: what is repeated, what is explained, and what is never shown."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import DataError, IntegrityError

from taskbridge.center.migrations import FOLDER
from taskbridge.center.tables import people
from taskbridge.runtime.database import DatabaseDamaged, DatabaseUnavailable, Upsert, open_database
from taskbridge.runtime.follow.tables import skipped
from taskbridge.runtime.migrations import migrate
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from support.center import Databases
    from taskbridge.runtime.database import Database

PUT = Upsert(people)


def person(user_id: str, name: str | None = "Ann") -> tuple[object, ...]:
    return ("c", user_id, 0, name, None, "")


def names(database: Database) -> dict[str, str | None]:
    with database.read() as connection:
        return {each.user_id: each.name for each in connection.execute(select(people))}


def test_an_upsert_inserts_and_replaces(database: Database) -> None:
    with database.write() as connection:
        database.put(connection, PUT, [])
        database.put(connection, PUT, [person("ann"), person("bob", None)])
        database.put(connection, PUT, [person("ann", "Anna"), person("cai")])
    assert names(database) == {"ann": "Anna", "bob": None, "cai": "Ann"}


def test_wrong_rows_are_not_an_outage(database: Database) -> None:
    def add_twice() -> None:
        with database.write() as connection:
            for _ in range(2):
                connection.execute(insert(people).values(corp_id="c", user_id="u", partition=0, search=""))

    with pytest.raises(IntegrityError):
        add_twice()


def test_a_row_that_is_too_large_for_an_index_is_not_an_outage(databases: Databases) -> None:
    database = databases.new("postgresql")

    def add() -> None:
        with database.write() as connection:
            topic = "".join(map(chr, range(0x4E00, 0x4E00 + 4_000)))
            values = {"topic": topic, "partition": 0, "offset": 0, "key": "", "reason": "", "at": 0}
            connection.execute(insert(skipped).values(values))

    with pytest.raises(DataError):
        add()


def test_deadlocks_are_conflicts(databases: Databases) -> None:
    database = databases.new("postgresql")
    with database.write() as connection:
        database.put(connection, PUT, [person("ann"), person("bob")])
    both, errors = threading.Barrier(2), list[DatabaseUnavailable]()

    def lock(first: str, then: str) -> None:
        try:
            with database.write() as connection:
                connection.execute(update(people).where(people.c.user_id == first).values(name=first))
                both.wait(30)
                connection.execute(update(people).where(people.c.user_id == then).values(name=first))
        except DatabaseUnavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=lock, args=each) for each in (("ann", "bob"), ("bob", "ann"))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [each.is_conflict for each in errors] == [True]


def test_writers_of_sqlite_that_read_first_wait_for_each_other(databases: Databases) -> None:
    """A transaction that begins as a reader cannot write after another one has: it must begin as a writer."""
    folder = databases.new_url("sqlite")
    replicas = [databases.open(folder) for _ in range(2)]
    with replicas[0].write() as connection:
        replicas[0].put(connection, PUT, [person("ann", "0")])
    failures: list[BaseException] = []

    def count(database: Database) -> None:
        try:
            for _ in range(25):
                with database.write() as connection:
                    before = connection.execute(select(people.c.name)).scalar_one()
                    database.put(connection, PUT, [person("ann", str(int(before or 0) + 1))])
        except BaseException as error:  # noqa: BLE001 - reported below
            failures.append(error)

    threads = [threading.Thread(target=count, args=(each,)) for each in (*replicas, replicas[0])]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    assert names(replicas[0]) == {"ann": "75"}


def test_a_full_disk_rolls_back_and_goes_on_when_there_is_room(sqlite_database: Database) -> None:
    def limit(pages: int) -> None:
        # Of each connection: all are closed, and the next one gets the limit.
        sqlite_database.engine.dispose()
        with sqlite_database.read() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        with sqlite_database.write() as connection:
            sqlite_database.put(connection, PUT, [person("first")])
            sqlite_database.put(connection, PUT, [person(str(number), "x" * 1_000) for number in range(5_000)])

    limit(1)
    with pytest.raises(DatabaseUnavailable, match="full") as caught:
        fill()
    assert not caught.value.is_conflict
    assert names(sqlite_database) == {}
    limit(1 << 30)
    fill()
    assert len(names(sqlite_database)) == 5_001


@pytest.mark.parametrize("how", ["no database", "damaged pages"])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, how: str) -> None:
    database = open_database(None, tmp_path)
    migrate(database, FOLDER)
    with database.write() as connection:
        database.put(connection, PUT, [person(str(number)) for number in range(2_000)])
    database.close()
    path = tmp_path / "center.db"
    content = bytearray(path.read_bytes())
    if how == "no database":
        content[:4096] = b"x" * 4096
    else:
        content[4096:] = b"x" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(DatabaseDamaged, match=r"center\.db is damaged .*taskbridge center --rebuild"):
        names(database)
    database.close()


def test_a_password_is_shown_by_no_error(tmp_path: Path) -> None:
    database = open_database("postgresql://ann:s3cret@127.0.0.1:1/db", tmp_path)
    with pytest.raises(DatabaseUnavailable) as caught, database.read() as connection:
        connection.execute(text("SELECT 1"))
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__!r} {database.engine!r}"
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://ann:s3cret@host/db", "s3cret", "postgresql://ann:s3cret@host:port/db"])
def test_another_url_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match="CENTER_DATABASE_URL") as caught:
        open_database(url, tmp_path)
    assert "s3cret" not in str(caught.value)


_FROZEN_WHILE_SENDING_S = 5
"""The limit of that transaction in the test. The other limits are those of every connection."""


@pytest.mark.timeout(120)
def test_a_process_that_is_frozen_in_a_transaction_does_not_keep_its_locks(databases: Databases) -> None:
    """Frozen between two statements, while it receives, and while it sends: the other replica gets each row."""
    url = databases.new_url("postgresql")
    holder, other = databases.open(url), databases.open(url)
    frozen = "between statements", "receiving", "sending"
    many = [person(f"many-{number:06}", "x" * 1000) for number in range(20_000)]
    with holder.write() as connection:
        holder.put(connection, PUT, [*map(person, frozen), *many])

    def rename(user_id: str) -> None:
        with other.write() as connection:
            other.put(connection, PUT, [person(user_id, "renamed")])

    with ExitStack() as ending:
        for each in frozen:
            limit = _FROZEN_WHILE_SENDING_S if each == "sending" else None
            ending.enter_context(pytest.raises(DatabaseUnavailable))
            connection = ending.enter_context(holder.write(within_s=limit))
            holder.put(connection, PUT, [person(each, "locked")])
            client: Any = connection.connection.driver_connection
            if each == "receiving":
                client.pgconn.send_query(b"SELECT * FROM people")
            if each == "sending":
                # The server has executed it, and waits for what follows.
                client.pgconn.enter_pipeline_mode()
                client.pgconn.send_query_params(b"SELECT 1", [])
                client.pgconn.send_flush_request()
                client.pgconn.flush()
        with ThreadPoolExecutor() as threads:
            list(threads.map(rename, frozen))
    assert {names(other)[each] for each in frozen} == {"renamed"}
