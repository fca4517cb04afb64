"""What may be let go, and that nobody keeps a line of an instance that went."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.events import Action, Change, View
from taskbridge.schemas.inbox import inbox_of
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, REPLAYED_DAYS, TASK_EVENTS, TASK_EVENTS_DLQ
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.stored_instance import Age, StoreUnreadable, age_of, pack
from taskbridge.streams.fold.views import EntryKey, is_finished, notifications, views
from taskbridge.streams.processing.retention import farewell, is_expired
from taskbridge.streams.settings import StreamsSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DataObject, SearchStrategy

    from taskbridge.schemas.events import TaskEvent, TaskNotification
    from taskbridge.streams.fold.instance import Instance

    MakeEvent = Callable[..., TaskEvent]

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
def test_deleted_ones_go_after_30_days_and_finished_ones_as_is_set(age: Age, days: int, *, expired: bool) -> None:
    assert is_expired(age, now_ms=40 * DAY_MS, days=days) is expired


@pytest.mark.parametrize("days", ["1", "7", "29"])
def test_it_refuses_to_let_go_of_what_can_still_come_again(make_event: MakeEvent, days: str) -> None:
    """A dead letter or a rejected callback is put back as it was, and would find nothing that says it is done."""
    created = make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann",))
    assert set(views(fold(None, created))) == {EntryKey("ann", View.PENDING, "T-1")}, "so it would come back"
    with pytest.raises(ConfigurationError, match=r"STREAMS_RETENTION_DAYS: .* 0 .* at least 30"):
        load_settings(StreamsSettings, {**REQUIRED, "STREAMS_RETENTION_DAYS": days})


@pytest.mark.parametrize("days", ["0", "30", "365"])
def test_it_takes_what_outlives_every_topic_that_is_put_back_from(days: str) -> None:
    assert load_settings(StreamsSettings, {**REQUIRED, "STREAMS_RETENTION_DAYS": days}).retention_days == int(days)
    longest_ms = max(
        int(each.settings["retention.ms"]) for each in (TASK_EVENTS, TASK_EVENTS_DLQ, CALLBACKS_QUARANTINE)
    )
    assert longest_ms == REPLAYED_DAYS * DAY_MS


def test_finished_is_what_had_something_to_do_and_has_nothing_left(make_event: MakeEvent) -> None:
    created = make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann",))
    completed = make_event(Action.COMPLETED, task_id="T-1", actor_id="ann", occurred_at=2_000)
    waiting = make_event(Action.CREATED, recipient_ids=("bob",), occurred_at=3_000)
    assert not is_finished(fold(None, make_event(Action.CREATED)))
    assert not is_finished(fold(None, created))
    assert is_finished(reduce(fold, [completed], fold(None, created)))
    assert not is_finished(reduce(fold, [completed, waiting], fold(None, created)))


def test_the_age_is_read_from_the_head_alone(make_event: MakeEvent) -> None:
    deleted = fold(None, make_event(Action.DELETED))
    assert age_of(pack(b"state", deleted, now_ms=77)[:20]) == Age(is_deleted=True, is_finished=False, written_ms=77)
    for damaged in (b"", b"\x01" * 20, b"\x03F"):
        with pytest.raises(StoreUnreadable):
            age_of(damaged)


@given(data=st.data())
def test_nobody_keeps_a_line_of_what_is_let_go(histories: SearchStrategy[list[TaskEvent]], data: DataObject) -> None:
    instance: Instance | None = None
    sent: list[TaskNotification] = []
    source = data.draw(st.sampled_from(("yida", "flowable")))
    for event in (replace(each, source=source) for each in data.draw(histories)):
        after = fold(instance, event)
        sent += notifications(instance, after, event)
        instance = after
    assert instance is not None
    last = farewell(instance, now_ms=5_000)
    assert {(each.change, each.source) for each in last} <= {(Change.REMOVED, source)}
    assert inbox_of([*sent, *last]) == {}
