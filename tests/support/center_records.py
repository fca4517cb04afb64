"""Records for followers of the task center without Kafka: topics in memory, and replicas that read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import msgspec
from confluent_kafka import murmur2
from sqlalchemy import select

from taskbridge.center.follow.lists import Forms, People, States, shown_views
from taskbridge.center.follow.records import DeadLetters, Events, Quarantine
from taskbridge.center.tables import VIEW_CODES, changes, entries, instances
from taskbridge.runtime.follow.batch import Assigned, Record, write_batch
from taskbridge.runtime.follow.positions import Position, add_positions, read_positions
from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import Lifecycle, TaskState
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import TASK_STATES
from taskbridge.schemas.views import Entry
from taskbridge.streams.fold.instance import fold

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Collection, Iterable, Sequence

    from confluent_kafka import Message

    from taskbridge.runtime.database import Database
    from taskbridge.runtime.follow.batch import FollowedTopic
    from taskbridge.runtime.follow.positions import Place
    from taskbridge.schemas.cloudevents import Header
    from taskbridge.schemas.events import TaskEvent
    from taskbridge.streams.fold.instance import Instance

target_partition = cast("Callable[[bytes, int], int]", murmur2)
"""The partition of a key among so many."""

REGISTRY = FakeRegistry()
PARTITIONS = 4
NOW_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class FakeMessage:
    """A record as consumers return it."""

    its_topic: str
    its_partition: int
    its_offset: int
    its_key: bytes | None
    its_value: bytes | None
    its_headers: Sequence[Header] = ()
    at: int = NOW_MS

    def topic(self) -> str:
        return self.its_topic

    def partition(self) -> int:
        return self.its_partition

    def offset(self) -> int:
        return self.its_offset

    def key(self) -> bytes | None:
        return self.its_key

    def value(self) -> bytes | None:
        return self.its_value

    def headers(self) -> list[Header]:
        return list(self.its_headers)

    def timestamp(self) -> tuple[int, int]:
        return (1, self.at)

    def error(self) -> None:
        return None


@dataclass
class FakeTopic:
    """A topic's records, in the partitions of their keys unless another is given."""

    name: str = TASK_STATES.name
    topic_id: str = "topic-1"
    records: list[FakeMessage] = field(default_factory=list[FakeMessage])
    partitions: int = PARTITIONS

    def append(
        self,
        key: bytes,
        value: bytes | None,
        *,
        partition: int | None = None,
        headers: Sequence[Header] = (),
        at: int = NOW_MS,
    ) -> FakeMessage:
        partition = target_partition(key, self.partitions) if partition is None else partition
        message = FakeMessage(self.name, partition, self.end(partition), key, value, headers, at)
        self.records.append(message)
        return message

    def append_state(self, state: TaskState, *, partition: int | None = None) -> FakeMessage:
        """A tombstone if it is deleted."""
        value = None if state.lifecycle is Lifecycle.DELETED else encode_state(state)
        return self.append(state.instance_id.encode(), value, partition=partition)

    def end(self, partition: int) -> int:
        return sum(each.its_partition == partition for each in self.records)


encode_state = task_state_codec(REGISTRY).encode


