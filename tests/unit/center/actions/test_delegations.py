"""A delegate sees the pending tasks of the person for the time of the delegation, and nothing else of theirs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.event import listen, remove

from support.center_rows import state
from support.sign_in import SAME_SITE, Served, signing_in
from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.actions.systems import Agent
from taskbridge.center.api.delegations import limited
from taskbridge.runtime import rates, remembered
from taskbridge.schemas.events import Status, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sqlalchemy import Connection
    from starlette.testclient import TestClient

    from taskbridge.center.tables import Person
    from taskbridge.runtime.database import Database

ANN, BOB = "/v1/corps/ours/users/ann", "/v1/corps/ours/users/bob"


@pytest.fixture
def people(database: Database, tmp_path: Path) -> Generator[tuple[Served, TestClient, TestClient]]:
    """Ann and Bob in their browsers."""
    with signing_in(database, tmp_path, auditors="ours/bob") as (served, _):
        leave = {"app_type": "HR", "process_name": "Leave"}
        served.rows.store(
            state("I-leave", corp_id="ours", tasks=(TaskEntry("7", Status.PENDING, ("ann",)),), **leave),
            state("I-done", corp_id="ours", tasks=(TaskEntry("8", Status.COMPLETED, ("ann",), "ann"),)),
        )
        yield served, served.signed_in("ann"), served.signed_in("bob")


def delegate(browser: TestClient, to: str = "bob", *, days: tuple[int, int] = (-1, 1), **scope: str) -> Any:
    begins, ends = (datetime.now(UTC) + timedelta(days=each) for each in days)
    body = {"delegate_id": to, "starts_at": begins.isoformat(), "ends_at": ends.isoformat(), **scope}
    return browser.post(f"{ANN}/delegations", json=body, headers=SAME_SITE)


def delegated(browser: TestClient) -> list[tuple[str, str]]:
    items = browser.get(f"{BOB}/delegated-tasks").json()["items"]
    return sorted((each["instance_id"], each["on_behalf_of"]["name"]) for each in items)


def test_delegated_tasks_are_seen_for_the_time_and_the_processes_of_the_delegation(
    people: tuple[Served, TestClient, TestClient],
) -> None:
    _, ann, bob = people
    assert (delegated(bob), bob.get("/v1/instances/I-leave").status_code) == ([], 404)
    [given] = delegate(ann, process_name="Leave").json()["items"]
    assert (given["delegate"], given["process_name"]) == ({"user_id": "bob", "name": "Bob"}, "Leave")
    assert delegated(bob) == [("I-leave", "Ann")]
    assert bob.get("/v1/instances/I-leave").status_code == 200
    assert bob.get("/v1/instances/I-leave/history").status_code == 200
    for hidden in ("I-ann", "I-done"):
        assert bob.get(f"/v1/instances/{hidden}").status_code == 404, "another process, and one that is done"
    for path in ("tasks?view=pending", "counts", "apps", "delegations", "delegated-tasks", "actions"):
        assert bob.get(f"{ANN}/{path}").status_code == 403
    [also] = [each for each in delegate(ann, app_type="APP").json()["items"] if each["app_type"]]
    assert delegated(bob) == [("I-ann", "Ann"), ("I-leave", "Ann")]
    ended = ann.delete(f"{ANN}/delegations/{also['delegation_id']}", headers=SAME_SITE)
    assert [each["delegation_id"] for each in ended.json()["items"]] == [given["delegation_id"]]
    assert delegated(bob) == [("I-leave", "Ann")]
    assert len(bob.get("/v1/audit?action=delegated").json()["items"]) == 2


def test_before_its_start_nothing_is_seen(people: tuple[Served, TestClient, TestClient]) -> None:
    _, ann, bob = people
    assert delegate(ann, days=(1, 2)).status_code == 200
    assert (delegated(bob), bob.get("/v1/instances/I-leave").status_code) == ([], 404)


def test_a_delegation_that_is_wrong_is_refused(people: tuple[Served, TestClient, TestClient]) -> None:
    for to, days, said in (
        ("ann", (0, 1), "another person"),
        ("nobody", (0, 1), "another person"),
        ("dan", (0, 1), "another person"),
        ("bob", (2, 1), "end after its start"),
        ("bob", (-2, -1), "in the future"),
        ("bob", (0, 400), "within a year"),
    ):
        answer = delegate(people[1], to, days=days)
        assert (answer.status_code, said in answer.json()["detail"]) == (400, True), answer.text


def test_while_lists_are_filled_nothing_is_delegated_and_an_end_is_taken(
    people: tuple[Served, TestClient, TestClient],
) -> None:
    served, ann, bob = people
    [given] = delegate(ann).json()["items"]
    served.rows.complete = False
    # It might be said that nobody is known who is not read yet.
    assert (delegate(ann).status_code, bob.get(f"{BOB}/delegated-tasks").status_code) == (503, 503)
    assert [each["delegation_id"] for each in ann.get(f"{ANN}/delegations").json()["items"]] == [given["delegation_id"]]
    ended = ann.delete(f"{ANN}/delegations/{given['delegation_id']}", headers=SAME_SITE)
    assert (ended.status_code, ended.json()["items"]) == (200, [])


def test_nobody_delegates_for_others_or_without_end(people: tuple[Served, TestClient, TestClient]) -> None:
    _, ann, bob = people
    assert delegate(bob).status_code == 403
    [given] = delegate(ann).json()["items"]
    path = f"/delegations/{given['delegation_id']}"
    assert bob.delete(ANN + path, headers=SAME_SITE).status_code == 403
    assert bob.delete(BOB + path, headers=SAME_SITE).status_code == 404
    assert ann.delete(ANN + path).status_code == 403, "no browser says where it is from"
    for _ in range(19):
        assert delegate(ann).status_code == 200
    assert delegate(ann).status_code == 400


def test_a_person_sees_who_acts_for_them_at_yida_and_for_whom_they_act(
    people: tuple[Served, TestClient, TestClient],
) -> None:
    served, ann, bob = people
    refused = ann.get(f"{ANN}/yida-agents")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "60")
    served.agents = [Agent(("bob", "Bob"), ("ann", "Ann"), is_for_all=False, starts_at=1_761_131_160_000, ends_at=None)]
    [found] = ann.get(f"{ANN}/yida-agents").json()["items"]
    assert found == {
        "agent": {"user_id": "bob", "name": "Bob"},
        "principal": {"user_id": "ann", "name": "Ann"},
        "is_for_all": False,
        "starts_at": "2025-10-22T11:06:00.000Z",
        "ends_at": None,
    }
    assert bob.get(f"{ANN}/yida-agents").status_code == 403


def test_delegated_tasks_are_found_by_one_query_and_by_indices(
    people: tuple[Served, TestClient, TestClient],
) -> None:
    served, ann, bob = people
    database = served.database
    for _ in range(10):
        assert delegate(ann).status_code == 200
    statements: list[str] = []

    def executed(connection: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "delegations" in statement:
            statements.append(statement)
            explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
            cursor = connection.connection.cursor()
            cursor.execute(explain + statement, parameters)
            plans.append(str(cursor.fetchall()))

    plans: list[str] = []
    listen(database.engine, "before_cursor_execute", executed)
    found = delegated(bob)
    remove(database.engine, "before_cursor_execute", executed)
    assert found == [("I-ann", "Ann"), ("I-leave", "Ann")], "each once"
    assert len(statements) == 1
    assert "delegations_to_person" in plans[0]
    assert "entries_page" in plans[0] or "entries_waiting" in plans[0]


def test_nobody_fills_the_audit_trail_by_delegating_and_ending(
    people: tuple[Served, TestClient, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ann, _ = people
    monkeypatch.setattr(rates, "time", SimpleNamespace(monotonic=lambda: 0.0))
    for _ in range(30):
        [found] = delegate(ann).json()["items"]
        assert ann.delete(f"{ANN}/delegations/{found['delegation_id']}", headers=SAME_SITE).status_code == 200
    refused = delegate(ann)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")


def test_the_agents_at_yida_are_read_once_and_cannot_use_up_the_calls_of_the_corp(
    people: tuple[Served, TestClient, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, ann, bob = people
    clock = SimpleNamespace(now=0.0)
    for module in (rates, remembered):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    path = "/yida-agents"
    assert [ann.get(ANN + path).status_code for _ in range(14)] == [503] * 12 + [429] * 2
    served.agents = [Agent(("bob", "Bob"), ("ann", "Ann"), is_for_all=True, starts_at=None, ends_at=None)]
    served.agents_read = 0
    assert {bob.get(BOB + path).status_code for _ in range(50)} == {200}
    assert served.agents_read == 1
    clock.now = 301.0
    assert bob.get(BOB + path).status_code == 200
    assert served.agents_read == 2


async def test_the_people_of_a_corp_share_the_calls_for_agents_at_yida(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "time", SimpleNamespace(monotonic=lambda: 1.0))

    async def none(_: Person) -> list[Agent]:
        return []

    read = limited(none)
    for number in range(120):
        assert await read(("ours", f"user{number}")) == []
    with pytest.raises(TooManyQueries):
        await read(("ours", "ann"))
    assert await read(("theirs", "dan")) == []
