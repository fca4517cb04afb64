"""Histories and what an operator searches, from their topics; and what is deleted when it is old."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, insert, select

from support.center_records import NOW_MS, REGISTRY, FakeTopic, Replica, states_of
from support.streams.lives import lives
from taskbridge.center.follow.records import purge
from taskbridge.center.tables import DEAD_LETTER, QUARANTINED, changes, events, instances, set_aside
from taskbridge.runtime.follow.positions import renew_epoch
from taskbridge.runtime.follow.tables import skipped
from taskbridge.schemas.codec import quarantined_callback_codec, task_event_codec
from taskbridge.schemas.dead_letters import DlqReason, dead_letter_headers, replay_headers
from taskbridge.schemas.events import Lifecycle, QuarantinedCallback, TaskEvent
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS, TASK_EVENTS_DLQ, TASK_STATES

if TYPE_CHECKING:
    from taskbridge.runtime.database import Database

DAY_MS = 24 * 60 * 60 * 1000


def entries_in(database: Database) -> list[tuple[Any, ...]]:
    columns = (set_aside.c.kind, set_aside.c.entry_id, set_aside.c.reason, set_aside.c.search, set_aside.c.replayed_at)
    with database.read() as connection:
        found = connection.execute(select(*columns).where(set_aside.c.reason != "").order_by(*columns[:2]))
        return [tuple(each) for each in found]


def test_every_event_is_there_once(database: Database) -> None:
    topic = FakeTopic(TASK_EVENTS.name)
    made = lives(5, seed=1)
    encode = task_event_codec(REGISTRY).encode
    for each in made:
        topic.append(each.instance_id.encode(), encode(each))
    topic.append(b"I", b"damaged")
    topic.append(b"I", None)
    Replica(database, topic).follow(batch=7)
    with database.read() as connection:
        rows = connection.execute(select(events)).all()
        assert len(connection.execute(select(skipped)).all()) == 2
    assert {each.event_id: msgspec.json.decode(each.data, type=TaskEvent) for each in rows} == {
        each.event_id: each for each in made
    }
    for each in rows:
        # Of the first time that it was on the topic.
        first = next(one for one in topic.records if each.event_id.encode() in (one.value() or b""))
        assert (each.partition, each.offset) == (first.partition(), first.offset())


def test_dead_letters_and_requests_are_there_with_their_replays(database: Database) -> None:
    letters, requests = FakeTopic(TASK_EVENTS_DLQ.name), FakeTopic(CALLBACKS_QUARANTINE.name)
    headers = dead_letter_headers(DlqReason.UNDECODABLE, "why", topic="t", partition=0, offset=7, now_ms=NOW_MS)
    letters.append(b"I-1\0", b"bytes", partition=2, headers=headers)
    letters.append(b"\xff", b"of another program", partition=2)
    body = '{"procInstId": "实例-1"}'.encode() + b"\0\xff"
    request = QuarantinedCallback("Q-1", NOW_MS, "create", "bad-sign", "APP", "1.2.3.4", "POST", "/p", "q=1", {}, body)
    # The mark of its replay is read first: without a key, partitions are any.
    requests.append(b"", None, partition=0, headers=replay_headers("Q-1", NOW_MS))
    requests.append(b"", None, partition=0, headers=replay_headers("Q-1", NOW_MS + 1))
    requests.append(b"", quarantined_callback_codec(REGISTRY).encode(request), partition=1)
    letters.append(b"I-1\0", None, partition=2, headers=replay_headers("2-0", NOW_MS))
    replica = Replica(database, letters, requests)
    for each in (*letters.records, *requests.records):
        replica.write([each])
    at = "2023-11-14T22:13:20.000Z"
    assert entries_in(database) == [
        (DEAD_LETTER, "2-0", "undecodable", "I-1\ufffd", at),
        (DEAD_LETTER, "2-1", "unknown", "\ufffd", None),
        (QUARANTINED, "Q-1", "bad-sign", 'q=1\n{"procInstId": "实例-1"}\ufffd\ufffd', at),
    ]
    with database.read() as connection:
        shown = connection.execute(select(set_aside.c.summary).where(set_aside.c.entry_id == "2-0")).scalar_one()
        assert msgspec.json.decode(shown)["detail"] == "why"


def test_old_rows_are_purged_but_not_events_of_present_instances(database: Database) -> None:
    topic, states = FakeTopic(TASK_EVENTS.name), FakeTopic(TASK_STATES.name)
    made = lives(25, seed=3)
    encode = task_event_codec(REGISTRY).encode
    last = {each.instance_id: each for each in states_of(made)}
    present = {key for key, each in last.items() if each.lifecycle is Lifecycle.ACTIVE}
    assert 0 < len(present) < len(last)
    for each in made:
        topic.append(each.instance_id.encode(), encode(each))
    for each in last.values():
        states.append_state(each)
    replica = Replica(database, topic, states, filled=False)
    received = made[0].received_at

    replica.write(topic.records)
    assert purge(database, now_ms=received + 31 * DAY_MS) == 0, "while states are missing, so are instances"
    replica.follow()
    assert purge(database, now_ms=received + 29 * DAY_MS) == 0
    assert purge(database, now_ms=received + 31 * DAY_MS) > 0
    with database.read() as connection:
        assert set(connection.execute(select(events.c.instance_id)).scalars()) == present

    deleted = min(present)
    states.append(deleted.encode(), None)
    replica.follow()
    with database.read() as connection:
        assert set(connection.execute(select(events.c.instance_id)).scalars()) == present - {deleted}
        assert set(connection.execute(select(instances.c.instance_id)).scalars()) == present - {deleted}


def test_however_old_events_are_those_of_deleted_instances_go(database: Database) -> None:
    """A database that was away for days, or is filled, has events that no hourly purge has seen become old."""
    topic, states = FakeTopic(TASK_EVENTS.name), FakeTopic(TASK_STATES.name)
    made = lives(25, seed=3)
    encode = task_event_codec(REGISTRY).encode
    last = {each.instance_id: each for each in states_of(made)}
    for each in last.values():
        states.append_state(each)
    present = {key for key, each in last.items() if each.lifecycle is Lifecycle.ACTIVE}
    for each in made:
        topic.append(each.instance_id.encode(), encode(each))
    replica = Replica(database, topic, states, filled=False)
    late = made[0].received_at + 90 * DAY_MS
    followed = replica.followed[TASK_EVENTS.name]

    def instances_with_events() -> set[str]:
        with database.read() as connection:
            return set(connection.execute(select(events.c.instance_id)).scalars())

    replica.write(topic.records)
    followed.purge(late)
    assert instances_with_events() == set(last), "while states are missing, so are instances"
    replica.write(states.records)
    followed.purge(late)
    assert instances_with_events() == present

    # Read again after the purge, as when a partition is read from its beginning.
    gone = min(set(last) - present)
    again = [each for each in topic.records if each.key() == gone.encode()]
    with database.write() as connection:
        followed.write(connection, replica.records(again))
    assert instances_with_events() == present | {gone}
    followed.purge(late)
    assert instances_with_events() == present

    # States that are read again may lack instances whose events were looked at before.
    lost = min(present)
    with database.write() as connection:
        connection.execute(delete(instances).where(instances.c.instance_id == lost))
    followed.purge(late)
    assert instances_with_events() == present, "the lists are the same as before"
    with database.write() as connection:
        renew_epoch(connection)
    followed.purge(late)
    assert instances_with_events() == present - {lost}


def test_changes_and_entries_are_purged_after_their_time(database: Database) -> None:
    with database.write() as connection:
        for days in (1, 3, 8, 31):
            at = NOW_MS - days * DAY_MS
            connection.execute(
                insert(changes).values(corp_id="c", user_id="u", seq=days, at=at, instance_id="I", data=b"")
            )
            for kind in (QUARANTINED, DEAD_LETTER):
                row = {"kind": kind, "entry_id": str(days), "at": at, "reason": "r", "search": "", "summary": b""}
                connection.execute(insert(set_aside).values(row))
    assert purge(database, now_ms=NOW_MS) == 6
    with database.read() as connection:
        assert connection.execute(select(changes.c.seq)).scalars().all() == [1]
    assert [each[:2] for each in entries_in(database)] == [
        (DEAD_LETTER, "1"),
        (DEAD_LETTER, "3"),
        (DEAD_LETTER, "8"),
        (QUARANTINED, "1"),
        (QUARANTINED, "3"),
    ]
