"""What operators see of the database, on both kinds of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from sqlalchemy import insert, text

from support.center_rows import AnsweringCenter, state
from support.live import commit_changes
from support.records import event as event_of
from taskbridge.center.access.access import Access, Caller
from taskbridge.center.operations import records as module
from taskbridge.center.operations.records import FORGOTTEN_S, LATEST, Records
from taskbridge.center.tables import DEAD_LETTER, QUARANTINED, set_aside
from taskbridge.schemas.events import Action, Person, Status, TaskEntry, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskbridge.runtime.database import Database

NOW = 1_769_846_400_000
OPERATOR = Caller("token", name="operator", corps=("*",))


@pytest.fixture
def center(database: Database) -> Generator[AnsweringCenter]:
    found = AnsweringCenter(database, Access(tokens=None))
    yield found
    found.close()


@pytest.fixture
def records(database: Database) -> Records:
    return Records(database)


def make_event(action: Action, **fields: Any) -> TaskEvent:
    return event_of(action, **{"event_id": "e-1", "occurred_at": NOW, "received_at": NOW, **fields})


def put_aside(
    database: Database, kind: str, entry_id: str, reason: str = "wrong-sign", *, at: int = NOW, **fields: Any
) -> None:
    row = {"kind": kind, "entry_id": entry_id, "at": at, "reason": reason, "search": "", "replayed_at": None, **fields}
    summary = msgspec.json.encode({"id": entry_id, "reason": reason, "replayed_at": None})
    with database.write() as connection:
        connection.execute(insert(set_aside), [{**row, "summary": summary}])


def test_flow_is_by_the_minute_and_action_and_the_present_minute_is_the_last(
    records: Records, center: AnsweringCenter
) -> None:
    at = [NOW - 59 * 60_000, NOW - 59 * 60_000 - 1, NOW, NOW + 59_999, NOW + 1]
    actions = [Action.CREATED, Action.CREATED, Action.CREATED, Action.DELETED, Action.DELETED]
    events = [
        make_event(action, event_id=f"e-{number}", received_at=received_at)
        for number, (action, received_at) in enumerate(zip(actions, at, strict=True))
    ]
    center.store_events(*events)

    shown = records.overview(NOW + 59_999)["flow"]

    assert (shown["minutes"][0], shown["minutes"][-1]) == ("2026-01-31T07:01:00.000Z", "2026-01-31T08:00:00.000Z")
    assert shown["actions"]["CREATED"] == [1, *[0] * 58, 1]
    assert shown["actions"]["DELETED"] == [*[0] * 59, 2]
    assert set(shown["actions"]) == {"CREATED", "COMPLETED", "CANCELLED", "DELETED", "COPIED"}


def test_counts_are_of_entries_that_wait_and_the_latest_are_of_all(database: Database, records: Records) -> None:
    put_aside(database, QUARANTINED, "q-1", at=NOW + 1)
    put_aside(database, QUARANTINED, "q-2", at=NOW + 3)
    put_aside(database, QUARANTINED, "q-3", "unknown-app", at=NOW + 2)
    put_aside(database, QUARANTINED, "q-4", at=NOW + 4, replayed_at="2026-01-31T08:00:00.000Z")
    put_aside(database, QUARANTINED, "q-5", "", replayed_at="2026-01-31T08:00:00.000Z")  # a mark without its entry
    put_aside(database, DEAD_LETTER, "3-1", "undecodable")

    found = records.overview(NOW)

    assert found["quarantine"]["total"] == 3
    assert found["quarantine"]["reasons"] == {"wrong-sign": 2, "unknown-app": 1}
    assert [each["id"] for each in found["quarantine"]["latest"]] == ["q-4", "q-2", "q-3", "q-1"]
    assert [each["replayed_at"] for each in found["quarantine"]["latest"][:2]] == ["2026-01-31T08:00:00.000Z", None]
    assert (found["dead_letters"]["total"], found["dead_letters"]["reasons"]) == (1, {"undecodable": 1})


def test_only_the_latest_are_listed(database: Database, records: Records) -> None:
    for number in range(LATEST + 3):
        put_aside(database, QUARANTINED, f"q-{number}", at=NOW + number)
    found = records.overview(NOW)["quarantine"]
    assert (found["total"], len(found["latest"])) == (LATEST + 3, LATEST)
    assert found["latest"][0]["id"] == f"q-{LATEST + 2}"


def test_replicas_report_and_are_forgotten(records: Records) -> None:
    records.report("a:8500", {"ready": True}, NOW)
    records.report("a:8500", {"ready": False}, NOW + 1)
    records.report("b:8500", {"ready": True}, NOW + 2)
    assert records.overview(NOW)["shares"] == {
        "a:8500": (NOW + 1, {"ready": False}),
        "b:8500": (NOW + 2, {"ready": True}),
    }

    records.leave("b:8500")
    records.report("c:8500", {}, NOW + 2 + FORGOTTEN_S * 1000)
    assert list(records.overview(NOW)["shares"]) == ["c:8500"]


def find(records: Records, instance_id: str, caller: Caller = OPERATOR) -> dict[str, Any]:
    return records.callbacks(instance_id, caller, NOW)


def test_a_search_finds_the_instance_its_events_who_was_notified_and_what_was_set_aside(
    database: Database, records: Records, center: AnsweringCenter
) -> None:
    task = TaskEntry("T-1", Status.PENDING, ("ann", "bob"))
    center.store(state("I-1", originator=Person("cai", None), tasks=(task,)))
    event = make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann", "dan"))
    center.store_events(event)
    shown = {"view": "pending", "change": "ADDED", "status": "PENDING", "task_id": "T-1"}
    for user_id, instance_id in (("ann", "I-1"), ("dan", "I-1"), ("ann", "I-2"), ("stranger", "I-1")):
        notification = {**shown, "recipient_id": user_id, "occurred_at": "2026-01-31T08:00:00.000Z", "title": "Leave"}
        commit_changes(database, user_id, instance_id=instance_id, data=notification)
    put_aside(database, QUARANTINED, "q-1", search="formInstId=I-1&sign=0")
    put_aside(database, QUARANTINED, "q-2", search="formInstId=I-2&sign=0")
    put_aside(database, DEAD_LETTER, "3-1", "undecodable", search="I-1")
    put_aside(database, DEAD_LETTER, "3-2", "undecodable", search="I-1 and more")

    found = find(records, "I-1")

    assert found["state"]["instance_id"] == "I-1"
    assert [each["event_id"] for each in found["history"]["events"]] == [event.event_id]
    assert [each["id"] for each in found["quarantined"]] == ["q-1"]
    assert [each["id"] for each in found["dead_letters"]] == ["3-1"]
    # A person whom neither the instance nor its events name cannot have been notified.
    assert [each["recipient_id"] for each in found["notifications"]] == ["ann", "dan"]
    assert set(found["notifications"][0]) == {*shown, "recipient_id", "occurred_at", "notification_id"}
    assert found["people"] == 4  # and bob and cai, whose entries are older than the changes
    assert (found["searched"]["quarantine_records"], found["searched"]["dead_letter_records"]) == (2, 2)
    assert found["searched"]["since"] == "2026-01-24T08:00:00.000Z"


def test_an_id_is_found_as_it_stands_in_a_request(database: Database, records: Records) -> None:
    texts = ("id=a%20b%2F%22%C3%A9", "id=a+b%2F%22%C3%A9", '{"id": "a b/\\"\\u00e9"}', 'a b/"é')
    for number, each in enumerate(texts):
        put_aside(database, QUARANTINED, f"q-{number}", search=each)
    assert sorted(each["id"] for each in find(records, 'a b/"é')["quarantined"]) == ["q-0", "q-1", "q-2", "q-3"]
    assert find(records, "a_b/%")["quarantined"] == []


def test_a_search_reads_the_newest_up_to_a_limit_and_says_that_there_are_older_ones(
    database: Database, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender without credentials can have gigabytes of requests set aside."""
    monkeypatch.setattr(module, "_SEARCHED_PART", 2)
    for number in range(7):
        # Of the same millisecond, as in a burst: none is read twice, or left out.
        put_aside(database, QUARANTINED, f"q-{number}", at=NOW + number // 3, search="id=I-1")
    found = find(records, "I-1")
    assert [each["id"] for each in found["quarantined"]] == [f"q-{number}" for number in range(7)]
    assert (found["searched"]["quarantine_records"], found["searched"]["complete"]) == (7, True)
    limits = {"_SEARCHED_MAX": (4, 4), "_SEARCHED_CHARACTERS": (4 * len("id=I-1"), 4), "_SEARCH_S": (0.0, 2)}
    for limit, (value, read) in limits.items():
        with monkeypatch.context() as patched:
            patched.setattr(module, limit, value)
            found = find(records, "I-1")
        assert [each["id"] for each in found["quarantined"]] == [f"q-{number}" for number in range(7 - read, 7)]
        assert (found["searched"]["quarantine_records"], found["searched"]["complete"]) == (read, False)
        assert found["searched"]["since"] == "2026-01-31T08:00:00.001Z"


def test_flow_and_counts_are_read_from_indices(sqlite_database: Database) -> None:
    """An hour at 500 events per second is 1,800,000 rows, and the text of a rejected request is long."""
    since = "SELECT received_at / 60000, action, count(*) FROM events WHERE received_at >= 0 GROUP BY 1, 2"
    counts = "SELECT kind, reason, count(*) FROM set_aside WHERE reason <> '' AND replayed_at IS NULL GROUP BY 1, 2"
    with sqlite_database.read() as connection:
        for query in (since, counts):
            plan = str(connection.execute(text(f"EXPLAIN QUERY PLAN {query}")).all())
            assert "COVERING INDEX" in plan
