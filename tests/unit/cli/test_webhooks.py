"""The commands of webhooks, on a database, while the service may run."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from taskbridge.cli.program import app
from taskbridge.runtime.database import open_database
from taskbridge.runtime.migrations import migrate
from taskbridge.webhooks import store
from taskbridge.webhooks.migrations import FOLDER
from taskbridge.webhooks.store import New
from taskbridge.webhooks.tables import Outcome, deliveries

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

NIGHT_MS = int(datetime(2026, 8, 31, 16, 30, tzinfo=UTC).timestamp() * 1000)
"""00:30 of 1 September in China."""
NOBODY = "127.0.0.1:9"
LIST, SHOW = ("list", "deliveries", "--endpoint", "erp"), ("show", "deliveries", "1")


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a service with one endpoint, of which one delivery was given up in the night of 1 September."""
    endpoints = tmp_path / "endpoints.toml"
    secrets = f'secrets = ["whsec_{"c2VjcmV0" * 6}"]\n'
    endpoints.write_text(f'[[endpoints]]\nname = "erp"\nurl = "https://erp.example"\ncorps = ["c"]\n{secrets}')
    for name, value in {
        "WEBHOOKS_ENDPOINTS_FILE": str(endpoints),
        "WEBHOOKS_DATA_DIR": str(tmp_path / "webhooks"),
        "WEBHOOKS_KAFKA_BOOTSTRAP_SERVERS": NOBODY,
        "WEBHOOKS_SCHEMA_REGISTRY_URL": f"http://{NOBODY}",
    }.items():
        monkeypatch.setenv(name, value)
    with closing(open_database(None, tmp_path / "webhooks", service="webhooks")) as database:
        migrate(database, FOLDER)
        store.register(database, {"erp": False})
        with database.write() as connection:
            store.add(
                database, connection, [New("erp", "a", "a1", b'{"data": {"view": "pending", "change": "ADDED"}}')]
            )
            connection.execute(update(deliveries).values(at=NIGHT_MS, outcome=Outcome.GIVEN_UP))
    return tmp_path


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(app, ["webhooks", *arguments])
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.parametrize(
    ("since", "count"), [("2026-09-01", 1), ("2026-09-01T00:31", 0), ("2026-08-31T16:30:00Z", 1), ("2026-09-02", 0)]
)
@pytest.mark.usefixtures("given")
def test_deliveries_since_a_day_in_china_are_replayed(since: str, count: int) -> None:
    done = run("replay", "erp", "--since", since, "--json")
    assert json.loads(done.stdout) == {"id": "erp", "replayed": count, "waiting": 0, "overtaken": 0, "unknown": 0}


@pytest.mark.usefixtures("given")
def test_a_replay_says_what_became_of_each_delivery() -> None:
    assert "1 deliveries of erp wait again" in run("replay", "erp", "1", "4711").output
    said = run("replay", "erp", "1", "4711").output
    assert "1 were waiting, and are due now" in said
    assert "1 are unknown" in said


def test_with_an_invalid_file_the_endpoints_of_the_database_are_listed_and_changed(given: Path) -> None:
    (given / "endpoints.toml").write_text("[[endpoint]]\n")

    found = run("list")
    assert "endpoint: no such key" in found.output
    assert "erp" in found.output
    assert "0 waiting; 1 given up" in found.output
    run("replay", "erp", "1")
    run("disable", "erp", "--reason", "moves")
    assert "disabled: moves" in run("list").output
    run("enable", "erp")
    assert CliRunner().invoke(app, ["webhooks", "disable", "other"]).exit_code != 0


def test_what_was_given_up_is_listed_and_shown(given: Path) -> None:
    del given
    listed, shown = (CliRunner().invoke(app, ["set-aside", *verb, "--json"]) for verb in (LIST, SHOW))
    assert json.loads(listed.stdout) == json.loads(shown.stdout)
    assert json.loads(shown.stdout)["outcome"] == "given_up"


def test_the_newest_deliveries_with_a_reason_are_listed(given: Path) -> None:
    with (
        closing(open_database(None, given / "webhooks", service="webhooks")) as database,
        database.write() as connection,
    ):
        data = b'{"data": {"view": "pending", "change": "ADDED"}}'
        store.add(database, connection, [New("erp", "b", "b1", data)])
        connection.execute(update(deliveries).values(outcome=Outcome.GIVEN_UP, problem="404"))
        connection.execute(update(deliveries).where(deliveries.c.at == NIGHT_MS).values(problem="timeout"))
    found = CliRunner().invoke(app, ["set-aside", *LIST, "--max", "1", "--reason", "timeout", "--json"])
    assert [json.loads(line)["problem"] for line in found.stdout.splitlines()] == ["timeout"]
