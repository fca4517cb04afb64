"""What is overdue in SQL is what is overdue by the rules, page by page, on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from starlette.testclient import TestClient

from support.center_rows import AnsweringCenter, entry_row, items, unchecked
from taskbridge.center.access.access import Access
from taskbridge.center.api.queries import Queries
from taskbridge.center.reminders.due import NO_RULES, DueRules, Rule
from taskbridge.center.reminders.working_time import HOUR_MS, WorkingTime
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.events import View

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskbridge.runtime.database import Database

SHANGHAI = WorkingTime(ZoneInfo("Asia/Shanghai"), [(9 * 60, 18 * 60)])
MONDAY = 1_767_571_200_000
"""5 January 2026, 8 o'clock in Shanghai."""
RULES = DueRules(
    SHANGHAI,
    [
        Rule(None, None, 40 * HOUR_MS),
        Rule("LEAVE", None, 9 * HOUR_MS),
        Rule("LEAVE", "Sick leave", HOUR_MS),
    ],
)
TASKS = "/v1/corps/corp/users/ann/tasks"


class Center(AnsweringCenter):
    """A replica whose rules and clock a test sets."""

    rules, now = RULES, MONDAY

    def __init__(self, database: Database) -> None:
        super().__init__(database, Access(tokens=None, rate_per_s=1e6))
        self.queries = Queries(database, lambda: self.rules, lambda: self.now, complete=unchecked, all_people=unchecked)


@pytest.fixture
def center(database: Database) -> Generator[Center]:
    found = Center(database)
    yield found
    found.close()


@pytest.fixture
def client(center: Center) -> Generator[TestClient]:
    with TestClient(center.http()) as client:
        yield client


def overdue(client: TestClient, **query: Any) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = client.get(TASKS, params={"view": "pending", "overdue": "true", **query, **cursor})
        assert answer.status_code == 200, answer.text
        found += items(answer.json())
        if answer.json()["next_cursor"] is None:
            return found
        cursor = {"cursor": answer.json()["next_cursor"]}


def test_the_most_specific_rule_counts_and_pending_entries_show_when_they_are_due(
    client: TestClient, center: Center
) -> None:
    center.add(
        entry_row("I-sick", app_type="LEAVE", process_name="Sick leave", entered_at=MONDAY),
        entry_row("I-leave", app_type="LEAVE", process_name="Leave", entered_at=MONDAY),
        entry_row("I-unnamed", app_type="LEAVE", process_name=None, entered_at=MONDAY),
        entry_row("I-other", app_type="OTHER", process_name="Sick leave", entered_at=MONDAY),
        entry_row("I-done", view=View.HANDLED, app_type="LEAVE", entered_at=MONDAY),
    )
    shown = client.get(f"{TASKS}?view=pending").json()["items"]
    hours = {"I-sick": 2, "I-leave": 10, "I-unnamed": 10, "I-other": 4 * 24 + 5}
    assert {each["instance_id"]: each["due_at"] for each in shown} == {
        name: iso(MONDAY + passed * HOUR_MS) for name, passed in hours.items()
    }
    assert client.get(f"{TASKS}?view=handled").json()["items"][0]["due_at"] is None
    for name, passed in hours.items():
        for center.now, is_due in ((MONDAY + passed * HOUR_MS - 1, False), (MONDAY + passed * HOUR_MS, True)):
            assert ((name, "T-1") in overdue(client)) is is_due
    center.now += 30 * 24 * HOUR_MS
    assert overdue(client, app_type="LEAVE", q="sick") == [("I-sick", "T-1")]


def test_the_sources_due_time_counts_before_every_rule_and_without_any(client: TestClient, center: Center) -> None:
    due_at = MONDAY + 200 * HOUR_MS
    center.add(entry_row("I-late", app_type="LEAVE", entered_at=MONDAY, due_at=due_at))
    center.add(entry_row("I-soon", app_type="LEAVE", entered_at=MONDAY, due_at=MONDAY + 1))
    for center.rules in (RULES, NO_RULES):
        shown = client.get(f"{TASKS}?view=pending").json()["items"]
        assert [each["due_at"] for each in shown] == [iso(due_at), iso(MONDAY + 1)]
        for center.now, expected in ((MONDAY, []), (due_at - 1, ["I-soon"]), (due_at, ["I-late", "I-soon"])):
            assert [each for each, _ in overdue(client)] == expected


def test_nothing_is_overdue_without_rules_and_in_other_views(client: TestClient, center: Center) -> None:
    center.add(entry_row(entered_at=MONDAY))
    center.rules, center.now = NO_RULES, MONDAY + 10**10
    assert overdue(client) == []
    assert client.get(f"{TASKS}?view=pending").json()["items"][0]["due_at"] is None
    center.rules = RULES
    center.add(entry_row(view=View.HANDLED, entered_at=MONDAY, app_type="LEAVE", due_at=MONDAY))
    assert client.get(f"{TASKS}?view=handled&overdue=true").json() == {"items": [], "next_cursor": None}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=20)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["LEAVE", "OTHER", "None"]),
            st.sampled_from([None, "Sick leave", "Leave"]),
            st.integers(0, 30 * 24),
            st.none() | st.integers(0, 30 * 24),
        ),
        min_size=1,
        max_size=12,
    ),
    rules=st.lists(
        st.builds(
            Rule, st.sampled_from(["LEAVE", "OTHER"]), st.sampled_from([None, "Leave"]), st.integers(1, 60 * HOUR_MS)
        ),
        unique_by=lambda rule: rule.key,
        max_size=3,
    ),
    limit=st.integers(1, 3),
    now=st.integers(0, 40 * 24),
)
def test_pages_of_overdue_entries_are_those_whose_due_time_has_passed(
    client: TestClient,
    center: Center,
    *,
    rows: list[tuple[str, str | None, int, int | None]],
    rules: list[Rule],
    limit: int,
    now: int,
) -> None:
    with center.database.write() as connection:
        connection.execute(text("DELETE FROM entries"))
    center.rules, center.now = DueRules(SHANGHAI, rules), MONDAY + now * HOUR_MS
    center.add(
        *(
            entry_row(
                f"I-{number}",
                app_type=app,
                process_name=process,
                entered_at=MONDAY + hours * HOUR_MS,
                due_at=None if stated is None else MONDAY + stated * HOUR_MS,
            )
            for number, (app, process, hours, stated) in enumerate(rows)
        )
    )
    shown = client.get(f"{TASKS}?view=pending").json()["items"]
    expected = [each for each in shown if each["due_at"] is not None and each["due_at"] <= iso(center.now)]
    assert overdue(client, limit=limit) == items({"items": expected})
