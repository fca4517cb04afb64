"""The entries of every view, and that the notifications, applied in order of arrival, add up to them."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from support.inbox import inbox_of
from support.streams.fold_inputs import entry_of
from taskbridge.schemas.events import Action, Change, Person, Status, View
from taskbridge.schemas.inbox import Line
from taskbridge.schemas.views import EntryKey, views
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.views import is_finished, notifications

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hypothesis.strategies import DataObject, SearchStrategy

    from taskbridge.schemas.events import TaskEvent, TaskNotification, TaskState
    from taskbridge.schemas.views import Entry
    from taskbridge.streams.fold.instance import Instance

    MakeEvent = Callable[..., TaskEvent]


def folded(events: Iterable[TaskEvent]) -> Instance:
    instance = reduce(fold, events, None)
    assert instance is not None
    return instance


def state_of(instance: Instance | None) -> TaskState | None:
    return instance and instance.state


def seen(events: Iterable[TaskEvent]) -> set[EntryKey]:
    return set(views(folded(events).state))


def published(before: Instance | None, events: Iterable[TaskEvent]) -> tuple[Instance | None, list[TaskNotification]]:
    """The instance after these events, and all notifications on the way."""
    sent: list[TaskNotification] = []
    for event in events:
        after = fold(before, event)
        sent += notifications(before, after, event)
        before = after
    return before, sent


def inbox_lines(sent: Iterable[TaskNotification]) -> dict[EntryKey, Entry]:
    """Complete entries, with their times."""
    return {EntryKey(line.user_id, line.view, line.task_id): entry_of(each) for line, each in inbox_of(sent).items()}


@given(data=st.data())
def test_the_notifications_add_up_to_the_views(histories: SearchStrategy[list[TaskEvent]], data: DataObject) -> None:
    instance, sent = published(None, data.draw(histories))
    assert inbox_lines(sent) == views(state_of(instance))


@given(data=st.data())
def test_the_notifications_add_up_to_the_views_for_a_reader_that_drops_repeated_ids(
    histories: SearchStrategy[list[TaskEvent]], data: DataObject
) -> None:
    events = data.draw(histories)
    repeats = data.draw(st.lists(st.sampled_from(events), max_size=4))
    instance, sent = published(None, data.draw(st.permutations(events + repeats)))
    first_of_each = {each.notification_id: each for each in reversed(sent)}
    applied = [each for each in sent if first_of_each[each.notification_id] is each]
    assert inbox_lines(applied) == inbox_lines(sent) == views(state_of(instance))


@given(data=st.data())
def test_repetitions_correct_a_reader_that_missed_the_first_notifications(
    histories: SearchStrategy[list[TaskEvent]], data: DataObject
) -> None:
    events = data.draw(histories)
    seen_events = data.draw(st.integers(0, len(events)))
    _, sent = published(None, events[:seen_events])
    instance = folded(events)
    _, again = published(instance, events[seen_events:])
    assert inbox_lines(sent + again) == views(state_of(instance))


def test_a_repetition_also_notifies_a_former_actor(make_event: MakeEvent) -> None:
    first = make_event(Action.COMPLETED, task_id="T-1", actor_id="ann", occurred_at=1_000)
    second = make_event(Action.COMPLETED, task_id="T-1", actor_id="bob", occurred_at=2_000)
    instance, sent = published(None, [first])
    instance, _lost = published(instance, [second])
    _, again = published(instance, [second])
    assert inbox_lines(sent + again) == views(state_of(instance))


@given(data=st.data())
def test_ids_are_the_same_for_the_same_change_and_differ_between_changes(
    histories: SearchStrategy[list[TaskEvent]], data: DataObject
) -> None:
    events = data.draw(histories)
    _, once = published(None, events)
    _, again = published(None, events)
    assert [each.notification_id for each in once] == [each.notification_id for each in again]
    assert len({each.notification_id for each in once}) == len(once)


def test_an_entry_is_published_again_when_only_its_times_change(make_event: MakeEvent) -> None:
    first = make_event(Action.CREATED, originator=Person("ann"), title="Leave", task_id="T-1", occurred_at=2_000)
    earlier = make_event(Action.COPIED, occurred_at=1_000)
    second = make_event(Action.CREATED, task_id="T-2", occurred_at=3_000)
    _, sent = published(None, [first, earlier, second])
    assert [(each.change, each.entered_at, each.updated_at) for each in sent] == [
        (Change.ADDED, 2_000, 2_000),
        (Change.UPDATED, 1_000, 2_000),
        (Change.UPDATED, 1_000, 3_000),
    ]


def test_a_late_copy_is_updated_when_it_was_made(make_event: MakeEvent) -> None:
    events = [
        make_event(Action.CREATED, task_id="T-1", recipient_ids=("bob",)),
        make_event(Action.COPIED, recipient_ids=("cai",), occurred_at=9_000),
    ]
    line = views(folded(events).state)[EntryKey("cai", View.COPIED, None)]
    assert (line.entered_at, line.updated_at) == (9_000, 9_000)


def test_assignees_of_the_instance_are_pending_since_it_began(make_event: MakeEvent) -> None:
    events = [
        make_event(Action.CREATED, recipient_ids=("ann",), created_at=500),
        make_event(Action.CREATED, task_id="T-1", recipient_ids=("bob",), occurred_at=2_000),
    ]
    line = views(folded(events).state)[EntryKey("ann", View.PENDING, None)]
    assert (line.entered_at, line.updated_at) == (500, 500)


def test_a_tasks_entry_enters_at_its_creation_or_decision_else_at_the_beginning(
    make_event: MakeEvent,
) -> None:
    events = [
        make_event(Action.CREATED, originator=Person("ann"), occurred_at=500),
        make_event(Action.CREATED, task_id="T-1", recipient_ids=("bob",), occurred_at=2_000),
        make_event(Action.COMPLETED, task_id="T-2", actor_id="cai", occurred_at=3_000),
    ]
    instance = folded(events)

    def entered(instance: Instance) -> list[int]:
        shown = views(instance.state)
        keys = (EntryKey("bob", View.PENDING, "T-1"), EntryKey("cai", View.HANDLED, "T-2"))
        return [shown[key].entered_at for key in keys]

    assert entered(instance) == [2_000, 3_000]
    tasks = tuple(replace(task, created_at=None, decided_at=None) for task in instance.state.tasks)
    assert entered(replace(instance, state=replace(instance.state, tasks=tasks))) == [500, 500]


def test_an_instance_is_finished_once_nothing_is_pending(make_event: MakeEvent) -> None:
    created = make_event(Action.CREATED, task_id="T-1", recipient_ids=("bob",))
    of_the_instance = make_event(Action.CREATED, recipient_ids=("ann",))
    completed = make_event(Action.COMPLETED, task_id="T-1", actor_id="bob", occurred_at=2_000)
    cancelled = make_event(Action.CANCELLED, task_id="T-1", occurred_at=3_000)
    for events, finished in (
        ([make_event(Action.CREATED, originator=Person("ann"))], False),
        ([created], False),
        ([created, completed], True),
        ([created, cancelled], True),
        ([created, completed, of_the_instance], False),
        ([of_the_instance], False),
    ):
        assert is_finished(folded(events).state) is finished


def test_when_the_owning_apps_event_comes_late_the_other_apps_entries_go(make_event: MakeEvent) -> None:
    fields = {"task_id": "T-1", "recipient_ids": ("eve",), "originator": Person("eve"), "received_at": 1_001}
    forged = make_event(Action.CREATED, app_type="B", **fields)
    created = make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann",))
    instance, sent = published(None, [forged, created])
    assert inbox_lines(sent) == views(state_of(instance))
    assert set(views(state_of(instance))) == {EntryKey("ann", View.PENDING, "T-1")}


def test_when_one_of_two_assignees_completes_the_others_entry_is_removed(make_event: MakeEvent) -> None:
    created = make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann", "bob"))
    assert seen([created]) == {EntryKey("ann", View.PENDING, "T-1"), EntryKey("bob", View.PENDING, "T-1")}
    completed = make_event(Action.COMPLETED, task_id="T-1", actor_id="bob", occurred_at=2_000)
    assert seen([created, completed]) == {EntryKey("bob", View.HANDLED, "T-1")}
    _, sent = published(fold(None, created), [completed])
    assert {(each.recipient_id, each.view, each.change) for each in sent} == {
        ("ann", View.PENDING, Change.REMOVED),
        ("bob", View.PENDING, Change.REMOVED),
        ("bob", View.HANDLED, Change.ADDED),
    }


def test_assignees_of_the_instance_are_pending_until_a_task_names_them(make_event: MakeEvent) -> None:
    instance = make_event(Action.CREATED, recipient_ids=("ann", "bob"))
    assert seen([instance]) == {EntryKey("ann", View.PENDING, None), EntryKey("bob", View.PENDING, None)}
    task = make_event(Action.CREATED, task_id="T-1", recipient_ids=("bob",), occurred_at=2_000)
    assert seen([instance, task]) == {EntryKey("ann", View.PENDING, None), EntryKey("bob", View.PENDING, "T-1")}


def test_an_assignee_of_the_instance_who_completes_a_task_is_no_longer_pending(make_event: MakeEvent) -> None:
    instance = make_event(Action.CREATED, recipient_ids=("bob",))
    completed = make_event(Action.COMPLETED, task_id="T-1", actor_id="bob", occurred_at=2_000)
    assert seen([instance, completed]) == {EntryKey("bob", View.HANDLED, "T-1")}


def test_a_deleted_instance_goes_from_every_view(make_event: MakeEvent) -> None:
    events = [
        make_event(Action.CREATED, originator=Person("ann"), task_id="T-1", recipient_ids=("bob",)),
        make_event(Action.COPIED, recipient_ids=("cai",)),
    ]
    instance, _ = published(None, events)
    assert len(views(state_of(instance))) == 3
    gone, sent = published(instance, [make_event(Action.DELETED)])
    assert views(state_of(gone)) == {}
    assert {(each.recipient_id, each.view, each.change) for each in sent} == {
        ("ann", View.CREATED, Change.REMOVED),
        ("bob", View.PENDING, Change.REMOVED),
        ("cai", View.COPIED, Change.REMOVED),
    }


def test_the_status_of_created_and_copied_is_the_instances(make_event: MakeEvent) -> None:
    events = [make_event(Action.CREATED, originator=Person("ann"))]
    expected = [
        (None, Status.ACTIVE),
        (make_event(Action.CREATED, task_id="T-1", recipient_ids=("bob",)), Status.PENDING),
        (make_event(Action.CANCELLED, task_id="T-1"), Status.CANCELLED),
        (make_event(Action.COMPLETED, task_id="T-2", actor_id="bob"), Status.COMPLETED),
        (make_event(Action.CREATED, task_id="T-3", recipient_ids=("bob",)), Status.PENDING),
    ]
    for more, status in expected:
        events += [] if more is None else [more]
        assert views(folded(events).state)[EntryKey("ann", View.CREATED, None)].status is status


def test_a_tasks_own_url_comes_before_the_instances(make_event: MakeEvent) -> None:
    events = [
        make_event(Action.CREATED, url="https://yida.example/task", task_id="T-1", recipient_ids=("bob",)),
        make_event(Action.CREATED, url="https://yida.example/instance", occurred_at=2_000, originator=Person("ann")),
    ]
    shown = views(folded(events).state)
    assert shown[EntryKey("bob", View.PENDING, "T-1")].url == "https://yida.example/task"
    assert shown[EntryKey("ann", View.CREATED, None)].url == "https://yida.example/instance"


def test_entries_of_two_corps_are_separate(make_event: MakeEvent) -> None:
    _, here = published(None, [make_event(Action.CREATED, originator=Person("ann"))])
    _, there = published(None, [make_event(Action.CREATED, originator=Person("ann"), corp_id="other")])
    assert set(inbox_of(here + there)) == {
        Line("corp", "ann", View.CREATED, "I-1", None),
        Line("other", "ann", View.CREATED, "I-1", None),
    }
