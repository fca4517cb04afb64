"""What waits is counted as the lists show it, for those who may see it, within an index."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, text
from sqlalchemy.event import listen
from starlette.testclient import TestClient

from support.center_rows import AnsweringCenter, entry_row
from support.plans import Plans
from taskbridge.center.access.access import AUDITOR, Access, Caller, Members
from taskbridge.center.access.audit import Audit
from taskbridge.center.api.waiting import waiting_router
from taskbridge.center.reminders import waiting as waiting_module
from taskbridge.center.reminders.due import DueRules, Rule
from taskbridge.center.reminders.file import Reminders
from taskbridge.center.reminders.waiting import corps, people_after, waiting
from taskbridge.center.reminders.working_time import HOUR_MS, WorkingTime
from taskbridge.center.tables import audit, entries, pseudonyms
from taskbridge.runtime import remembered
from taskbridge.runtime.database import DatabaseUnavailable
from taskbridge.runtime.remembered import Remembered
from taskbridge.schemas.events import PersonRecord, View

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from taskbridge.runtime.database import Database

ALWAYS = WorkingTime(ZoneInfo("UTC"), [(0, 1440)], weekdays=range(7))
DUE = DueRules(ALWAYS, [Rule("APP", None, 10 * HOUR_MS), Rule("APP", "Leave", HOUR_MS)])
NOW = 1_767_571_200_000


class As(Access):
    """Access of one caller, whom a test sets."""

    caller = Caller("open", corps=("*",))

    async def identify(self, connection: HTTPConnection) -> Caller:  # noqa: ARG002 - as the class has it
        return self.caller


@pytest.fixture
def access(database: Database, center: AnsweringCenter) -> As:
    return As(tokens=None, audit=Audit(database, center.threads), members=(Members(AUDITOR, (), ()),))


@pytest.fixture
def waits(center: AnsweringCenter, access: As) -> TestClient:
    reminders = Reminders(DUE, owners={"APP": frozenset([("corp", "ann")])})
    center.access = access
    router = waiting_router(
        center.database, center.threads, access, center.complete_lists, lambda: reminders, lambda: NOW
    )
    return TestClient(center.http(router))


def test_processes_and_people_are_counted_the_most_overdue_first(waits: TestClient, center: AnsweringCenter) -> None:
    center.know("corp", PersonRecord("ann", "Ann"))
    for number, (user, app, process, hours) in enumerate(
        [
            ("ann", "APP", "Leave", 2),
            ("ann", "APP", "Leave", 0.5),
            ("bob", "APP", None, 9),
            ("bob", "APP", None, 11),
            ("bob", "OTHER", "Leave", 50),
        ]
    ):
        entered_at = NOW - round(hours * HOUR_MS)
        center.add(entry_row(f"I-{number}", user=user, app_type=app, process_name=process, entered_at=entered_at))
    center.add(entry_row("I-done", view=View.HANDLED), entry_row("I-elsewhere", corp="other"))
    found = waits.get("/v1/corps/corp/waiting").json()
    assert [tuple(each.values()) for each in found["processes"]] == [
        ("APP", None, 2, 1, "2026-01-04T13:00:00.000Z"),
        ("APP", "Leave", 2, 1, "2026-01-04T22:00:00.000Z"),
        ("OTHER", "Leave", 1, 0, "2026-01-02T22:00:00.000Z"),
    ]
    assert [tuple(each.values()) for each in found["people"]] == [
        ("bob", None, 3, 1, "2026-01-02T22:00:00.000Z"),
        ("ann", "Ann", 2, 1, "2026-01-04T22:00:00.000Z"),
    ]
    assert found["complete"] is True
    narrowed = waits.get("/v1/corps/corp/waiting?app_type=APP&process_name=Leave").json()
    assert [(each["user_id"], each["pending"]) for each in narrowed["people"]] == [("ann", 2)]
    unnamed = waits.get("/v1/corps/corp/waiting?app_type=APP&process_name=").json()
    assert [(each["user_id"], each["pending"]) for each in unnamed["people"]] == [("bob", 2)]
    assert waits.get("/v1/corps/corp/waiting?process_name=x").json()["people"] == []


def test_an_answer_is_counted_once_in_some_seconds_however_many_ask(
    waits: TestClient, center: AnsweringCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(remembered, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def people(query: str = "") -> int:
        return len(waits.get(f"/v1/corps/corp/waiting{query}").json()["people"])

    assert people() == 0
    center.add(entry_row("I-1", user="ann"))
    assert (people(), people("?app_type=APP")) == (0, 1)
    clock.now += 5
    assert people() == 1


async def test_requests_at_the_same_time_share_a_search_and_a_failure_is_not_stored() -> None:
    go_on, searches = asyncio.Event(), 0

    async def fail() -> int:
        raise DatabaseUnavailable("away")

    async def find() -> int:
        nonlocal searches
        searches += 1
        await go_on.wait()
        return searches

    found = Remembered[int](60)
    with pytest.raises(DatabaseUnavailable):
        await found.of("key", fail)
    first, *others = [asyncio.create_task(found.of("key", find)) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    go_on.set()
    assert await asyncio.gather(*others) == [1, 1]
    assert await found.of("key", fail) == 1


def test_operators_tokens_of_the_corp_and_owners_of_the_app_may_see_it_and_people_are_recorded(
    waits: TestClient, access: As, database: Database
) -> None:
    def person(user: str, corp: str = "corp", corps: tuple[str, ...] = ()) -> Caller:
        return Caller("sso", corps=corps, corp_id=corp, user_id=user, rate_key=f"{corp} {user}")

    all_apps, one_app = "/v1/corps/corp/waiting", "/v1/corps/corp/waiting?app_type=APP"
    for access.caller, of_all, of_one in (
        (Caller("open", corps=("*",)), 200, 200),
        (Caller("token", name="t", corps=("corp",)), 200, 200),
        (Caller("token", name="t", corps=("other",)), 403, 403),
        (person("oz", corps=("*",)), 200, 200),
        (person("ann"), 403, 200),
        (person("bob"), 403, 403),
        (person("ann", "other"), 403, 403),
    ):
        statuses = waits.get(all_apps).status_code, waits.get(one_app).status_code
        assert statuses == (of_all, of_one), access.caller
    with database.read() as connection:
        query = select(pseudonyms.c.user_id, audit.c.action, audit.c.subject).order_by(audit.c.seq)
        recorded = connection.execute(query.where(pseudonyms.c.pseudonym == audit.c.actor)).all()
    assert [tuple(each) for each in recorded] == [
        ("oz", "read", "waiting corp"),
        ("oz", "read", "waiting corp APP"),
        ("ann", "read", "waiting corp APP"),
    ]


def test_a_caller_finds_the_corps_to_choose_from(waits: TestClient, access: As, center: AnsweringCenter) -> None:
    center.add(*(entry_row(f"I-{number}", corp=f"corp{number % 3}") for number in range(9)))

    def found() -> list[str]:
        return waits.get("/v1/corps").json()["items"]

    assert found() == ["corp0", "corp1", "corp2"]
    access.caller = Caller("sso", corps=("*",), corp_id="corp1", user_id="oz")
    assert found() == ["corp0", "corp1", "corp2"]
    access.caller = Caller("sso", corp_id="corp1", user_id="ann")
    assert found() == ["corp1"]
    access.caller = Caller("token", name="t", corps=("corp2", "new"))
    assert found() == ["corp2", "new"]
    with center.database.read() as connection:
        assert corps(connection, limit=2) == ["corp0", "corp1"]


def test_more_than_is_counted_or_shown_is_said(
    center: AnsweringCenter, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    center.add(*(entry_row(f"I-{number}", user=f"user{number}") for number in range(5)))
    with database.read() as connection:
        assert not waiting(connection, DUE, NOW, "corp", limit=4).is_complete
        assert waiting(connection, DUE, NOW, "corp", limit=5).is_complete
        monkeypatch.setattr(waiting_module, "COUNTED_MAX", 4)
        waiting_module._grouped.cache_clear()  # pyright: ignore[reportPrivateUsage]
        found = waiting(connection, DUE, NOW, "corp")
        waiting_module._grouped.cache_clear()  # pyright: ignore[reportPrivateUsage]
    assert (found.processes[0][1].pending, found.is_complete) == (5, False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(
    st.sets(st.tuples(st.sampled_from(["a", "b", "c/"]), st.sampled_from(["u", "v", "ü"])), max_size=9),
    st.integers(1, 4),
)
def test_people_with_pending_entries_are_found_page_by_page(
    center: AnsweringCenter, database: Database, found: set[tuple[str, str]], limit: int
) -> None:
    with database.write() as connection:
        connection.execute(text("DELETE FROM entries"))
    for corp, user in found:
        center.add(entry_row("I-1", corp=corp, user=user), entry_row("I-2", corp=corp, user=user))
        center.add(entry_row(corp=corp, user=f"{user}-handled", view=View.HANDLED))
    seen: list[tuple[str, str]] = []
    with database.read() as connection:
        while page := people_after(connection, seen[-1] if seen else None, limit):
            seen += page
    assert seen == sorted(found)


def test_counts_come_from_the_index_alone(database: Database) -> None:
    rows = [
        entry_row(f"I-{number}", user=f"user{number % 40}", view=View.HANDLED if number % 10 else View.PENDING)
        for number in range(4_000)
    ]
    with database.write() as connection:
        connection.execute(insert(entries), rows)
        connection.execute(text("ANALYZE"))
    if not database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM entries"))
    plans = Plans(database)
    with database.read() as connection:
        waiting(connection, DUE, NOW, "corp")
        waiting(connection, DUE, NOW, "corp", app_type="APP")
        people_after(connection, ("corp", "user1"), 5)
    found = [plan for sql, plan in plans.items() if "entries" in sql]
    assert len(found) == 5
    for plan in found:
        assert ("COVERING INDEX entries_waiting" if database.is_sqlite else "entries_waiting") in plan


def test_corps_are_found_by_a_query_each(database: Database) -> None:
    with database.write() as connection:
        connection.execute(insert(entries), [entry_row(f"I-{number}", corp=f"c{number % 3}") for number in range(30)])
    sent: list[str] = []
    listen(database.engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    with database.read() as connection:
        assert corps(connection) == ["c0", "c1", "c2"]
    assert len(sent) <= 5


def test_a_person_hears_which_apps_they_own(center: AnsweringCenter, access: As) -> None:
    reminders = Reminders(owners={"APP": frozenset([("corp", "ann")]), "OTHER": frozenset([("corp", "bob")])})
    access.caller = Caller("sso", corp_id="corp", user_id="ann")
    http = FastAPI()
    center.access = access
    http.include_router(center.lists_router(apps_of=reminders.apps_of))
    assert TestClient(http).get("/v1/me").json()["owned_apps"] == ["APP"]
