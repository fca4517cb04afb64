"""``people erase`` on a database of each kind, with and without Kafka."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from support.center import databases, dialect
from support.center_rows import AnsweringCenter
from taskbridge.center.access.access import Access, Caller
from taskbridge.center.access.audit import Audit, verify
from taskbridge.center.erasure import Erasure
from taskbridge.cli import erasure as module
from taskbridge.cli.connection import Connection
from taskbridge.cli.program import app
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.events import PersonRecord
from taskbridge.schemas.testing import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typer.testing import Result

    from support.center import Databases
    from taskbridge.runtime.database import Database

__all__ = ["databases", "dialect"]

ANN = ("ding1", "ann")
DAY_MS = 86_400_000
SETTINGS = {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS), "segment.ms": str(7 * DAY_MS)}


class Kafka:
    """The people topic; ``problem`` where it does not answer."""

    def __init__(self) -> None:
        self.people: set[str] = set()
        self.written: list[bytes] = []
        self.problem: Exception | None = None
        self.refuses: Exception | None = None

    def read(self, *_: object, **__: object) -> Any:
        if self.problem is not None:
            raise self.problem
        return [
            SimpleNamespace(key=partial(str.encode, key), value=lambda: b"x", headers=lambda: None)
            for key in self.people
        ]

    def write(self, _connection: object, _target: object, plan: Any, *_: object) -> None:
        if self.refuses is not None:
            raise self.refuses
        assert set(plan.records.values()) == {None}
        self.written += plan.records
        for each in plan.records:
            self.people.discard(each.decode())


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    found = Kafka()
    found.people.add("/".join(ANN))
    monkeypatch.setattr(Connection, "read_to_end", found.read)
    monkeypatch.setattr(Connection, "registry", FakeRegistry())
    monkeypatch.setattr(Connection, "admin", Mock())
    monkeypatch.setattr("taskbridge.cli.topic_update.carry_out", found.write)
    monkeypatch.setattr("taskbridge.runtime.topic_admin.describe_topics", described)
    return found


def described(_admin: object, names: Iterable[str]) -> dict[str, Any]:
    return dict.fromkeys(names, (SETTINGS, None))


@pytest.fixture
def database(databases: Databases, dialect: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Database:
    """With Ann in it, open in another process as well: this one."""
    where = databases.new_url(dialect)
    monkeypatch.setenv("CENTER_DATA_DIR", str(where) if isinstance(where, Path) else str(tmp_path))
    if isinstance(where, str):
        monkeypatch.setenv("CENTER_DATABASE_URL", where)
    found = databases.open(where)
    rows = AnsweringCenter(found, Access(tokens=None))
    rows.know("ding1", PersonRecord("ann", "Ann"))
    asyncio.run(Audit(found, rows.threads).add(Caller("sso", corp_id="ding1", user_id="ann"), "act", address=""))
    rows.close()
    return found


def erase(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, ["people", "erase", *arguments, "--corp", "ding1"], input=answer)


def test_a_person_is_erased_after_a_confirmation(database: Database, kafka: Kafka) -> None:
    refused = erase("ann", answer="n\n")
    assert (refused.exit_code, "Erased" in refused.stdout) == (1, False)
    assert "ding1/ann: 1 in people, 1 in pseudonyms will be deleted. This cannot be undone." in refused.stderr
    assert Erasure(database).find(ANN) is not None
    assert kafka.written == []

    done = erase("ann", answer="y\n")
    assert done.exit_code == 0, done.output
    assert "Erased ding1/ann from the task center's database: 1 in people, 1 in pseudonyms." in done.stdout
    assert "Entries of the audit trail that have only a pseudonym now: 1." in done.stdout
    assert "taskbridge.task-events.v1" in done.stdout
    assert kafka.written == [b"ding1/ann"]
    assert Erasure(database).find(ANN) is None
    assert verify(database) == (2, None)

    again = erase("ann", "--yes")
    assert again.exit_code == 1
    assert str(again.exception) == (
        "ding1/ann is unknown: neither the task center's database nor the people topic has it"
    )
    assert verify(database) == (2, None)


def test_a_tombstone_is_written_also_without_a_record(database: Database, kafka: Kafka) -> None:
    """Reconcile reads it, and does not read the person's name from DingTalk."""
    kafka.people.clear()
    found = json.loads(erase("ann", "--yes", "--json").stdout)
    assert (found["people_topic"], kafka.written) == ("absent", [b"ding1/ann"])
    assert Erasure(database).find(ANN) is None


def test_without_kafka_the_database_is_erased_and_the_next_run_does_the_rest(database: Database, kafka: Kafka) -> None:
    kafka.problem = OperatorError("no answer from Kafka")
    found = erase("ann", "--yes")
    assert found.exit_code == 1
    assert "Erased ding1/ann" in found.stdout
    assert "run the command again when Kafka answers (no answer from Kafka)" in str(found.exception)
    assert Erasure(database).find(ANN) is None
    found = erase("ann", "--yes")
    assert "is unknown" in str(found.exception)
    assert "the people topic could not be read: no answer from Kafka" in str(found.exception)

    kafka.problem, kafka.refuses = None, OperatorError("not allowed")
    found = erase("ann", "--yes", "--json")
    assert (found.exit_code, json.loads(found.stdout)["people_topic"]) == (1, "unknown")
    kafka.refuses = None
    assert erase("ann", "--yes").exit_code == 0
    assert kafka.written == [b"ding1/ann"]


@pytest.mark.usefixtures("kafka")
def test_wrong_usage_and_a_wrong_folder_erase_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliRunner().invoke(app, ["people", "erase", "ann"]).exit_code == 2
    assert CliRunner().invoke(app, ["people", "erase", "ann", "--corp", "a/b"]).exit_code == 2
    monkeypatch.setenv("CENTER_DATA_DIR", str(tmp_path / "elsewhere"))
    found = erase("ann", "--yes")
    assert isinstance(found.exception, ConfigurationError)
    assert "elsewhere has no database" in str(found.exception)
    assert not (tmp_path / "elsewhere").exists()


_WEEK_FILES = "until 2027-01-06 (kept 30 days, in files of up to 7 days)"


@pytest.mark.parametrize(
    ("topic", "changed", "text"),
    [
        ("events", {}, _WEEK_FILES),
        ("events", {"segment.ms": "43200000"}, "until 2026-12-31 (kept 30 days, in files of up to 0.5 days)"),
        ("events", {"retention.ms": "-1"}, "for ever: its retention.ms is -1"),
        ("taskbridge.task-states.v1", {"cleanup.policy": "compact"}, "as long as their instances exist"),
        (
            "taskbridge.form-data.v1",
            {"cleanup.policy": "compact"},
            "as long as their instances exist, or for keep_days of the apps file: erase the values in the app",
        ),
        ("taskbridge.people.v1", {"cleanup.policy": "compact,delete"}, _WEEK_FILES),
        ("other", {"cleanup.policy": "compact"}, "until Kafka compacts the topic"),
    ],
)
def test_what_stays_is_dated_by_the_topics_settings(topic: str, changed: dict[str, str], text: str) -> None:
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    assert module.left_on(topic, SETTINGS | changed, None, now=now).text == text
    assert module.left_on(topic, None, "not allowed", now=now).text == "not allowed"
