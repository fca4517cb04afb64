"""Queues: order per entry, claims, what is given up, replayed, replaced or disabled; on both databases."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, select, text, update

from taskbridge.runtime.database import now_ms
from taskbridge.runtime.migrations import migrate
from taskbridge.webhooks import store
from taskbridge.webhooks.migrations import FOLDER
from taskbridge.webhooks.store import New, Queues, Result
from taskbridge.webhooks.tables import Outcome, deliveries, endpoints, queues

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.center import Databases
    from taskbridge.runtime.database import Database
    from taskbridge.webhooks.store import Delivery

ERP = "erp"


def add(database: Database, *ids: tuple[str, str], endpoint: str = ERP, only_first: bool = False) -> None:
    """Deliveries: entry and webhook id."""
    new = [New(endpoint, entry, webhook_id, b"{}") for entry, webhook_id in ids]
    with database.write() as connection:
        store.add(database, connection, new, only_first=only_first)


def claim(database: Database, *, most: int = 10, collapse: bool = False) -> list[Delivery]:
    with database.write() as connection:
        found = Queues(database, ERP, collapse=collapse).claim(connection, most)
    return sorted(found, key=lambda each: each.webhook_id)


def ids(found: Sequence[Delivery]) -> list[str]:
    return [each.webhook_id for each in found]


def delivered(each: Delivery) -> Result:
    return Result(each, now_ms(), delivered=True, status=204, problem="", retry_in_ms=None)


def failed(each: Delivery, *, retry_in_ms: int | None = 60_000, disable: str | None = None) -> Result:
    said = "500 broken"
    return Result(each, now_ms(), delivered=False, status=500, problem=said, retry_in_ms=retry_in_ms, disable=disable)


def finish(database: Database, *results: Result, unsent: Sequence[Delivery] = ()) -> None:
    with database.write() as connection:
        Queues(database, ERP, collapse=False).finish(connection, results, unsent)


def next_due(database: Database) -> int | None:
    store.register(database, {ERP: False})
    found = store.next_due(database, ERP)
    assert store.states(database)[ERP].next_due == found
    return found


def outcomes(database: Database) -> dict[str, Outcome]:
    with database.read() as connection:
        rows = connection.execute(select(deliveries.c.webhook_id, deliveries.c.outcome))
        return {webhook_id: Outcome(outcome) for webhook_id, outcome in rows}


def test_changes_of_an_entry_come_one_after_the_other(database: Database) -> None:
    add(database, ("a", "a1"), ("b", "b1"))
    add(database, ("a", "a2"))

    first = claim(database)
    assert ids(first) == ["a1", "b1"]
    assert claim(database) == []

    finish(database, *map(delivered, first))

    second = claim(database)
    assert ids(second) == ["a2"]
    finish(database, *map(delivered, second))
    assert claim(database) == []
    assert store.waiting(database, [ERP]) == {}


def test_a_failure_delays_its_entry_alone(database: Database) -> None:
    add(database, ("a", "a1"), ("b", "b1"))
    add(database, ("a", "a2"), ("b", "b2"))
    a, b = claim(database)

    finish(database, failed(a), delivered(b))

    assert ids(claim(database)) == ["b2"]
    due = next_due(database)
    assert due is not None
    assert due > now_ms()


def test_an_answer_of_any_bytes_can_be_recorded(database: Database) -> None:
    add(database, ("a", "a1"))
    [a] = claim(database)
    finish(database, failed(a)._replace(problem="500 \0"))
    assert next_due(database) is not None


def test_a_notification_that_comes_twice_is_one_delivery(database: Database) -> None:
    add(database, ("a", "a1"), ("a", "a1"))
    finish(database, *map(delivered, claim(database)))

    add(database, ("a", "a1"))

    assert claim(database) == []
    assert next_due(database) is None


def test_nobody_else_delivers_what_is_claimed(database: Database) -> None:
    add(database, *((f"e{number}", f"n{number}") for number in range(40)))
    found: list[list[Delivery]] = []

    def take() -> None:
        while got := claim(database, most=3):
            found.append(got)

    threads = [threading.Thread(target=take) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    claimed = [each.webhook_id for got in found for each in got]
    assert sorted(claimed) == sorted(f"n{number}" for number in range(40))


def test_what_a_dead_replica_claimed_is_delivered_by_another(database: Database) -> None:
    add(database, ("a", "a1"))
    add(database, ("a", "a2"))
    [lost] = claim(database)
    assert next_due(database) is None, "another replica sends it"
    with database.write() as connection:
        connection.execute(update(queues).values(claimed_until=now_ms() - 1))
    assert next_due(database) is not None

    [again] = claim(database)
    assert again.webhook_id == "a1"
    # The other one was only frozen: what it says now counts no more.
    finish(database, delivered(lost))
    assert outcomes(database)["a1"] is Outcome.WAITING
    finish(database, delivered(again))
    assert ids(claim(database)) == ["a2"]


def test_a_delivery_that_was_claimed_and_not_sent_is_due_at_once(database: Database) -> None:
    add(database, ("a", "a1"), ("b", "b1"))
    add(database, ("a", "a2"))
    finish(database, *(failed(each, retry_in_ms=0) for each in claim(database)))
    a, b = claim(database)

    finish(database, delivered(b), unsent=[a])

    [again] = claim(database)
    assert (again.webhook_id, again.attempts) == ("a1", 1)
    finish(database, unsent=[a])
    assert claim(database) == [], "the earlier claim ends no later one"


def test_a_delivery_that_was_not_sent_keeps_its_turn(database: Database) -> None:
    add(database, ("a", "a1"), ("b", "b1"))
    with database.write() as connection:
        connection.execute(update(queues).where(queues.c.entry == "a").values(next_at=1))
    [a] = claim(database, most=1)

    finish(database, unsent=[a])

    assert ids(claim(database, most=1)) == ["a1"]


def test_a_replica_whose_clock_is_ahead_takes_over_no_claim(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL: all replicas on SQLite have one clock."""
    database = databases.open(databases.empty_url("postgresql"))
    migrate(database, FOLDER)
    add(database, ("a", "a1"))
    [a] = claim(database)

    monkeypatch.setattr(store, "now_ms", lambda: now_ms() + 3_600_000)
    assert claim(database) == []
    add(database, ("b", "b1"))
    assert ids(claim(database)) == ["b1"]
    monkeypatch.undo()

    finish(database, delivered(a))
    assert outcomes(database)["a1"] is Outcome.DELIVERED


