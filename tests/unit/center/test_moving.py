"""What people entered moves from SQLite to PostgreSQL, whole or not at all, and sessions end by a command."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select
from typer.testing import CliRunner

from support.center_rows import entry_row
from taskbridge.center import moving
from taskbridge.center.access.audit import Audit, AuditQuery, append, verify
from taskbridge.center.access.sessions import Sessions
from taskbridge.center.moving import OWN
from taskbridge.center.tables import audit, entries, metadata, preferences, push_devices, sessions
from taskbridge.cli.program import app as program
from taskbridge.runtime.database import Threads

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from support.center import Databases
    from taskbridge.runtime.database import Database

ANN = "corp", "ann"


def filled(table: Any, number: int) -> dict[str, Any]:
    """A row with other values than those of another number, and nulls where they may be."""
    values = {int: number, str: f"{table.name} {number} ü", bytes: b'{"a": %d}' % number}
    given = {
        each.name: None if each.nullable and number % 2 else values[each.type.python_type] for each in table.columns
    }
    # A device is a session's.
    return given | ({"token_sha256": filled(sessions, number)["token_sha256"]} if table is push_devices else {})


def rows_of(database: Database) -> dict[str, list[Any]]:
    with database.read() as connection:
        return {each.name: sorted(map(repr, connection.execute(select(each)))) for each in OWN}


@pytest.fixture
def old(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Generator[tuple[Database, Path]]:
    """A database of SQLite in which every table has rows, more than are copied at once."""
    monkeypatch.setattr(moving, "_AT_ONCE", 3)
    folder = databases.new_url("sqlite")
    assert not isinstance(folder, str)
    database = databases.open(folder)
    with database.write() as connection:
        for table in OWN:
            if table is not audit:
                connection.execute(insert(table), [filled(table, each) for each in range(1, 9)])
        for number in range(8):
            append(connection, database, ("corp", f"u{number % 3}"), "act", f"{number}")
        connection.execute(insert(entries).values(entry_row()))
    yield database, folder
    database.close()


@pytest.fixture
def target(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Database:
    url = databases.new_url("postgresql")
    assert isinstance(url, str)
    monkeypatch.setenv("CENTER_DATABASE_URL", url)
    return databases.open(url)


def run(*argv: str | Path) -> Any:
    return CliRunner().invoke(program, ["center", *map(str, argv)])


def test_all_that_people_entered_is_copied_and_the_audit_trail_goes_on(
    old: tuple[Database, Path], target: Database
) -> None:
    source, folder = old
    before = rows_of(source)
    done = run("--copy-from", folder, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "rows": {each.name: len(before[each.name]) for each in OWN},
        **json.loads(run("--verify-audit", "--json").stdout),
    }
    assert before == rows_of(source) == rows_of(target)
    assert all(before.values())
    assert verify(target) == (8, None)
    with target.write() as connection:
        # Lists fill from the topics.
        assert connection.execute(select(entries)).all() == []
        assert append(connection, target, ANN, "act").seq == 9
    assert verify(target) == (9, None)


def test_tables_of_what_people_entered_are_told_from_what_follows_topics() -> None:
    assert {each.name for each in metadata.sorted_tables} - {each.name for each in OWN} == {
        *("instances", "entries", "changes", "change_counters", "events", "people", "person_ids", "forms"),
        *("set_aside", "sign_ins", "replicas", "day_calls", "start_lists", "proposals"),
    }


def test_a_database_with_anything_that_people_entered_is_refused_and_stays(
    old: tuple[Database, Path], target: Database
) -> None:
    with target.write() as connection:
        connection.execute(insert(preferences).values(filled(preferences, 70)))
    before = rows_of(target)
    done = run("--copy-from", old[1])
    assert done.exit_code == 1
    assert "has rows in preferences already, and nothing was copied" in str(done.exception)
    assert rows_of(target) == before


def test_a_copy_that_fails_leaves_nothing(
    old: tuple[Database, Path], target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "OWN", (*OWN, entries))
    with target.write() as connection:
        connection.execute(insert(entries).values(entry_row()))
    assert run("--copy-from", old[1]).exit_code == 1
    assert [name for name, rows in rows_of(target).items() if rows] == []


def test_sessions_of_one_person_end_and_the_audit_trail_says_so(
    databases: Databases, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = databases.new_url(dialect)
    monkeypatch.setenv(f"CENTER_{'DATABASE_URL' if isinstance(where, str) else 'DATA_DIR'}", str(where))
    database, threads = databases.open(where), Threads(1)
    its = Sessions(database, threads, idle_s=60, longest_s=60)

    async def signed_in() -> list[str]:
        people = [ANN, ANN, ("other", "ann"), ("corp", "bob")]
        return [(await its.open(each, (), instead_of=None))[0] for each in people]

    async def found() -> list[bool]:
        return [await its.find(each) is not None for each in tokens]

    tokens = asyncio.run(signed_in())
    assert run("--end-sessions", "corp/ann").output.startswith("Sessions of corp/ann that have ended: 2. Entry 1 of")
    assert asyncio.run(found()) == [False, False, True, True]
    for nobody in ("corp/ann", "corp/nobody"):
        assert json.loads(run("--end-sessions", nobody, "--json").stdout) == {"ended": 0}
    shown = asyncio.run(Audit(database, threads).page(AuditQuery(10)))
    assert [(each["action"], each["actor"], each["subject"]) for each in shown] == [("sessions_ended", "", "corp/ann")]
    assert run("--end-sessions", "ann").exit_code == 2
    threads.close()
