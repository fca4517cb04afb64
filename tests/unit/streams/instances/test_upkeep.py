"""Expired instances leave every view; pending notifications are published once, and first."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from support.inbox import inbox_of
from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.codec import task_notification_codec, task_state_codec
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.events import Action, Change, TaskNotification, View
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.views import EntryKey, views
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.stored_instance import Age, pack, state_value, unpack
from taskbridge.streams.fold.views import notifications
from taskbridge.streams.instances.pending_notifications import (
    Pending,
    PendingInstances,
    pending_key,
    read_pending,
    write_pending,
)
from taskbridge.streams.instances.upkeep import is_expired, removals
from taskbridge.streams.settings import StreamsSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DataObject, SearchStrategy

    from taskbridge.schemas.events import TaskEvent, TaskNotification
    from taskbridge.streams.fold.instance import Instance

    MakeEvent = Callable[..., TaskEvent]
    from taskbridge.schemas.events import TaskEvent

REQUIRED = {"STREAMS_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", "STREAMS_SCHEMA_REGISTRY_URL": "http://registry"}
DAY_MS = 24 * 60 * 60 * 1000


@pytest.mark.parametrize(
    ("age", "days", "expired"),
    [
        (Age(is_deleted=True, is_finished=False, written_ms=9 * DAY_MS), 0, True),
        (Age(is_deleted=True, is_finished=False, written_ms=10 * DAY_MS), 0, False),
        (Age(is_deleted=False, is_finished=True, written_ms=0), 0, False),
        (Age(is_deleted=False, is_finished=True, written_ms=34 * DAY_MS), 5, True),
        (Age(is_deleted=False, is_finished=True, written_ms=36 * DAY_MS), 5, False),
        (Age(is_deleted=False, is_finished=False, written_ms=0), 5, False),
    ],
)
def test_deleted_instances_expire_after_30_days_and_finished_ones_as_configured(
    age: Age, days: int, *, expired: bool
) -> None:
    assert is_expired(age, now_ms=40 * DAY_MS, days=days) is expired


@pytest.mark.parametrize("days", ["1", "7", "29"])
def test_a_retention_shorter_than_replays_is_rejected(make_event: MakeEvent, days: str) -> None:
    """A dead letter or a rejected callback is put back as it was, and would find nothing that says it is done."""
    created = make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann",))
    assert set(views(fold(None, created).state)) == {EntryKey("ann", View.PENDING, "T-1")}, "so it would come back"
    with pytest.raises(ConfigurationError, match=r"STREAMS_RETENTION_DAYS: .* 0 .* at least 30"):
        load_settings(StreamsSettings, {**REQUIRED, "STREAMS_RETENTION_DAYS": days})


@given(data=st.data())
def test_an_expired_instance_leaves_every_view(histories: SearchStrategy[list[TaskEvent]], data: DataObject) -> None:
    instance: Instance | None = None
    sent: list[TaskNotification] = []
    source = data.draw(st.sampled_from(("yida", "flowable")))
    for event in (replace(each, source=source) for each in data.draw(histories)):
        after = fold(instance, event)
        sent += notifications(instance, after, event)
        instance = after
    assert instance is not None
    last = removals(instance, now_ms=5_000)
    assert {(each.change, each.source) for each in last} <= {(Change.REMOVED, source)}
    assert inbox_of([*sent, *last]) == {}


KEY = b"I-1"
STATES = task_state_codec(cast("Any", FakeRegistry()))
NOTIFICATIONS = task_notification_codec(cast("Any", FakeRegistry()))


class Partition:
    """A store as it is on Kafka too, what was published, and a worker that may be killed before it commits."""

    def __init__(self) -> None:
        self.store: dict[bytes, bytes] = {}
        self.published: list[TaskNotification] = []
        self.states: list[bytes | None] = []
        self.version = 1

    def fold(self, event: TaskEvent) -> None:
        """As a worker does: what is pending of the instance goes first."""
        self.tell()
        stored = self.store.get(KEY)
        before = None if stored is None else unpack(stored, STATES)
        after = fold(before, event)
        self._keep(after)
        self.published += notifications(before, after, event)
        self.states.append(None if not views(after.state) else state_value(self.store[KEY]))

    def rebuild(self, events: list[TaskEvent]) -> None:
        """Another version, of these events; what was not told of the last one is not told of this one either."""
        earlier, before, everything = self.store.get(pending_key(KEY)), self.store.get(KEY), False
        if earlier is not None:
            pending = read_pending(earlier)
            before, everything = pending.last_published(before), pending.everything
        self._keep(reduce(fold, events[1:], fold(None, events[0])))
        self.version += 1
        self.store[pending_key(KEY)] = write_pending(
            Pending(self.version, is_published=False, everything=everything, before=before)
        )

    def republish(self) -> None:
        earlier = self.store.get(pending_key(KEY))
        self.version += 1
        before = None if earlier is None else read_pending(earlier).before
        self.store[pending_key(KEY)] = write_pending(
            Pending(self.version, is_published=False, everything=True, before=before)
        )

    def tell(self, *, is_killed: bool = False) -> None:
        pending = PendingInstances(STATES, NOTIFICATIONS)
        changes = pending.of(0, [KEY, KEY, b"unknown"], lambda keys: [self.store.get(key) for key in keys])
        if is_killed:
            return
        for name in changes.gone:
            del self.store[name]
        self.published += [NOTIFICATIONS.decode(value or b"") for _, value, _ in changes.notifications]
        self.states += [value for _, value, _ in changes.states]

    def _keep(self, instance: Any) -> None:
        self.store[KEY] = pack(STATES.encode(instance.state), instance, now_ms=1)


@given(data=st.data())
def test_readers_end_up_with_the_current_entries_if_events_interrupt_publication(
    histories: SearchStrategy[list[TaskEvent]], data: DataObject
) -> None:
    partition = Partition()
    for event in data.draw(histories):
        partition.fold(event)
    steps = data.draw(st.lists(st.sampled_from(("rebuild", "republish", "event", "tell", "killed")), max_size=6))
    for step in ["rebuild", *steps]:
        if step == "rebuild":
            partition.rebuild(data.draw(histories))
        elif step == "republish":
            partition.republish()
        elif step == "event":
            partition.fold(data.draw(histories)[0])
        else:
            partition.tell(is_killed=step == "killed")
    partition.tell()
    assert set(partition.store) == {KEY}
    shown = views(unpack(partition.store[KEY], STATES).state)
    inbox = inbox_of(partition.published)
    assert {EntryKey(line.user_id, line.view, line.task_id): entry.status for line, entry in inbox.items()} == {
        key: entry.status for key, entry in shown.items()
    }

    before = len(partition.published), len(partition.states)
    partition.tell()
    assert (len(partition.published), len(partition.states)) == before, "nothing is published twice"


def test_a_rebuild_before_a_republication_is_published_removes_what_readers_have(make_event: MakeEvent) -> None:
    partition, created = Partition(), make_event(Action.CREATED)
    partition.fold(make_event(Action.CREATED, event_id="1", recipient_ids=("ann",)))
    partition.republish()
    partition.rebuild([created])
    partition.tell()
    assert inbox_of(partition.published) == {}
