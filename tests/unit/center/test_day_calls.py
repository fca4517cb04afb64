"""Calls of a day are counted once for all replicas, and counts of old days go."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from taskbridge.center.actions.day_calls import DayCalls
from taskbridge.center.tables import day_calls
from taskbridge.runtime.database import now_ms
from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from taskbridge.runtime.database import Database

TODAY = iso(now_ms())[:10]


def test_replicas_at_the_same_time_make_so_many_calls_together(database: Database) -> None:
    replicas = [DayCalls(database) for _ in range(4)]

    def use(at: int) -> bool:
        return replicas[at % 4].use("ours", "files", TODAY, 7)

    with ThreadPoolExecutor(4) as threads:
        found = [*threads.map(use, range(40))]
    assert found.count(True) == 7
    assert not DayCalls(database).use("ours", "files", TODAY, 7), "also after a restart"
    assert DayCalls(database).use("ours", "files", TODAY, 8)
    others = ("theirs", "files", TODAY), ("ours", "comments", TODAY), ("ours", "files", "2999-01-01")
    assert [DayCalls(database).use(*each, 1) for each in others for _ in range(2)] == [True, False] * 3
    assert not DayCalls(database).use("new", "files", TODAY, 0)


def test_counts_of_days_that_are_over_are_deleted(database: Database) -> None:
    row = {"corp_id": "ours", "purpose": "files", "calls": 1}
    days = ["2020-01-01", iso(now_ms() - 5 * 86_400_000)[:10], TODAY]
    with database.write() as connection:
        connection.execute(insert(day_calls), [{**row, "day": each} for each in days])
    assert DayCalls(database).purge() == 2
    with database.read() as connection:
        assert connection.execute(select(day_calls.c.day)).scalars().all() == [TODAY]
