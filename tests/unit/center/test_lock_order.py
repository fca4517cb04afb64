"""Transactions of PostgreSQL that meet wait for each other in one direction only: see locks-and-transactions.md.

Each test forces the order that would deadlock: while a third session has a lock, all others wait for it, or for each
other. Then it lets go.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, insert, select, text, true
from sqlalchemy.event import listen

from support.center_rows import AnsweringCenter, state, unchecked
from taskbridge.center.access.access import Access, Caller
from taskbridge.center.access.audit import _LOCK  # pyright: ignore[reportPrivateUsage]
from taskbridge.center.access.delegations import Delegation, Delegations
from taskbridge.center.access.sessions import Session, Sessions
from taskbridge.center.actions.store import DONE, REQUESTED, ActionRequest, Actions
from taskbridge.center.actions.systems import Systems
from taskbridge.center.actions.targets import AGREE, Endpoint, Endpoints
from taskbridge.center.api.marks import MarkChange, MarksStore
from taskbridge.center.erasure import Erasure
from taskbridge.center.tables import READ_MARK, actions, audit, delegations, marks, preferences, sessions
from taskbridge.runtime.database import Threads
from taskbridge.runtime.refusals import Unknown
from taskbridge.schemas.events import PersonRecord, Status, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy import Connection, Table

    from support.center import Databases
    from taskbridge.runtime.database import Database

ANN, BOB = ("corp", "ann"), ("corp", "bob")
BY_ANN = Caller("sso", corp_id="corp", user_id="ann")
ENDPOINTS = Endpoints({("corp", "erp"): Endpoint("http://127.0.0.1:1/actions", b"key")})
SYSTEMS = Systems(endpoints=lambda: ENDPOINTS)
NOW = 1_767_571_200_000
_WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


class Meeting:
    """Sessions of one database of PostgreSQL."""

    def __init__(self, databases: Databases) -> None:
        url = databases.new_url("postgresql")
        self.holder, self.watcher, *self.replicas = (databases.open(url) for _ in range(4))
        self.rows = AnsweringCenter(self.holder, Access(None))
        self.rows.store(*(state(f"I-{n}", source="erp", tasks=(_task("ann"),)) for n in range(10)))
        self.rows.know("corp", PersonRecord("ann"))
        self.rows.know("corp", PersonRecord("bob"))

    def run(self, hold: Callable[[Connection], object], *works: Callable[[Database], object]) -> None:
        """Begin the works one after the other while ``hold`` has a lock; raises what one of them raises."""
        failures: list[BaseException] = []

        def run(work: Callable[[Database], object], database: Database) -> None:
            try:
                work(database)
            except BaseException as error:  # noqa: BLE001 - raised below
                failures.append(error)

        threads: list[threading.Thread] = []
        with self.holder.write() as connection, self.watcher.read() as watching:
            hold(connection)
            for each in zip(works, self.replicas, strict=True):
                threads.append(threading.Thread(target=run, args=each))
                threads[-1].start()
                while watching.execute(_WAITING).scalar_one() < len(threads) and not failures:
                    pass
        for each in threads:
            each.join()
        for each in failures:
            raise each

    def count(self, table: Table) -> int:
        with self.watcher.read() as connection:
            return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _task(user: str) -> TaskEntry:
    return TaskEntry("T-1", Status.PENDING, (user,))


@pytest.fixture
def meeting(databases: Databases) -> Generator[Meeting]:
    found = Meeting(databases)
    yield found
    found.rows.close()


def have_the_trail(connection: Connection) -> None:
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


def decide(database: Database, *numbers: int) -> None:
    wanted = [ActionRequest("ann", f"I-{each}", "T-1", AGREE, "", "") for each in numbers]
    Actions(database, unchecked).request(BY_ANN, wanted, SYSTEMS, address="", now=NOW)


def test_two_tabs_that_decide_the_same_tasks_in_opposite_order(meeting: Meeting) -> None:
    meeting.run(
        have_the_trail,
        lambda database: decide(database, *range(10)),
        lambda database: decide(database, *reversed(range(10))),
    )
    assert (meeting.count(actions), meeting.count(audit)) == (10, 10)


def test_a_decision_that_ends_while_its_task_is_decided_again(meeting: Meeting) -> None:
    decide(meeting.holder, 1)
    (action,) = Actions(meeting.holder, unchecked).due(now=NOW)
    meeting.run(
        have_the_trail,
        lambda database: decide(database, 0, 1),
        lambda database: Actions(database, unchecked).advance(action, status=DONE, due_at=None),
    )
    with meeting.watcher.read() as connection:
        ends = connection.execute(select(actions.c.status).where(actions.c.action_id == action.action_id)).scalar()
    assert ends == DONE


def test_a_decision_that_ends_just_after_it_was_in_the_way_of_another(meeting: Meeting) -> None:
    decide(meeting.holder, 1)
    (action,) = Actions(meeting.holder, unchecked).due(now=NOW)
    replica = meeting.replicas[0]

    def end(*event: object) -> None:
        if str(event[2]).startswith("INSERT INTO actions"):
            Actions(meeting.holder, unchecked).advance(action, status=DONE, due_at=None)

    listen(replica.engine, "after_cursor_execute", end)
    decide(replica, 1)
    with meeting.watcher.read() as connection:
        statuses = connection.execute(select(actions.c.status).order_by(actions.c.status)).scalars().all()
    assert statuses == [DONE, REQUESTED]


def test_a_person_who_is_erased_while_they_end_a_delegation(meeting: Meeting) -> None:
    wanted = Delegation("", *ANN, "bob", "", "", NOW, NOW + 3_600_000)
    given = Delegations(meeting.holder, unchecked).add(BY_ANN, wanted, address="", now=NOW)
    with pytest.raises(Unknown, match="no such delegation"):
        meeting.run(
            have_the_trail,
            lambda database: Erasure(database).erase(ANN),
            lambda database: Delegations(database, unchecked).end(BY_ANN, ANN, given.delegation_id, address=""),
        )
    assert meeting.count(delegations) == 0


def test_two_tabs_that_mark_and_unmark_the_same_entries(meeting: Meeting) -> None:
    entries = ["I-0", "I-1", "I-2"]

    def mark(database: Database, read: list[str], unread: list[str]) -> None:
        changed = [MarkChange("pending", each, "T-1", {READ_MARK: NOW if each in read else None}) for each in entries]
        MarksStore(database, unchecked).change(ANN, [each for each in changed if each.instance_id in (*read, *unread)])

    mark(meeting.holder, entries, [])
    last = select(marks).where(marks.c.instance_id == "I-2").with_for_update()
    meeting.run(
        lambda connection: connection.execute(last).all(),
        lambda database: mark(database, ["I-1", "I-2"], ["I-0"]),
        lambda database: mark(database, ["I-0", "I-2"], ["I-1"]),
    )


def test_a_person_who_signs_out_everywhere_while_their_sessions_are_noted_as_used(meeting: Meeting) -> None:
    threads = Threads(2, writers=2)
    digests = ["c", "b", "a"]
    now = {"created_at": NOW, "used_at": NOW}
    with meeting.holder.write() as connection:
        rows = [{"token_sha256": each, "corp_id": "corp", "user_id": "ann", "roles": "", **now} for each in digests]
        connection.execute(insert(sessions), rows)

    def of(database: Database) -> Sessions:
        return Sessions(database, threads, idle_s=1e9, longest_s=1e9)

    def note(database: Database) -> None:
        found = of(database)
        found._used.update(digests)  # pyright: ignore[reportPrivateUsage] - as by requests a minute later
        asyncio.run(found.refresh())

    middle = select(sessions).where(sessions.c.token_sha256 == "b").with_for_update()
    meeting.run(
        lambda connection: connection.execute(middle).all(),
        note,
        lambda database: asyncio.run(of(database).end(Session(*ANN, frozenset(), "a"), everywhere=True)),
    )
    assert meeting.count(sessions) == 0
    threads.close()


def test_a_person_who_is_erased_while_they_sign_out_everywhere(meeting: Meeting) -> None:
    threads = Threads(2, writers=2)
    row = {"token_sha256": "a", "corp_id": "corp", "user_id": "ann", "roles": "", "created_at": NOW, "used_at": NOW}
    with meeting.holder.write() as connection:
        connection.execute(insert(sessions), [row])

    def sign_out(database: Database) -> None:
        found = Sessions(database, threads, idle_s=1e9, longest_s=1e9)
        asyncio.run(found.end(Session(*ANN, frozenset(), "a"), everywhere=True))

    meeting.run(
        lambda connection: connection.execute(select(sessions).with_for_update()).all(),
        lambda database: Erasure(database).erase(ANN),
        sign_out,
    )
    assert meeting.count(sessions) == 0
    threads.close()


def test_a_purge_waits_for_no_row(meeting: Meeting) -> None:
    with meeting.holder.write() as connection:
        rows = [{"corp_id": "corp", "user_id": each, "data": b"{}"} for each in ("ann", "bob")]
        connection.execute(insert(preferences), rows)
    with meeting.holder.write() as connection:
        connection.execute(select(preferences).where(preferences.c.user_id == "ann").with_for_update())
        assert meeting.watcher.purge(preferences, true()) == 1
    assert meeting.watcher.purge(preferences, true()) == 1
