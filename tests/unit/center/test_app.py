"""The program starts, answers without Kafka, refuses a database that it cannot use, and stops on a signal."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, text
from starlette.testclient import TestClient
from typer.testing import CliRunner

from support.center_process import CenterProcess
from support.center_rows import AnsweringCenter, entry_row, fill, state
from taskbridge.center.access.access import Caller
from taskbridge.center.access.audit import Audit
from taskbridge.center.app import Center, migrate, rebuild, run
from taskbridge.center.filling import Filling
from taskbridge.center.settings import CenterSettings
from taskbridge.center.tables import FOLLOWED, entries
from taskbridge.cli.connection import Connection
from taskbridge.cli.program import app as program
from taskbridge.runtime.database import DatabaseUnavailable, Threads, open_database
from taskbridge.runtime.follow.positions import rebuild as drop
from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.topics import PEOPLE, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from support.center import Databases
    from taskbridge.runtime.database import Database


def environment_of(folder: Path, **given: str) -> dict[str, str]:
    needed = {"CENTER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "CENTER_SCHEMA_REGISTRY_URL": "http://127.0.0.1:1"}
    return needed | {"CENTER_DATA_DIR": str(folder), "CENTER_PORT": "0"} | given


@pytest.fixture
def center(tmp_path: Path, sqlite_database: Database) -> Generator[Center]:
    found = Center(load_settings(CenterSettings, environment_of(tmp_path)), sqlite_database)
    yield found
    for each in found.followers:
        each.stop()


def test_it_answers_without_kafka_alone_in_its_folder_and_ends_in_order(tmp_path: Path) -> None:
    process = CenterProcess(tmp_path, Connection("127.0.0.1:1", "http://127.0.0.1:1", {}))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while (answer := process.get("/readyz")) is None:
            assert time.monotonic() < deadline, process.log_path.read_text()
        assert answer.status_code == 503
        found = answer.json()
        assert (found["ready"], found["database"]) == (False, "connected")
        assert found["lists"] == {"complete": False, "filled": 0.0}
        with pytest.raises(ConfigurationError, match="CENTER_DATA_DIR"):
            run(environment_of(process.data_dir))
        assert process.stop() == 0
    finally:
        process.kill()
        process.show_log()


@pytest.mark.usefixtures("dialect")
def test_the_database_is_migrated_on_request_and_an_older_one_is_refused(
    databases: Databases, dialect: str, tmp_path: Path
) -> None:
    where = databases.empty_url(dialect)
    given = {"CENTER_DATABASE_URL": where} if isinstance(where, str) else {"CENTER_DATA_DIR": str(where)}
    environment = environment_of(tmp_path, **given)
    if dialect == "postgresql":
        with pytest.raises(ConfigurationError, match="center --migrate"):
            run(environment)
    first, second = migrate(environment), migrate(environment)
    assert first["from"] is None
    assert first["to"] == second["from"] == second["to"] is not None


def test_the_program_checks_the_audit_trail_and_a_rebuild_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = environment_of(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    migrate(environment)
    database = open_database(None, tmp_path)
    caller = Caller("sso", corp_id="corp", user_id="ann")
    for action in ("signed_in", "signed_out"):
        asyncio.run(Audit(database, Threads(1)).add(caller, action, address="192.0.2.1"))
    rebuild(environment)
    done = CliRunner().invoke(program, ["center", "--verify-audit"])
    assert (done.exit_code, done.output) == (0, "The audit trail is complete: 2 entries.\n")
    done = CliRunner().invoke(program, ["center", "--verify-audit", "--expect", f"3:{'0' * 64}"])
    broken = "of the audit trail is missing, was changed, or follows one that is missing.\n"
    assert (done.exit_code, done.output) == (1, f"Entry 3 {broken}")
    for wrong in (["--expect", f"3:{'0' * 64}"], ["--verify-audit", "--expect", "3"]):
        assert CliRunner().invoke(program, ["center", *wrong]).exit_code == 2
    with database.write() as connection:
        connection.execute(text("UPDATE audit SET actor = 'bob' WHERE seq = 2"))
    database.close()
    done = CliRunner().invoke(program, ["center", "--verify-audit"])
    assert (done.exit_code, done.output) == (1, f"Entry 2 {broken}")


def test_a_rebuild_drops_what_follows_topics_and_sets_a_damaged_file_aside(tmp_path: Path) -> None:
    environment = environment_of(tmp_path)
    migrate(environment)
    database = open_database(None, tmp_path)
    with database.write() as connection:
        connection.execute(insert(entries), [entry_row(), entry_row("I-2")])
    fill(database, TASK_STATES.name, read=5, of=5)
    database.close()
    assert rebuild(environment)["entries"] == 2
    assert rebuild(environment)["entries"] == 0
    path = tmp_path / "center.db"
    path.write_bytes(b"not a database, " * 1000)
    for each in tmp_path.glob("center.db-*"):
        each.unlink()
    assert rebuild(environment)["entries"] == 0
    (aside,) = tmp_path.glob("center.db.damaged-*")
    assert aside.read_bytes().startswith(b"not a database")
    database = open_database(None, tmp_path)
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM positions")).scalar_one() == 0
    database.close()


def test_readiness_shows_how_far_the_lists_are_filled(sqlite_database: Database) -> None:
    threads = Threads(1)
    filling = Filling(sqlite_database, threads)

    async def look() -> dict[str, Any]:
        await filling.look()
        return filling.details()["lists"]

    assert asyncio.run(look()) == {"complete": False, "filled": 0.0}
    assert filling.idle == f"no replica reads {TASK_STATES.name} yet: if this lasts, see whether it exists"
    for read, of, expected in (
        (3, 4, {"complete": False, "filled": 0.75}),
        (4, 4, {"complete": True, "filled": 1.0}),
        (9, 4, {"complete": True, "filled": 1.0}),
        (0, 4, {"complete": False, "filled": 0.0}),
    ):
        fill(sqlite_database, TASK_STATES.name, read=read, of=of)
        assert asyncio.run(look()) == expected
        assert filling.idle is None
    assert not filling.people_complete
    fill(sqlite_database, PEOPLE.name, read=1, of=1)
    asyncio.run(look())
    assert filling.people_complete
    threads.close()


LISTS = "/v1/corps/corp/users/ann"
PATHS = (
    f"{LISTS}/tasks?view=pending",
    f"{LISTS}/tasks?view=pending&q=leave",
    f"{LISTS}/tasks.csv?view=pending",
    f"{LISTS}/marked?view=pending",
    f"{LISTS}/counts",
    f"{LISTS}/apps",
    "/v1/instances/I-1",
    "/v1/instances/I-1/history",
    "/v1/corps",
    "/v1/corps/corp/waiting",
)


def test_lists_are_not_answered_that_were_dropped_since_they_were_last_seen_complete(
    tmp_path: Path, database: Database
) -> None:
    """As long as nothing was looked up again, also where they were filled again meanwhile: with what is not known."""
    center = Center(load_settings(CenterSettings, environment_of(tmp_path)), database)
    rows = AnsweringCenter(database, center.access)
    rows.store(state())
    fill(database, TASK_STATES.name, read=1, of=1)
    with TestClient(center.http(), base_url="http://127.0.0.1") as client:

        def found() -> dict[str, int]:
            return {each: client.get(each).status_code for each in PATHS}

        asyncio.run(center.filling.look())
        assert found() == dict.fromkeys(PATHS, 200)

        drop(database, FOLLOWED)
        assert found() == dict.fromkeys(PATHS, 503)
        assert {client.get(each).headers["retry-after"] for each in PATHS} == {"5"}
        fill(database, TASK_STATES.name, read=1, of=1)
        assert found() == dict.fromkeys(PATHS, 503)

        asyncio.run(center.filling.look())
        assert found() == {each: 404 if "instances" in each else 200 for each in PATHS}
    rows.close()


def test_people_are_not_found_while_they_are_read(center: Center, sqlite_database: Database) -> None:
    with TestClient(center.http(), base_url="http://127.0.0.1") as client:
        for read, status in ((1, 503), (2, 200), (0, 503)):
            fill(sqlite_database, PEOPLE.name, read=read, of=2)
            answer = client.get("/v1/people?q=ann")
            assert (answer.status_code, answer.headers.get("retry-after")) == (status, "5" if status == 503 else None)
            assert (PEOPLE.name in answer.text) == (status == 503)


def test_a_database_that_is_away_is_a_503_and_is_counted(center: Center, sqlite_database: Database) -> None:
    fill(sqlite_database, TASK_STATES.name, read=1, of=1)
    path = "/v1/corps/c/users/u/counts"
    with TestClient(center.http(), base_url="http://127.0.0.1") as client:
        asyncio.run(center.filling.look())
        assert client.get(path).status_code == 200
        assert client.get("/readyz").json()["ready"] is True
        with sqlite_database.write() as connection:
            connection.execute(text("ALTER TABLE entries RENAME TO away"))
            connection.execute(text("ALTER TABLE positions RENAME TO positions_away"))
        answer = client.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["detail"] == "the database does not answer: try again later", "nothing of its error"
        assert "taskbridge_center_database_errors_total 1.0" in client.get("/metrics").text
        asyncio.run(center.filling.look())
        found = client.get("/readyz").json()
        assert (found["ready"], found["database"]) == (False, "unavailable")
        assert any("no such table" in each for each in found["problems"])
        with sqlite_database.write() as connection:
            connection.execute(text("ALTER TABLE away RENAME TO entries"))
            connection.execute(text("ALTER TABLE positions_away RENAME TO positions"))
        assert client.get(path).status_code == 200


async def test_a_database_that_hangs_does_not_hold_clients() -> None:
    threads, answers = Threads(1, answer_s=0.05), threading.Event()
    with pytest.raises(DatabaseUnavailable):
        await threads.run(answers.wait)
    answers.set()
    threads.close()
