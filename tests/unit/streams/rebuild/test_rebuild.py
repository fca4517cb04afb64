"""Readers of the old version end up with the new one after a rebuild."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from support.inbox import inbox_of
from taskbridge.schemas.events import Action, Change, Status, View
from taskbridge.schemas.inbox import apply
from taskbridge.schemas.views import EntryKey, views
from taskbridge.streams.fold.instance import fold, from_published
from taskbridge.streams.fold.views import show
from taskbridge.streams.instances.pending_notifications import changed_notifications
from taskbridge.streams.rebuild.copies import Copy, Located, join_by_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hypothesis.strategies import DataObject, SearchStrategy

    from taskbridge.schemas.events import TaskEvent, TaskNotification
    from taskbridge.streams.fold.instance import Instance

    MakeEvent = Callable[..., TaskEvent]
    Histories = SearchStrategy[list[TaskEvent]]


def sent_by_the_old_one(events: list[TaskEvent]) -> tuple[Instance, list[TaskNotification]]:
    instance = reduce(fold, events[1:], fold(None, events[0]))
    return instance, changed_notifications(None, show(instance), number=1)


def shown_to(inbox: list[TaskNotification]) -> set[EntryKey]:
    return {EntryKey(line.user_id, line.view, line.task_id) for line in inbox_of(inbox)}


@given(data=st.data())
def test_a_reader_of_the_old_version_ends_up_with_the_new_ones_entries(histories: Histories, data: DataObject) -> None:
    old, sent = sent_by_the_old_one(data.draw(histories))
    new, _ = sent_by_the_old_one(data.draw(histories))
    difference = changed_notifications(show(old), show(new), number=2)
    assert shown_to([*sent, *difference]) == set(views(new.state))
    inbox = inbox_of(sent)
    for each in difference:
        apply(inbox, each)
    assert {line.status for line in inbox.values()} == {entry.status for entry in views(new.state).values()}


@given(data=st.data())
def test_after_a_republication_a_reader_has_the_present_entries_regardless_of_earlier_ones(
    histories: Histories, data: DataObject
) -> None:
    _, missed_the_end = sent_by_the_old_one(data.draw(histories)[:1])
    instance, _ = sent_by_the_old_one(data.draw(histories))
    shown = show(instance)
    again = changed_notifications(None, shown, number=1, everything=True)
    for known in ([], missed_the_end):
        mine = [each for each in known if EntryKey(each.recipient_id, each.view, each.task_id) in shown.lines]
        assert shown_to([*mine, *again]) == set(views(instance.state))
    assert changed_notifications(None, shown, number=1, everything=True) == again
    ids = {each.notification_id for each in again}
    assert len(ids) == len(again)
    later = changed_notifications(None, shown, number=2, everything=True)
    assert not ids & {each.notification_id for each in later}, "no repeats of the last republication"


@given(data=st.data())
def test_from_a_published_state_alone_a_reader_ends_up_with_the_new_entries(
    histories: Histories, data: DataObject
) -> None:
    old, sent = sent_by_the_old_one(data.draw(histories))
    new, _ = sent_by_the_old_one(data.draw(histories))
    left = None if not views(old.state) else show(from_published(old.state))
    assert shown_to([*sent, *changed_notifications(left, show(new), number=2)]) == set(views(new.state))


def test_notifications_of_a_rebuild_have_the_same_ids_at_each_attempt(make_event: MakeEvent) -> None:
    fields = {"task_id": "T-1", "created_at": 1_000, "occurred_at": 2_000}
    old = show(fold(None, make_event(Action.CREATED, recipient_ids=("ann", "bob"), **fields)))
    new = show(fold(None, make_event(Action.CREATED, recipient_ids=("ann",), **fields)))
    [first], [again] = (changed_notifications(old, new, number=2) for _ in range(2))
    assert first == again
    assert (first.recipient_id, first.change, first.occurred_at) == ("bob", Change.REMOVED, 2_000)
    [later] = changed_notifications(old, new, number=3)
    assert later.notification_id != first.notification_id
    assert changed_notifications(new, new, number=2)[0].change is Change.UPDATED


def test_a_published_state_alone_shows_the_entries_of_its_tasks_and_gives_way_to_events(
    make_event: MakeEvent,
) -> None:
    events = [
        make_event(Action.CREATED, title="old", task_id="T-1", recipient_ids=("ann",)),
        make_event(Action.COMPLETED, task_id="T-1", actor_id="ann", occurred_at=2_000),
        make_event(Action.COPIED, recipient_ids=("cai",), occurred_at=2_500),
    ]
    instance = reduce(fold, events[1:], fold(None, events[0]))
    left = from_published(instance.state)
    assert views(left.state) == views(instance.state)
    after = fold(left, make_event(Action.CREATED, title="new", task_id="T-1", recipient_ids=("bob",), occurred_at=1))
    assert after.state.title == "new"
    assert after.state.tasks[0].status is Status.COMPLETED
    assert EntryKey("ann", View.HANDLED, "T-1") in views(after.state)


def test_a_join_has_every_key_once_in_order() -> None:
    one = [(b"a", b"1"), (b"c", b"1")]
    two = [(b"b", b"2"), (b"c", b"2")]
    assert list(join_by_key(one, (), two)) == [
        (b"a", [b"1", None, None]),
        (b"b", [None, None, b"2"]),
        (b"c", [b"1", None, b"2"]),
    ]


def test_a_copy_records_changed_keys_on_request(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy")
    copy.write({b"a": Located(3, b"1"), b"b": Located(4, b"1")})
    copy.changed = {}
    before = copy.items()
    copy.write({b"a": None, b"c": Located(5, b""), b"never there": None})
    assert copy.changed == {b"a": 3, b"c": 5}
    assert [*before] == [(b"a", Located(3, b"1")), (b"b", Located(4, b"1"))]
    assert (copy.get(b"a"), copy.get(b"c")) == (None, Located(5, b""))
    copy.close()