def test_what_is_added_while_the_last_delivery_ends_is_not_forgotten(database: Database) -> None:
    add(database, ("a", "a1"))
    [a] = claim(database)
    ends = threading.Thread(target=finish, args=(database, delivered(a)))

    with database.write() as connection:
        store.add(database, connection, [New(ERP, "a", "a2", b"{}")])
        ends.start()  # waits for the row of the queue, or for its turn to write
    ends.join()

    assert ids(claim(database)) == ["a2"]


def test_after_the_last_attempt_a_delivery_is_given_up_and_the_next_one_sent(database: Database) -> None:
    add(database, ("a", "a1"))
    add(database, ("a", "a2"))
    [a] = claim(database)

    finish(database, failed(a, retry_in_ms=None))

    assert outcomes(database)["a1"] is Outcome.GIVEN_UP
    assert ids(claim(database)) == ["a2"]


@pytest.mark.parametrize("by_id", [True, False])
def test_what_was_given_up_can_be_replayed(database: Database, *, by_id: bool) -> None:
    add(database, ("a", "a1"), ("b", "b1"))
    a, b = claim(database)
    finish(database, failed(a, retry_in_ms=None), delivered(b))

    assert store.replay(database, ERP, ids=[a.id] if by_id else [], since=0) == (1, 0, 0)

    assert ids(claim(database)) == ["a1"]


@pytest.mark.parametrize("by_id", [True, False])
def test_what_a_later_change_has_overtaken_is_not_replayed(database: Database, *, by_id: bool) -> None:
    add(database, ("a", "added"))
    [added] = claim(database)
    finish(database, failed(added, retry_in_ms=None))
    add(database, ("a", "removed"))
    finish(database, *map(delivered, claim(database)))

    for overtaken in (1, 1 if by_id else 0):
        assert store.replay(database, ERP, ids=[added.id] if by_id else []) == (0, 0, overtaken)

    assert claim(database) == []
    assert outcomes(database)["added"] is Outcome.REPLACED


def test_what_was_overtaken_long_ago_is_not_replayed(database: Database) -> None:
    add(database, ("a", "added"), ("b", "b1"))
    add(database, ("a", "removed"))
    added, b = claim(database)
    finish(database, failed(added, retry_in_ms=None), delivered(b))
    finish(database, *map(delivered, claim(database)))
    with database.write() as connection:
        connection.execute(update(deliveries).values(at=now_ms() - (store.DELIVERED_DAYS + 1) * 86_400_000))

    store.purge(database)

    assert "b1" not in outcomes(database)
    assert store.replay(database, ERP, since=0) == (0, 0, 1), "the receiver would show a task that is gone"


