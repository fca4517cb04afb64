"""What reconcile says was found missing, as operators see it: of reconcile's own answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations

from support.operations import client_of, reporter_of, settings_of
from support.reconcile import APP_TYPE, CORP_ID, NOW, local_data
from taskbridge.center.operations.answers import missed_of
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.local.fake_dingtalk import served
from taskbridge.reconcile.repairs import Kind, Repair, repair
from taskbridge.reconcile.status import status_of
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.runtime.database import Database

URL = "http://127.0.0.1:8600"


def found(kind: Kind, at: int, task_id: str) -> Repair:
    fields: dict[str, Any] = {"corp_id": CORP_ID, "app_type": APP_TYPE, "instance_id": "I-1", "task_id": task_id}
    return repair(kind, received_at=at, action=Action.COMPLETED, occurred_at=at, **fields)


@pytest.fixture
def status(tmp_path: Path) -> dict[str, Any]:
    """Of an app of which two decisions were missed on one day, and one on the next, plus outcomes and history."""
    with local_data(tmp_path) as data:
        store = data.store
        store.callbacks.watch(CORP_ID, APP_TYPE, now_ms=NOW)
        lost = [found(Kind.DECISION, NOW, "1"), found(Kind.TASK, NOW, "2"), found(Kind.DECISION, NOW + DAY_MS, "3")]
        store.findings.record([*lost, found(Kind.OUTCOME, NOW, "4")], work="reconcile")
        store.findings.record([found(Kind.DECISION, NOW, "5")], work="backfill")
        store.callbacks.record_missing(lost)
        store.findings.pass_ended(now_ms=NOW + DAY_MS, is_whole=True)
        return status_of(data)


def test_what_was_missed_is_counted_by_app_and_day_the_latest_first(status: dict[str, Any]) -> None:
    shown = missed_of(URL, status)
    app = {"corp_id": CORP_ID, "app_type": APP_TYPE}
    assert shown["days"] == [
        {**app, "day": "2026-09-22", "missing": 1, "added": 0},
        {**app, "day": "2026-09-21", "missing": 2, "added": 1},
    ]
    assert shown["silent"] == [{**app, "since": "2026-09-21T14:13:20.000Z", "missing": 1}]
    assert (shown["url"], shown["reachable"]) == (URL, True)


def test_the_overview_queries_the_named_reconcile_and_passes_no_token_on(
    status: dict[str, Any], sqlite_database: Database, tmp_path: Path
) -> None:
    reconcile = FastAPI()
    tokens: list[str | None] = []

    @reconcile.get("/status")
    def _answer(request: Request) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        tokens.append(request.headers.get("authorization"))
        return status

    def seen(url: str) -> Any:
        with client_of(reporter_of(sqlite_database, settings_of(tmp_path, reconcile_url=url))) as client:
            return client.get("/v1/ops/overview", headers={"Authorization": "Bearer secret"}).json()["missed"]

    with served(reconcile) as url:
        assert seen(f"{url}/") == missed_of(url, status)
    assert tokens == [None]
    assert seen(url)["reachable"] is False
    assert seen("") is None
