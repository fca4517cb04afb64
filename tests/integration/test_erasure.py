"""``people erase`` next to a running task center on real Kafka."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from support import http_clients
from support.center_process import CenterProcess
from support.http_clients import EventStreamClient
from taskbridge.center.access.access import SESSION_COOKIE
from taskbridge.center.access.sessions import Sessions
from taskbridge.center.tables import people
from taskbridge.cli.program import app
from taskbridge.cli.topic_update import PEOPLE_TARGET, fill
from taskbridge.runtime.database import Threads
from taskbridge.schemas.events import PersonRecord, notification_key
from taskbridge.schemas.topics import PEOPLE

if TYPE_CHECKING:
    from collections.abc import Generator

    from support.center import Databases
    from taskbridge.cli.connection import Connection
    from taskbridge.runtime.database import Database

pytestmark = pytest.mark.integration


class Erasing:
    """A center at which people sign in, its database, and the commands of its operator."""

    def __init__(
        self, folder: Path, connection: Connection, where: str | Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.corp = f"ding-{folder.name}"
        self.center = CenterProcess(folder, connection)
        self.center.environment |= {
            "CENTER_PUBLIC_URL": self.center.url,
            "CENTER_OIDC_ISSUER": "http://127.0.0.1:1",
            "CENTER_OIDC_CLIENT_ID": "task-center",
            "CENTER_CORP_ID": self.corp,
            **({"CENTER_DATA_DIR": str(where)} if isinstance(where, Path) else {"CENTER_DATABASE_URL": where}),
        }
        for name, value in self.center.environment.items():
            if name.startswith("CENTER_"):
                monkeypatch.setenv(name, value)


@pytest.fixture
def erasing(
    connection: Connection, databases: Databases, dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[tuple[Erasing, Database]]:
    where = databases.new_url(dialect)
    found = Erasing(tmp_path, connection, where, monkeypatch)
    yield found, databases.open(where)
    found.center.kill()
    found.center.show_log()


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    return json.loads(result.stdout)


def test_a_person_is_erased_while_the_center_runs_and_stays_away_after_a_rebuild(
    erasing: tuple[Erasing, Database], connection: Connection, eventually: Any
) -> None:
    given, database = erasing
    center, corp = given.center, given.corp
    own = {notification_key(corp, each): PersonRecord(each, each.title()) for each in ("ann", "bob")}
    fill(connection, PEOPLE_TARGET, own, lambda _: None)

    def names() -> set[str]:
        with database.read() as rows:
            return set(rows.execute(select(people.c.user_id).where(people.c.corp_id == corp)).scalars())

    center.start()
    eventually(lambda: center.is_ready() and len(names()) == 2, what="the names are read")
    threads = Threads(1)
    sessions = Sessions(database, threads, idle_s=600, longest_s=600)
    token, _ = asyncio.run(sessions.open((corp, "ann"), (), instead_of=None))
    threads.close()
    cookie = {"Cookie": f"{SESSION_COOKIE}={token}"}
    stream = EventStreamClient(f"{center.url}/v1/corps/{corp}/users/ann/events", cookie).open()
    assert stream.status == 200
    assert not stream.ended.is_set()

    began = time.time()
    found = run("people", "erase", "ann", "--corp", corp, "--yes")
    assert found["deleted"]["sessions"] == 1
    assert found["people_topic"] == "deleted"
    until = {each["topic"]: each["until"] for each in found["topics"]}
    assert until["taskbridge.task-events.v1"] > time.strftime("%Y-%m-%d", time.gmtime(began + 30 * 86_400))
    assert until["taskbridge.task-states.v1"] is None
    assert http_clients.get(f"{center.url}/v1/me", headers=cookie).status_code == 401
    assert stream.ended.wait(60)
    assert names() == {"bob"}
    records = connection.read_to_end(PEOPLE.name, progress=lambda _: None)
    assert [each.value() for each in records if each.key() == notification_key(corp, "ann")][-1] is None
    assert run("center", "--verify-audit") == {"entries": 1, "broken": None}

    assert center.stop() == 0
    run("center", "--rebuild")
    assert names() == set()
    center.start()
    eventually(lambda: center.is_ready() and names() == {"bob"}, what="the names are read again")
    assert center.stop() == 0
