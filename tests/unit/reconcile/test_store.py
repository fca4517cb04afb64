"""What survives restarts: absences, of which two at least a day apart are a deletion, and the numbers of repairs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from unittest.mock import patch

import httpx2
from msgspec import structs

from support.dingtalk import FakeClock
from support.reconcile import filed, local_data, settings_in
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.reconcile.app import Service
from taskbridge.reconcile.assembly import LocalData
from taskbridge.reconcile.repairs import Kind, Repair
from taskbridge.reconcile.store import Store, open_database

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

THEN = 1_790_000_000_000
KEY = "ding1", "APP_1", "I-1"


def test_an_absence_counts_when_another_process_finds_it_again_a_day_later(tmp_path: Path) -> None:
    before = Store(open_database(tmp_path)).absences
    assert before.record(*KEY, now_ms=THEN) is None
    assert before.record(*KEY, now_ms=THEN + DAY_MS - 1) is None
    after = Store(open_database(tmp_path)).absences
    assert after.due("ding1", "APP_1", now_ms=THEN + DAY_MS - 1) == []
    assert after.due("ding1", "APP_1", now_ms=THEN + DAY_MS) == ["I-1"]
    assert after.due("ding1", "APP_2", now_ms=THEN + DAY_MS) == []
    assert after.record(*KEY, now_ms=THEN + DAY_MS) == THEN
    assert after.record(*KEY, now_ms=THEN + 9 * DAY_MS) == THEN, "the same deletion, always"


def test_an_instance_that_is_returned_again_was_never_absent(tmp_path: Path) -> None:
    absences = Store(open_database(tmp_path)).absences
    absences.record(*KEY, now_ms=THEN)
    absences.delete(*KEY)
    assert absences.record(*KEY, now_ms=THEN + 2 * DAY_MS) is None


def repairs(count: int, *, at: int = THEN, name: str = "e") -> list[Repair]:
    return [
        Repair(Kind.DECISION, structs.replace(filed(at=at), event_id=f"{name}{number}", received_at=at))
        for number in range(count)
    ]


def test_a_repair_counts_once_and_the_numbers_outlive_its_id(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    findings = Store(database).findings
    for _ in range(2):
        findings.record(repairs(3), work="reconcile")
    assert [each.repairs for each in findings.counts()] == [3]
    findings.remove_old(now_ms=THEN + 29 * DAY_MS)
    findings.record(repairs(3), work="reconcile")
    assert [each.repairs for each in findings.counts()] == [3]
    findings.remove_old(now_ms=THEN + 30 * DAY_MS)
    assert database.execute("SELECT count(*) FROM repaired").fetchone() == (0,)
    assert [each.repairs for each in findings.counts()] == [3]
    findings.remove_old(now_ms=THEN + 401 * DAY_MS)
    assert findings.counts() == []
    assert findings.totals() == [("APP_1", "decision", "reconcile", 3)], "a counter never falls"


def test_old_repairs_are_found_by_an_index(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    Store(database)
    plan = database.execute("EXPLAIN QUERY PLAN DELETE FROM repaired WHERE at_ms <= 1").fetchall()
    assert "repaired_at" in str(plan)


async def test_a_scrape_and_the_status_are_read_by_connections_of_their_own(tmp_path: Path) -> None:
    """SQLite refuses the service's connection in another thread. In the event loop they would delay all else."""
    with local_data(tmp_path, FakeClock(THEN)) as data:
        data.store.findings.record(repairs(3), work="reconcile")
        http = Service(settings_in(tmp_path), data).http()
        loop, threads = threading.get_ident(), set[int]()
        opened_again = LocalData.opened_again

        def noted(given: LocalData) -> AbstractContextManager[LocalData]:
            threads.add(threading.get_ident())
            return opened_again(given)

        with patch.object(LocalData, "opened_again", noted):
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(http), base_url="http://r") as client:
                metrics, status = await client.get("/metrics"), await client.get("/status")
        assert (
            'taskbridge_reconcile_repairs_total{app_type="APP_1",kind="decision",work="reconcile"} 3.0' in metrics.text
        )
        assert [each["events"] for each in status.json()["found"]] == [3]
        assert threads
        assert loop not in threads