class Replica:
    """Reads topics as a follower does, one batch after the other. ``wrote`` has the people whose lists changed."""

    def __init__(self, database: Database, *topics: FakeTopic, filled: bool = True) -> None:
        """With ``filled``, the present records are before the end of the filling only if they were read before."""
        self.database = database
        self.topics = {each.name: each for each in topics}
        self.followed = {each.topic.name: each for each in self.make_followed()}
        self.wrote: list[Collection[Any]] = []
        self._filled = filled
        self.assign({(name, each) for name, topic in self.topics.items() for each in range(topic.partitions)})

    def make_followed(self) -> Sequence[FollowedTopic]:
        return [each(self.database, REGISTRY) for each in (States, People, Forms, Events, Quarantine, DeadLetters)]

    def assign(self, places: Collection[Place]) -> None:
        """Read these partitions, from the positions in the database."""
        with self.database.write() as connection:
            new = {
                place: Position(
                    self.topics[place[0]].topic_id,
                    0,
                    0 if self._filled else self.topics[place[0]].end(place[1]),
                    NOW_MS,
                )
                for place in places
            }
            add_positions(self.database, connection, new)
            for name in self.topics:
                self.followed[name].adapt(connection)
            found = read_positions(connection, self.topics)
        self.assigned = {place: Assigned(place, found[place]) for place in places}

    def records(self, messages: Iterable[FakeMessage]) -> list[Record]:
        found: list[Record] = []
        for each in messages:
            message, assigned = cast("Message", each), self.assigned[each.its_topic, each.its_partition]
            try:
                found.append(Record(assigned, message, *self.followed[each.its_topic].read(message)))
            except RecordError as error:
                found.append(Record(assigned, message, "", None, str(error)))
        return found

    def write(self, messages: Iterable[FakeMessage]) -> None:
        """Raises PositionLost if another replica has one of the partitions."""
        records = self.records(messages)
        ends = {each.assigned: each.offset + 1 for each in records}
        self.wrote.append(write_batch(self.database, self.followed, records, ends))

    def follow(self, *, batch: int = 1000, chance: random.Random | None = None) -> None:
        """Read to the end; partitions are mixed by ``chance``, and each stays in its order."""
        left = {
            place: [
                each
                for each in self.topics[place[0]].records
                if each.its_partition == place[1] and each.its_offset >= assigned.stored.next_offset
            ]
            for place, assigned in self.assigned.items()
        }
        waiting: list[FakeMessage] = []
        while places := [place for place, messages in left.items() if messages]:
            place = places[0] if chance is None else chance.choice(places)
            waiting.append(left[place].pop(0))
            if len(waiting) >= batch:
                self.write(waiting)
                waiting = []
        if waiting:
            self.write(waiting)


def states_of(events: Iterable[TaskEvent]) -> list[TaskState]:
    """The state after each event, as the streams service publishes it."""
    known: dict[str, Instance] = {}
    found: list[TaskState] = []
    for event in events:
        known[event.instance_id] = fold(known.get(event.instance_id), event)
        found.append(known[event.instance_id].state)
    return found


Line = tuple[str, str, str, str, str]
"""Corp, user, view, instance and task."""


def lines_in(database: Database) -> dict[Line, Entry]:
    """The rows of ``entries``, whose columns must agree with their items."""
    views_of = {code: view.value for view, code in VIEW_CODES.items()}
    found: dict[Line, Entry] = {}
    with database.read() as connection:
        for row in connection.execute(select(entries)):
            entry = msgspec.json.decode(row.item, type=Entry)
            assert (row.entered_at, row.app_type, row.source) == (entry.entered_at, entry.app_type, entry.source)
            found[row.corp_id, row.user_id, views_of[row.view], row.instance_id, row.task_id] = entry
    return found


def lines_of(states: Iterable[TaskState]) -> dict[Line, Entry]:
    """What ``lines_in`` must find after these states: the last of each instance counts."""
    last = {each.instance_id: each for each in states}
    return {
        (state.corp_id, key.user_id, key.view.value, state.instance_id, key.task_id or ""): entry
        for state in last.values()
        for key, entry in shown_views(state).items()
    }


def states_in(database: Database) -> dict[str, TaskState]:
    with database.read() as connection:
        return {
            row.instance_id: msgspec.json.decode(row.state, type=TaskState)
            for row in connection.execute(select(instances))
        }


def changes_in(database: Database) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The changes of each person in their order, which must be numbered from 1 without a gap."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with database.read() as connection:
        for row in connection.execute(select(changes).order_by(changes.c.corp_id, changes.c.user_id, changes.c.seq)):
            of_person = found.setdefault((row.corp_id, row.user_id), [])
            of_person.append(msgspec.json.decode(row.data))
            assert row.seq == len(of_person)
    return found
