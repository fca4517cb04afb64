"""A lost callback is found, published as an event, folded by a worker, and not published again."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from msgspec import structs
from typer.testing import CliRunner

from support import http_clients
from support.streams.lives import produce, read_topic
from support.streams.processes import Worker
from taskbridge.cli.program import app
from taskbridge.local.fake_dingtalk import Company, FakeDingTalk, served
from taskbridge.local.fake_organisation import FakeOrganisation
from taskbridge.local.host import free_port
from taskbridge.runtime.clock import SystemClock
from taskbridge.schemas.cloudevents import headers_of
from taskbridge.schemas.codec import form_data_codec, task_event_codec, task_state_codec
from taskbridge.schemas.events import Action, Person, TaskEvent, View
from taskbridge.schemas.topics import FORM_DATA, TASK_EVENTS, TASK_STATES
from taskbridge.schemas.views import views

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from taskbridge.cli.connection import Connection
    from taskbridge.schemas.events import TaskState

pytestmark = pytest.mark.integration

CORP, APP, LATER_APP = "ding-reconciled", "APP_R1", "APP_R2"
SECRETS = ("the-secret-of-the-corp", "the-token-of-r1", "the-token-of-r2")
HOUR_MS = 3_600_000
NOW = time.time_ns() // 1_000_000


def life(instance_id: str, app_type: str, start_ms: int) -> list[TaskEvent]:
    """It is filed, one person agrees, and another has an open task."""
    common: dict[str, Any] = {
        "source": "yida",
        "corp_id": CORP,
        "app_type": app_type,
        "instance_id": instance_id,
    }
    facts: dict[str, Any] = {"title": instance_id, "originator": Person("u-zhang", "张红")}
    facts |= {"form_uuid": f"FORM-{app_type}", "form_data": {"text_1": f"of {instance_id}"}}
    events: list[dict[str, Any]] = [
        {"action": Action.CREATED, **facts},
        {"action": Action.CREATED, "task_id": f"{instance_id}-1", "recipient_ids": ("u-li",), **facts},
        {"action": Action.COMPLETED, "task_id": f"{instance_id}-1", "actor_id": "u-li"},
        {"action": Action.CREATED, "task_id": f"{instance_id}-2", "recipient_ids": ("u-wang",), **facts},
    ]
    return [
        TaskEvent(
            event_id=f"{instance_id} {at}",
            occurred_at=start_ms + at * 60_000,
            received_at=start_ms + at * 60_000,
            **{**common, **each},
        )
        for at, each in enumerate(events)
    ]


@pytest.fixture
def dingtalk() -> Generator[tuple[Company, str]]:
    company = Company()
    tokens = {APP: SECRETS[1], LATER_APP: SECRETS[2]}
    fake = FakeDingTalk(company, SystemClock(), system_tokens=tokens, app_secret=SECRETS[0])
    with served(fake.app) as url:
        yield company, url


def environment(connection: Connection, folder: Path, url: str) -> dict[str, str]:
    apps = folder / "apps.toml"
    apps.write_text(
        f'[[corps]]\ncorp_id = "{CORP}"\napp_key = "dingfakekey"\napp_secret = "{SECRETS[0]}"\nuser_id = "manager"\n'
        f'corp_token = "{FakeOrganisation.corp_token}"\n'
        f'[[apps]]\napp_type = "{APP}"\nsystem_token = "{SECRETS[1]}"\n'
        f'[[apps]]\napp_type = "{LATER_APP}"\nsystem_token = "{SECRETS[2]}"\n'
    )
    return {
        "RECONCILE_KAFKA_BOOTSTRAP_SERVERS": connection.bootstrap_servers,
        "RECONCILE_SCHEMA_REGISTRY_URL": connection.registry_url,
        "RECONCILE_APPS_FILE": str(apps),
        "RECONCILE_DATA_DIR": str(folder / "reconcile"),
        "RECONCILE_API_URL": url,
        "RECONCILE_LOG_LEVEL": "DEBUG",
        "RECONCILE_FORM_WAIT_SECONDS": "10",
    }


def ran(given: dict[str, str], *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*arguments, "--json"], env=given)
    assert done.exit_code == 0, (done.output, done.exception)
    assert not [each for each in SECRETS if each in done.output]
    return json.loads(done.stdout)


def states(connection: Connection) -> dict[bytes, TaskState]:
    """The latest state of each instance on the topic."""
    decode = task_state_codec(connection.registry).decode
    latest = {each.key(): each.value() for each in read_topic(connection, TASK_STATES.name)}
    return {key or b"": decode(value) for key, value in latest.items() if value is not None}


def form_values(connection: Connection, instance_id: bytes) -> list[tuple[str, Mapping[str, str | None]]]:
    """The cause and the values of each record of this instance."""
    records = [each for each in read_topic(connection, FORM_DATA.name) if each.key() == instance_id]
    assert {dict(headers_of(each))["ce_type"] for each in records} <= {b"taskbridge.form-data.changed.v1"}
    decoded = map(form_data_codec(connection.registry).decode, (each.value() for each in records))
    return [(each.cause, each.data) for each in decoded]


def pending(connection: Connection, user_id: str) -> set[str | None]:
    """The tasks that this person of the corp must decide."""
    return {
        key.task_id
        for state in states(connection).values()
        if state.corp_id == CORP
        for key in views(state)
        if (key.user_id, key.view) == (user_id, View.PENDING)
    }


def import_person(connection: Connection, folder: Path, user_id: str) -> None:
    people = folder / "people.csv"
    people.write_text(f"corp_id,user_id,name\n{CORP},{user_id},李梅\n")
    where = ["--bootstrap-servers", connection.bootstrap_servers, "--registry-url", connection.registry_url]
    done = CliRunner().invoke(app, ["people", "import", str(people), *where])
    assert done.exit_code == 0, done.output


def test_lost_callbacks_and_history_are_published_once(
    connection: Connection, dingtalk: tuple[Company, str], tmp_path: Path, eventually: Any
) -> None:
    company, url = dingtalk
    lately, long_ago = life("R-lately", APP, NOW - HOUR_MS), life("R-long-ago", LATER_APP, NOW - 90 * 24 * HOUR_MS)
    copied = structs.replace(lately[0], action=Action.COPIED, recipient_ids=("u-chen",), event_id="copy")
    for event in [*lately, *long_ago, copied]:
        company.happened(event)
    given = environment(connection, tmp_path, url)
    worker = Worker(tmp_path, connection)
    worker.start()
    try:
        # The create of the second task was lost. The other app had no connector yet.
        produce(connection, lately[:3])
        eventually(worker.is_ready, what="the worker is ready")
        eventually(lambda: b"R-lately" in states(connection), what="the delivered events are folded")

        import_person(connection, tmp_path, "u-li")
        first = ran(given, "reconcile", "run")
        assert {(each["app_type"], each["kind"]) for each in first["repairs"]} == {(APP, "task"), (APP, "outcome")}
        eventually(lambda: pending(connection, "u-wang") == {"R-lately-2"}, what="the repair is folded")
        assert ran(given, "reconcile", "run")["repairs"] == []

        assert form_values(connection, b"R-lately") == [("scan", {"text_1": "of R-lately"})], "once, by two runs"
        copies = ran(given, "reconcile", "copies", "--app", APP, "--since", "2026-01-01", "--user", "u-chen")
        assert copies["repairs"] == [{"app_type": APP, "kind": "copy", "events": 1}]

        expected = ran(given, "backfill", "--app", LATER_APP, "--since", "2026-01-01", "--dry-run")
        assert (expected["instances"], expected["detail_calls"]) == (1, 2)
        history = ran(given, "backfill", "--app", LATER_APP, "--since", "2026-01-01")
        assert sum(each["events"] for each in history["repairs"]) >= 3
        eventually(lambda: pending(connection, "u-wang") == {"R-lately-2", "R-long-ago-2"}, what="history is folded")
        assert ran(given, "backfill", "--app", LATER_APP, "--since", "2026-01-01")["repairs"] == []

        decode = task_event_codec(connection.registry).decode
        records = [
            each for each in read_topic(connection, TASK_EVENTS.name) if each.key() in (b"R-lately", b"R-long-ago")
        ]
        published = [decode(each.value()) for each in records]
        [copy] = [each for each in published if each.action is Action.COPIED]
        assert copy.url == "https://yida.example/copies/R-lately", "from the list of the person's copies"
        causes = {(each.app_type, each.recovered_by) for each in published}
        assert causes == {(APP, None), (APP, "reconcile"), (LATER_APP, "backfill")}
        for each in records:
            assert dict(headers_of(each))["ce_subject"] == each.key()

        found = ran(given, "reconcile", "status")
        assert {(each["app_type"], each["kind"]) for each in found["found"] if each["missing"]} >= {(APP, "task")}
        assert found["calls"][0]["today"] > 0
        people = {each["record"]: each["names"] for each in found["names"] if each["kind"] == "person"}
        assert people["imported"] == 1, "a pass alone reads who was imported"

        scraped, logs = watch_service(given, tmp_path / "reconcile.log", eventually)
        assert f'taskbridge_reconcile_repairs_total{{app_type="{APP}",kind="task",work="reconcile"}} 1.0' in scraped
        assert "taskbridge_reconcile_form_scan_age_seconds" in scraped
        assert "pass_ended" not in logs, "that of the command counts"

        given["RECONCILE_DATA_DIR"] = str(tmp_path / "another")
        scraped, logs = watch_service(given, tmp_path / "another.log", eventually)
        assert "pass_ended" in logs
    finally:
        worker.kill()


def watch_service(given: dict[str, str], log_path: Path, eventually: Any) -> tuple[str, str]:
    """Run it until its last pass was complete, and end it by SIGTERM. Returns its metrics and its log."""
    port = free_port()
    url, argv = f"http://127.0.0.1:{port}", [sys.executable, "-m", "taskbridge.reconcile.app"]
    with log_path.open("wb") as log:
        service = subprocess.Popen(argv, env={**os.environ, **given, "RECONCILE_PORT": str(port)}, stderr=log)
    try:
        eventually(lambda: status_of(f"{url}/readyz") == 200, what="the last pass was complete")
        scraped = http_clients.get(f"{url}/metrics").text
        assert "taskbridge_reconcile_last_whole_pass_age_seconds" in scraped
        service.terminate()
        assert service.wait(60) == 0, log_path.read_text()
        logs = log_path.read_text()
        assert "never retrieved" not in logs, "no task is left"
        assert "values of forms" not in logs, "they have no problem"
        assert not [each for each in SECRETS if each in logs]
        return scraped, logs
    finally:
        service.kill()
        service.wait()


def status_of(url: str) -> int | None:
    with contextlib.suppress(httpx2.HTTPError):
        return http_clients.get(url, timeout=5).status_code
    return None
