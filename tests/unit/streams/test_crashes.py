"""State and notifications are right in any order, repetition and division into chunks, and after any crash.

A model of a partition: its log, what is committed, the changelog, the local store and the topics that are written. It
processes a chunk by the steps of the agent and can crash between any two of them, or during one. Each part is then left
as Kafka or RocksDB would leave it, and the next life starts from that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from support.inbox import inbox_of
from support.streams.fold_inputs import entry_of, reading
from taskbridge.schemas.codec import task_event_codec, task_notification_codec, task_state_codec
from taskbridge.schemas.events import Lifecycle
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.schemas.views import views
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.native import IS_BUILT, NativeCore
from taskbridge.streams.fold.python import PythonCore
from taskbridge.streams.fold.stored_instance import unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hypothesis.strategies import DataObject, SearchStrategy

    from taskbridge.schemas.events import TaskEvent, TaskNotification, TaskState
    from taskbridge.schemas.views import Entry
    from taskbridge.streams.fold.core import Core, Read
    from taskbridge.streams.fold.instance import Instance
    from taskbridge.streams.records import Chunk

REGISTRY = FakeRegistry()
EVENTS = task_event_codec(REGISTRY)
STATES = task_state_codec(REGISTRY)
NOTIFICATIONS = task_notification_codec(REGISTRY)
CORES = [NativeCore.name, PythonCore.name] if IS_BUILT else [PythonCore.name]


class Death(Exception):
    """The worker dies here."""


class Step:
    """Where it dies: the names of the model's steps, in their order."""

    FETCHED, FOLDED, COMMITTED, STORED = range(4)


@dataclass(frozen=True)
class Record:
    key: bytes | None
    value: bytes | None
    offset: int
    topic: str = TASK_EVENTS.name
    partition: int = 0
    headers: Sequence[tuple[str, bytes]] = ()


class Outcome(NamedTuple):
    """The result of a chunk: only this depends on how the fold is called."""

    stored: dict[bytes, bytes]
    states: dict[bytes, TaskState | None]
    notifications: list[TaskNotification]
    parked: list[int]


def fold_records(core: Core, records: Sequence[Record], read: Read) -> Outcome:
    found = core.fold(cast("Chunk", records), read)
    return Outcome(
        found.stored,
        {cast("bytes", key): None if value is None else STATES.decode(value) for key, value, _ in found.states},
        [NOTIFICATIONS.decode(value) for _, value, _ in found.notifications],
        [each.record.offset for each in found.rejected],
    )


def new_core(core: str) -> Core:
    kind = NativeCore if core == NativeCore.name else PythonCore
    return kind(events=EVENTS, states=STATES, notifications=NOTIFICATIONS, now_ms=lambda: 0)


def shown_state(instance: Instance) -> TaskState | None:
    return None if instance.state.lifecycle is Lifecycle.DELETED else instance.state


@dataclass
class World:
    """The data that outlives a worker."""

    log: list[Record]
    core: str
    committed: int = 0
    changelog: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    disks: list[tuple[int, dict[bytes, bytes]]] = field(default_factory=lambda: [(0, {})])
    """The store after each batch, with the changelog's offset that it reaches. RocksDB has no log of its own: after a
    death, any of them may be what is left."""
    states: list[tuple[bytes, TaskState | None]] = field(default_factory=list[tuple[bytes, "TaskState | None"]])
    notifications: list[TaskNotification] = field(default_factory=list["TaskNotification"])
    parked: list[int] = field(default_factory=list[int])

    def commit(self, outcome: Outcome, position: int) -> None:
        """A transaction with the position: all of it is there."""
        self.committed = position
        self.changelog += outcome.stored.items()
        self.states += outcome.states.items()
        self.notifications += outcome.notifications
        self.parked += outcome.parked


class Life:
    """A worker from its start to its death: on its old disk, on a standby's that is behind, or on an empty one."""

    def __init__(self, world: World, data: DataObject) -> None:
        self._world = world
        applied, disk = data.draw(st.sampled_from(world.disks))
        self._store = dict(disk)
        self._store.update(world.changelog[applied:])
        self._core = new_core(world.core)
        self._position = world.committed
        world.disks = [(len(world.changelog), dict(self._store))]

    def take_chunk(self, size: int, dies_at: int | None) -> None:
        world = self._world
        records = world.log[self._position : self._position + size]
        _die_if(dies_at == Step.FETCHED)
        outcome = fold_records(self._core, records, reading(self._store))
        _die_if(dies_at == Step.FOLDED)
        self._position += len(records)
        world.commit(outcome, self._position)
        _die_if(dies_at == Step.COMMITTED)
        self._store.update(outcome.stored)
        world.disks.append((len(world.changelog), dict(self._store)))
        _die_if(dies_at == Step.STORED)

    @property
    def is_through(self) -> bool:
        return self._position == len(self._world.log)