def test_what_is_being_overtaken_is_not_replayed(database: Database) -> None:
    add(database, ("a", "added"))
    [added] = claim(database)
    finish(database, failed(added, retry_in_ms=None))
    add(database, ("a", "removed"), ("b", "b1"))
    sent = claim(database)

    assert store.replay(database, ERP) == (0, 0, 1)

    finish(database, *map(delivered, sent))
    assert claim(database) == []


def test_all_changes_of_an_entry_are_replayed_in_order(database: Database) -> None:
    for change in ("added", "removed"):
        add(database, ("a", change))
        finish(database, *map(delivered, claim(database)))

    assert store.replay(database, ERP, since=0, outcome=Outcome.DELIVERED) == (2, 0, 0)

    for change in ("added", "removed"):
        found = claim(database)
        assert ids(found) == [change]
        finish(database, *map(delivered, found))


def test_a_change_that_was_given_up_is_replayed_before_a_later_one_that_waits(database: Database) -> None:
    add(database, ("a", "added"))
    [added] = claim(database)
    finish(database, failed(added, retry_in_ms=None))
    add(database, ("a", "removed"))
    [removed] = claim(database)
    finish(database, failed(removed))

    assert store.replay(database, ERP) == (1, 0, 0)

    assert ids(claim(database)) == ["added"]


def test_a_delivery_that_waits_for_its_next_attempt_is_sent_at_once(database: Database) -> None:
    add(database, ("a", "a1"))
    [a] = claim(database)
    finish(database, failed(a, retry_in_ms=24 * 3_600_000))
    assert claim(database) == []

    assert store.replay(database, ERP, ids=[a.id, 4711]) == (0, 1, 0)

    assert ids(claim(database)) == ["a1"]


