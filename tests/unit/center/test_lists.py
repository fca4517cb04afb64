"""Rows are those of the views of the states, in any order and with any repetition."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from sqlalchemy import inspect, select

from support.center_records import (
    REGISTRY,
    FakeMessage,
    FakeTopic,
    Replica,
    changes_in,
    lines_in,
    lines_of,
    states_in,
    states_of,
    target_partition,
)
from support.plans import Plans
from support.streams.lives import lives
from taskbridge.center.tables import FOLLOWED, changes, entries, forms, people, person_ids, replicas
from taskbridge.runtime.database import DatabaseUnavailable
from taskbridge.runtime.follow.batch import PositionLost
from taskbridge.runtime.follow.positions import epoch, note_boot, progress, rebuild
from taskbridge.runtime.follow.tables import about, positions, skipped
from taskbridge.schemas.codec import form_codec, person_codec
from taskbridge.schemas.events import Form, Lifecycle, Person, PersonRecord, Status, TaskEntry, TaskState
from taskbridge.schemas.topics import FORMS, PEOPLE, TASK_STATES

if TYPE_CHECKING:
    from support.center import Databases
    from taskbridge.runtime.database import Database

ANN = ("corp", "ann")


def state(instance_id: str = "I-1", revision: int = 1, **fields: object) -> TaskState:
    """One that Ann originated."""
    given = {"originator": Person("ann"), "title": "Leave", **fields}
    return TaskState(instance_id, "corp", "APP", 1_000 + revision, revision, **given)  # pyright: ignore[reportArgumentType]


def partition_of(instance_id: str, topic: FakeTopic) -> int:
    return target_partition(instance_id.encode(), topic.partitions)


def test_a_task_that_is_pending_after_the_end_of_its_instance_says_so(database: Database) -> None:
    tasks = TaskEntry("T-1", Status.PENDING, ("ann",), created_at=1_000, due_at=2_000), TaskEntry("T-2", Status.PENDING)
    topic = FakeTopic()
    replica = Replica(database, topic)
    topic.append_state(state(tasks=tasks))
    replica.follow()
    open_line = lines_in(database)["corp", "ann", "PENDING", "I-1", "T-1"]
    assert (open_line.finished_at, open_line.result, open_line.due_at) == (None, None, 2_000)
    topic.append_state(state(revision=2, tasks=tasks, finished_at=5_000, result="agree"))
    replica.follow()
    line = lines_in(database)["corp", "ann", "PENDING", "I-1", "T-1"]
    assert (line.status, line.finished_at, line.result, line.due_at) == (Status.PENDING, 5_000, "agree", None)
    latest = changes_in(database)[ANN][-1]
    assert (latest["view"], latest["change"], latest["result"]) == ("pending", "UPDATED", "agree")


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_rows_equal_the_views_of_the_latest_states(database: Database, batch: int) -> None:
    states = states_of(lives(15, seed=batch))
    topic = FakeTopic()
    for each in states:
        topic.append_state(each)
    Replica(database, topic).follow(batch=batch, chance=random.Random(batch))
    assert lines_in(database) == lines_of(states)
    last = {each.instance_id: each for each in states}
    assert states_in(database) == {key: each for key, each in last.items() if each.lifecycle is Lifecycle.ACTIVE}
    folded: dict[tuple[str, str], set[tuple[str, str, str | None]]] = {}
    for person, found in changes_in(database).items():
        held = folded.setdefault(person, set())
        for each in found:
            line = each["view"], each["instance_id"], each["task_id"]
            assert (line in held) == (each["change"] != "ADDED")
            (held.discard if each["change"] == "REMOVED" else held.add)(line)
    assert {
        (*person, view.upper(), instance_id, task_id or "")
        for person, held in folded.items()
        for view, instance_id, task_id in held
    } == lines_of(states).keys()


def test_a_repeated_topic_changes_no_row_and_publishes_nothing(database: Database) -> None:
    states = states_of(lives(10, seed=1))
    last = {each.instance_id: each for each in states}
    topic = FakeTopic()
    for each in states:
        topic.append_state(each)
    replica = Replica(database, topic)
    replica.follow()
    before = lines_in(database), changes_in(database)
    for each in last.values():
        topic.append_state(each)
    replica.follow()
    assert (lines_in(database), changes_in(database)) == before
    assert not replica.wrote[-1]


def test_changes_are_published_only_once_the_partition_is_complete(database: Database) -> None:
    topic = FakeTopic()
    topic.append_state(state(revision=1))
    replica = Replica(database, topic, filled=False)
    with database.read() as connection:
        assert progress(connection, TASK_STATES.name) == (False, 0, 1)
    replica.follow()
    assert changes_in(database) == {}
    with database.read() as connection:
        assert progress(connection, TASK_STATES.name) == (True, 1, 1)
    topic.append_state(state(revision=2, title="Travel"))
    replica.follow()
    assert [(each["change"], each["title"]) for each in changes_in(database)[ANN]] == [("UPDATED", "Travel")]


def test_the_entries_of_an_instance_are_found_by_its_number(database: Database) -> None:
    topic = FakeTopic()
    for number in range(500):
        topic.append_state(state(f"I-{number}"))
    replica = Replica(database, topic)
    replica.follow()
    # Without statistics of the tables, as while they are filled.
    plans = Plans(database)
    for number in range(400):
        topic.append_state(state(f"I-{number}", revision=2))
    replica.follow()
    [plan] = [plan for sql, plan in plans.items() if "FROM instances" in sql and "JOIN entries" in sql]
    by_index = (
        "sqlite_autoindex_entries_1 (instance=?)" if database.is_sqlite else "Index Cond: (instance = instances.id)"
    )
    assert by_index in plan, plan


def page_index(database: Database) -> bool:
    with database.read() as connection:
        return "entries_page" in {each["name"] for each in inspect(connection).get_indexes("entries")}


def test_the_index_of_pages_is_there_once_lists_are_complete(database: Database) -> None:
    topic = FakeTopic()
    for number in range(20):
        topic.append_state(state(f"I-{number}"))
    replica = Replica(database, topic, filled=False)
    assert not page_index(database)
    records = topic.records
    replica.write([each for each in records if each.partition() != 1])
    assert not page_index(database)
    Replica(database, topic, filled=False).write([each for each in records if each.partition() == 1])
    assert page_index(database)
    with database.write() as connection:
        connection.execute(positions.delete().where(positions.c.partition == 1))
    Replica(database, topic, filled=False)
    assert page_index(database), "rows are there, and were read"


def test_replicas_that_complete_their_shares_at_once_create_the_index(databases: Databases) -> None:
    url = databases.new_url("postgresql")
    topic = FakeTopic()
    for number in range(40):
        topic.append_state(state(f"I-{number}"))
    replicas = [Replica(databases.open(url), topic, filled=False) for _ in range(2)]
    shares = [[each for each in topic.records if each.its_partition % 2 == half] for half in range(2)]

    def write(replica: Replica, share: list[FakeMessage]) -> None:
        while True:
            try:
                return replica.write(share)
            except DatabaseUnavailable as error:
                if not error.is_conflict:
                    raise

    threads = [threading.Thread(target=write, args=each) for each in zip(replicas, shares, strict=True)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert page_index(replicas[0].database)


def test_texts_that_a_database_cannot_hold_are_replaced_or_cut(database: Database) -> None:
    topic = FakeTopic()
    topic.append_state(state("I-1", title="a\0b" + "长" * 5_000, process_name="p\0", originator=Person("a\0nn")))
    Replica(database, topic).follow()
    with database.read() as connection:
        row = connection.execute(select(entries)).one()
    assert (row.user_id, row.process_name) == ("a\ufffdnn", "p\ufffd")
    assert row.search.startswith("a\ufffdb长长")
    assert len(row.search.encode()) <= 2_000


def test_a_tombstone_counts_from_any_partition(database: Database) -> None:
    # Where a topic was created again with more partitions, the row still has its former one.
    topic = FakeTopic()
    partition = partition_of("I-1", topic)
    topic.append_state(state(), partition=(partition + 1) % topic.partitions)
    replica = Replica(database, topic)
    replica.follow()
    topic.append(b"I-1", None, partition=partition)
    replica.follow()
    assert lines_in(database) == {}
    assert [each["change"] for each in changes_in(database)[ANN]] == ["ADDED", "REMOVED"]


def test_a_record_that_cannot_be_read_is_skipped_and_leaves_its_rows(database: Database) -> None:
    topic = FakeTopic()
    topic.append_state(state("I-1"))
    topic.append(b"I-1", b"damaged")
    topic.append(b"I-2", topic.records[0].value())
    topic.append(b"\xff", topic.records[0].value())
    topic.append_state(state("I-3"))
    Replica(database, topic).follow()
    assert {line[3] for line in lines_in(database)} == {"I-1", "I-3"}
    with database.read() as connection:
        reasons = dict(connection.execute(select(skipped.c.key, skipped.c.reason)).all())
    assert reasons["I-2"] == "it is about another instance than its key"
    assert reasons["\ufffd"] == "its key is not UTF-8"
    assert reasons.keys() == {"I-1", "I-2", "\ufffd"}


@pytest.mark.parametrize(
    "bad",
    [state(originator=Person("x" * 640)), state(assignee_ids=("ann", "人" * 220))],
    ids=["originator", "assignee"],
)
def test_ids_that_no_index_could_hold_are_refused_before_there_is_one(database: Database, bad: TaskState) -> None:
    topic = FakeTopic()
    topic.append_state(bad)
    with pytest.raises(ValueError, match="more than 640 bytes"):
        Replica(database, topic, filled=False).follow()
    assert lines_in(database) == {}


def test_a_replica_that_lost_its_partition_writes_nothing(database: Database) -> None:
    topic = FakeTopic()
    first, second = Replica(database, topic), Replica(database, topic)
    topic.append_state(state(title="first"))
    first.follow()
    late = topic.append_state(state(revision=2, title="late"))
    with pytest.raises(PositionLost):
        second.write([late])
    assert [each.title for each in lines_in(database).values()] == ["first"]
    first.write([late])
    assert [each.title for each in lines_in(database).values()] == ["late"]


def test_a_batch_with_one_lost_partition_is_rolled_back_whole(database: Database) -> None:
    topic = FakeTopic()
    first, second = Replica(database, topic), Replica(database, topic)
    records = [topic.append_state(state(f"I-{number}")) for number in range(20)]
    first.write([each for each in records if each.partition() == 1])
    before = lines_in(database)
    with pytest.raises(PositionLost):
        second.write(records)
    assert lines_in(database) == before


def test_numbers_of_changes_become_visible_in_their_order(databases: Databases) -> None:
    """Two replicas write changes of one person at once: a reader sees no number before a lower one."""
    url = databases.new_url("postgresql")
    topic = FakeTopic()
    instances = [f"I-{number}" for number in range(40)]
    writers = [Replica(databases.open(url), topic) for _ in range(2)]
    shares = [[each for each in instances if partition_of(each, topic) % 2 == half] for half in range(2)]
    failures: list[BaseException] = []

    def write(replica: Replica, mine: list[str]) -> None:
        try:
            for revision in range(15):
                batch = [state(each, revision, title=f"{each} {revision}") for each in mine]
                replica.write([append(each) for each in batch])
        except BaseException as error:  # noqa: BLE001 - reported below
            failures.append(error)

    appending = threading.Lock()

    def append(each: TaskState) -> FakeMessage:
        with appending:
            return topic.append_state(each)

    threads = [threading.Thread(target=write, args=each) for each in zip(writers, shares, strict=True)]
    for each in threads:
        each.start()
    reader, seen = databases.open(url), 0
    while any(each.is_alive() for each in threads):
        with reader.read() as connection:
            numbers = sorted(connection.execute(select(changes.c.seq)).scalars())
        assert numbers == list(range(1, len(numbers) + 1))
        seen += 0 < len(numbers) < 600
    for each in threads:
        each.join()
    assert failures == []
    assert seen
    assert len(changes_in(reader)[ANN]) == 600


def test_a_rebuild_drops_what_is_followed_and_nothing_else(database: Database) -> None:
    topic = FakeTopic()
    topic.append_state(state())
    replica = Replica(database, topic)
    replica.follow()
    with database.write() as connection:
        connection.execute(replicas.insert().values(replica="r", at=1, share=b""))
        before = epoch(connection)
    assert rebuild(database, FOLLOWED)["entries"] == 1
    assert lines_in(database) == {}
    with database.read() as connection:
        assert connection.execute(select(replicas.c.replica)).scalar() == "r"
        assert epoch(connection) != before
        assert not progress(connection, TASK_STATES.name).complete
    late = topic.append_state(state(revision=2))
    with pytest.raises(PositionLost):
        replica.write([late])
    Replica(database, topic).follow()
    assert len(lines_in(database)) == 1


def test_event_ids_begin_again_after_the_machine_has_started_again(sqlite_database: Database) -> None:
    def found() -> str:
        note_boot(sqlite_database)
        with sqlite_database.read() as connection:
            return epoch(connection)

    before = found()
    assert found() == before
    with sqlite_database.write() as connection:
        connection.execute(about.update().where(about.c.name == "boot").values(value="an earlier start"))
    assert found() != before


def test_a_dropped_partition_takes_its_rows(database: Database) -> None:
    topic = FakeTopic()
    for number in range(20):
        topic.append_state(state(f"I-{number}"))
    replica = Replica(database, topic)
    replica.follow()
    with database.write() as connection:
        replica.followed[TASK_STATES.name].drop(connection, 1)
    assert {line[3] for line in lines_in(database)} == {
        f"I-{number}" for number in range(20) if partition_of(f"I-{number}", topic) != 1
    }


def test_people_and_forms_are_as_their_latest_records(database: Database) -> None:
    person, form = person_codec(REGISTRY).encode, form_codec(REGISTRY).encode
    people_topic, forms_topic = FakeTopic(PEOPLE.name), FakeTopic(FORMS.name)
    ann = PersonRecord("ann", "Ann\0", "Sales", "7", {"mail": "a@x", "none": ""})
    people_topic.append(b"corp/ann", person(ann))
    people_topic.append(b"corp/bob", person(PersonRecord("bob", "Bob", employee_number="7")))
    people_topic.append(b"corp/cai", person(PersonRecord("cai", "Cai", employee_number="8")))
    people_topic.append(b"corp/dan", person(PersonRecord("else", "Dan")))
    people_topic.append(b"nobody", person(PersonRecord("nobody")))
    forms_topic.append(b"corp/F-1", form(Form("F-1", "Leave", {"a": "Days"})))
    forms_topic.append(b"corp/F-2", form(Form("F-2", "Travel")))
    replica = Replica(database, people_topic, forms_topic)
    replica.follow()
    people_topic.append(b"corp/ann", person(replace(ann, name="Anna", employee_number=None)))
    people_topic.append(b"corp/cai", None)
    forms_topic.append(b"corp/F-2", None)
    replica.follow()
    with database.read() as connection:
        found = connection.execute(select(people.c.user_id, people.c.name, people.c.department, people.c.search))
        assert sorted(found) == [("ann", "Anna", "Sales", "anna\nann\nsales"), ("bob", "Bob", None, "bob\nbob\n")]
        ids = connection.execute(select(person_ids.c.kind, person_ids.c.value, person_ids.c.user_id))
        assert sorted(ids) == [("employee_number", "7", "bob"), ("mail", "a@x", "ann")]
        assert connection.execute(select(forms.c.form_uuid, forms.c.title, forms.c.labels)).all() == [
            ("F-1", "Leave", b'{"a":"Days"}')
        ]
        assert sorted(connection.execute(select(skipped.c.key)).scalars()) == ["corp/dan", "nobody"]


def test_a_decision_moves_the_entry_and_notifies_both(sqlite_database: Database) -> None:
    pending = TaskEntry("T-1", Status.PENDING, ("bob",), created_at=1_001)
    topic = FakeTopic()
    topic.append_state(state(tasks=(pending,)))
    decided = replace(pending, status=Status.COMPLETED, actor_id="bob", decided_at=1_002, outcome="agree", remark="ok")
    topic.append_state(state(revision=2, tasks=(decided,)))
    replica = Replica(sqlite_database, topic)
    replica.follow(batch=1)
    assert replica.wrote[-1] == {("corp", "ann"), ("corp", "bob")}
    shown = [(each["view"], each["change"], each["remark"]) for each in changes_in(sqlite_database)["corp", "bob"]]
    assert shown == [("pending", "ADDED", None), ("pending", "REMOVED", None), ("handled", "ADDED", "ok")]