def _die_if(now: bool) -> None:  # noqa: FBT001
    if now:
        raise Death


def live_through(world: World, data: DataObject) -> None:
    """Lives, one after the other, until the log is processed; each but the last few dies somewhere."""
    deaths = data.draw(st.lists(st.integers(Step.FETCHED, Step.STORED), max_size=6))
    life = Life(world, data)
    while not life.is_through:
        dies_at = deaths.pop() if deaths and data.draw(st.booleans()) else None
        try:
            life.take_chunk(data.draw(st.integers(1, 6)), dies_at)
        except Death:
            life = Life(world, data)
    # The end is looked at as the next worker would find it.
    Life(world, data)


def log_of(events: Iterable[TaskEvent | bytes]) -> list[Record]:
    return [
        Record(b"I-1", each, offset)
        if isinstance(each, bytes)
        else Record(each.instance_id.encode(), EVENTS.encode(each), offset)
        for offset, each in enumerate(events)
    ]


def reference(events: Iterable[TaskEvent | bytes]) -> dict[bytes, Instance]:
    """The fold of the events, one by one and without a crash."""
    found: dict[bytes, list[TaskEvent]] = {}
    for each in events:
        if not isinstance(each, bytes):
            found.setdefault(each.instance_id.encode(), []).append(each)
    return {key: reduce(fold, theirs[1:], fold(None, theirs[0])) for key, theirs in found.items()}


def without_revision(instance: Instance) -> Instance:
    return replace(instance, state=replace(instance.state, revision=0))


def lines_published(sent: Iterable[TaskNotification]) -> dict[object, Entry]:
    return {
        (line.instance_id, line.user_id, line.view, line.task_id): entry_of(each)
        for line, each in inbox_of(sent).items()
    }


def lines_seen(instances: dict[bytes, Instance]) -> dict[object, Entry]:
    return {
        (key.decode(), line.user_id, line.view, line.task_id): entry
        for key, instance in instances.items()
        for line, entry in views(instance.state).items()
    }


def first_of_each_id(sent: Iterable[TaskNotification]) -> list[TaskNotification]:
    found: dict[str, TaskNotification] = {}
    for each in sent:
        found.setdefault(each.notification_id, each)
    return list(found.values())


@pytest.mark.parametrize("core", CORES)
@given(data=st.data())
def test_any_order_repetition_chunks_and_crashes_end_in_the_fold_of_the_events(
    histories: SearchStrategy[list[TaskEvent]], core: str, data: DataObject
) -> None:
    first, second = data.draw(histories), data.draw(histories)
    logical = first + [replace(each, instance_id="I-2", event_id=f"2-{each.event_id}") for each in second]
    poison = data.draw(st.lists(st.sampled_from((b"", b"junk")), max_size=2))
    repeats = data.draw(st.lists(st.sampled_from(logical), max_size=6))
    arrived = data.draw(st.permutations([*logical, *repeats, *poison]))
    world = World(log_of(arrived), core)
    live_through(world, data)

    # Against the events in the order in which they happened to be drawn, each once: not in that of their arrival.
    instances = reference(logical)
    [(_, disk)] = world.disks
    restored = {key: unpack(stored, STATES) for key, stored in disk.items()}
    assert {key: without_revision(each) for key, each in restored.items()} == {
        key: without_revision(each) for key, each in instances.items()
    }
    assert dict(world.changelog) == disk
    # A reader of the compacted topic, and both kinds of readers of the notifications.
    assert dict(world.states) == {key: shown_state(each) for key, each in restored.items()}
    assert lines_published(world.notifications) == lines_seen(instances)
    assert lines_published(first_of_each_id(world.notifications)) == lines_seen(instances)
    assert set(world.parked) == {
        record.offset for record, each in zip(world.log, arrived, strict=True) if each in poison
    }


@pytest.mark.parametrize("core", CORES)
@given(data=st.data())
def test_nothing_is_published_twice(histories: SearchStrategy[list[TaskEvent]], core: str, data: DataObject) -> None:
    events = data.draw(histories)
    world, calm = (World(log_of(events), core) for _ in range(2))
    live_through(world, data)
    life = Life(calm, data)
    while not life.is_through:
        life.take_chunk(1, None)
    assert sorted(each.notification_id for each in world.notifications) == sorted(
        each.notification_id for each in calm.notifications
    )
    assert [state for _, state in world.states][-1:] == [state for _, state in calm.states][-1:]