def test_a_replay_and_the_end_of_an_attempt_do_not_lose_each_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay has found no entry to lock yet when the delivery is given up and its queue is deleted."""
    add(database, ("a", "a1"), ("b", "b1"))
    a, b = claim(database)
    finish(database, failed(a, retry_in_ms=None))

    def meanwhile() -> int:
        monkeypatch.undo()
        if not database.is_sqlite:  # which has one writer
            finish(database, failed(b, retry_in_ms=None))
        return now_ms()

    monkeypatch.setattr(store, "now_ms", meanwhile)
    store.replay(database, ERP, since=0)
    if database.is_sqlite:
        finish(database, failed(b, retry_in_ms=None))

    assert ids(claim(database)) == ["a1"]
    assert outcomes(database)["b1"] is Outcome.GIVEN_UP, "without a queue, it would wait for ever"


def test_a_change_that_was_never_tried_is_replaced_by_the_newest(database: Database) -> None:
    add(database, ("a", "a1"))
    add(database, ("a", "a2"), ("b", "b1"))
    add(database, ("a", "a3"))

    assert ids(claim(database, collapse=True)) == ["a3", "b1"]
    assert outcomes(database)["a1"] is outcomes(database)["a2"] is Outcome.REPLACED


def test_a_change_that_was_tried_is_not_replaced(database: Database) -> None:
    add(database, ("a", "a1"))
    [a] = claim(database, collapse=True)
    add(database, ("a", "a2"))
    finish(database, failed(a, retry_in_ms=0))

    assert ids(claim(database, collapse=True)) == ["a1"]


def test_a_gone_endpoint_is_disabled_and_its_delivery_waits(database: Database) -> None:
    store.register(database, {ERP: False})
    add(database, ("a", "a1"))
    [a] = claim(database)

    finish(database, failed(a, retry_in_ms=0, disable="it answered 410 Gone"))

    assert store.states(database)[ERP].disabled == "it answered 410 Gone"
    assert outcomes(database)["a1"] is Outcome.WAITING


def test_an_endpoint_that_fails_for_five_days_is_disabled(database: Database) -> None:
    store.register(database, {ERP: False})
    add(database, ("a", "a1"), ("b", "b1"))
    a, b = claim(database)
    finish(database, failed(a))
    state = store.states(database)[ERP]
    assert state.failing_since is not None
    assert state.disabled is None
    with database.write() as connection:
        connection.execute(update(endpoints).values(failing_since=now_ms() - store.FAILING_MS - 1))

    finish(database, failed(b))

    assert store.states(database)[ERP].disabled == "it has failed for five days"


def test_a_failure_long_after_another_one_disables_nothing(database: Database) -> None:
    store.register(database, {ERP: False})
    add(database, ("a", "a1"))
    finish(database, failed(*claim(database), retry_in_ms=None))
    with database.write() as connection:
        connection.execute(update(endpoints).values(failing_since=now_ms() - store.FAILING_MS - 1))
        connection.execute(update(deliveries).values(attempted_at=now_ms() - store.SILENCE_MS - 1))
    add(database, ("b", "b1"))

    finish(database, failed(*claim(database)))

    state = store.states(database)[ERP]
    assert state.disabled is None
    assert state.failing_since is not None
    assert state.failing_since > now_ms() - store.FAILING_MS


def test_a_success_ends_the_failing(database: Database) -> None:
    store.register(database, {ERP: False})
    add(database, ("a", "a1"), ("b", "b1"))
    a, b = claim(database)
    finish(database, failed(a))

    finish(database, delivered(b))

    assert store.states(database)[ERP].failing_since is None


def test_an_enabled_endpoint_gets_what_waits_at_once(database: Database) -> None:
    store.register(database, {ERP: False})
    add(database, ("a", "a1"))
    [a] = claim(database)
    finish(database, failed(a))
    store.set_enabled(database, ERP, reason="moves")

    store.set_enabled(database, ERP, reason=None)

    assert ids(claim(database)) == ["a1"]


def test_an_endpoint_is_enabled_while_an_attempt_at_it_ends(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the attempt has locked the entry, and not yet the endpoint."""
    store.register(database, {ERP: False})
    add(database, ("a", "a1"))
    finish(database, *(failed(each, retry_in_ms=0) for each in claim(database)))
    [a] = claim(database)
    note = store._note  # pyright: ignore[reportPrivateUsage]
    enabling = threading.Thread(target=lambda: store.set_enabled(database, ERP, reason=None))
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    def is_waiting() -> bool:
        with database.read() as connection:
            return database.is_sqlite or bool(connection.scalar(waits))

    def meanwhile(connection: Connection, endpoint: str, results: Sequence[Result]) -> None:
        enabling.start()
        while not is_waiting():
            pass
        note(connection, endpoint, results)

    monkeypatch.setattr(store, "_note", meanwhile)
    finish(database, delivered(a))
    enabling.join()

    assert store.states(database)[ERP].condition == "enabled"


def test_an_entry_that_a_live_notification_came_for_is_left_out_of_the_present_ones(database: Database) -> None:
    add(database, ("a", "live"))

    add(database, ("a", "old"), ("b", "b1"), only_first=True)

    assert ids(claim(database)) == ["b1", "live"]
    assert "old" not in outcomes(database)


def test_endpoints_do_not_see_each_other(database: Database) -> None:
    add(database, ("a", "a1"))
    add(database, ("a", "a1"), endpoint="other")
    finish(database, *map(delivered, claim(database)))

    assert store.waiting(database, [ERP, "other"]).keys() == {"other"}


def test_old_deliveries_are_deleted_and_waiting_ones_stay(database: Database) -> None:
    add(database, ("a", "a1"), ("b", "b1"), ("c", "c1"))
    a, b, _ = claim(database)
    finish(database, delivered(a), failed(b, retry_in_ms=None))
    with database.write() as connection:
        connection.execute(update(deliveries).values(at=now_ms() - 4 * 86_400_000))

    assert store.purge(database) == 1
    assert outcomes(database).keys() == {"b1", "c1"}


def test_what_waits_for_an_endpoint_that_gets_nothing_is_deleted_after_30_days(database: Database) -> None:
    add(database, ("a", "a1"), ("b", "b1"))
    add(database, ("a", "a1"), endpoint="used")
    with database.write() as connection:
        connection.execute(update(deliveries).values(at=now_ms() - 31 * 86_400_000))
    add(database, ("a", "a2"))

    assert store.purge(database, idle=[ERP]) == 2

    assert store.waiting(database, ["used"])["used"].deliveries == 1
    with database.read() as connection:
        assert set(connection.scalars(select(queues.c.entry).where(queues.c.endpoint == ERP))) == {"a"}
    assert ids(claim(database)) == ["a2"]
