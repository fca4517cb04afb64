"""The inbox as keys in a store: for any notifications in any chunks, it equals their plain fold."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from support.streams.api_context import notification
from taskbridge.schemas.events import Action, Change, Person, TaskNotification, View
from taskbridge.schemas.inbox import Inbox, Line, apply
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES, USUAL_MESSAGE_BYTES
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.rejections import OutsideContract, TooLarge
from taskbridge.streams.fold.views import notifications
from taskbridge.streams.inbox import layout
from taskbridge.streams.inbox.changes import MisplacedNotification, UnknownView, check, inbox_changes, keys_read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hypothesis.strategies import DataObject, SearchStrategy

    from taskbridge.schemas.events import TaskEvent
    from taskbridge.streams.fold.instance import Instance

    MakeEvent = Callable[..., TaskEvent]

Values = dict[bytes, bytes]


# Ids that would run into each other if they were only put side by side.
_IDS = st.sampled_from(("a", "a\0", "a\0b", "", "b", "ab", "\0", "\0\x01", "一"))


def _notifications() -> SearchStrategy[list[TaskNotification]]:
    return st.lists(
        st.builds(
            notification,
            st.sampled_from((Change.ADDED, Change.UPDATED, Change.REMOVED)),
            corp=_IDS,
            user=_IDS,
            view=st.sampled_from(layout.VIEWS),
            instance_id=_IDS,
            task_id=st.none() | _IDS,
            occurred_at=st.integers(-2, 5),
            entered_at=st.none() | st.integers(-2, 5),
            updated_at=st.none() | st.integers(-2, 5),
            title=st.none() | st.sampled_from(("x", "y")),
        ),
        max_size=30,
    )


def write(store: Values, chunk: list[TaskNotification]) -> None:
    readable = set(keys_read(chunk))

    def stored(key: bytes) -> bytes | None:
        assert key in readable, "everything is read in one go, before"
        return store.get(key)

    for key, value in inbox_changes(chunk, stored=stored).items():
        if value is None:
            store.pop(key, None)
        else:
            store[key] = value


def items_of(store: Values, corp: str, user: str, view: View) -> list[layout.Item]:
    prefix = layout.entries_prefix(layout.user_part(corp, user), view)
    return [layout.read_item(value) for key, value in sorted(store.items()) if prefix <= key < layout.behind(prefix)]


def entering_times(notifications: list[TaskNotification]) -> dict[Line, int]:
    inbox: Inbox = {}
    times: dict[Line, int] = {}
    for each in notifications:
        before = set(inbox)
        apply(inbox, each)
        for line in set(inbox) - before:
            times[line] = each.occurred_at
        for line, held in inbox.items():
            if held is each and each.entered_at is not None:
                times[line] = each.entered_at
        for line in before - set(inbox):
            del times[line]
    return times


@given(_notifications(), st.integers(1, 7))
@example([notification(), notification(Change.REMOVED), notification(occurred_at=2)], 1)
def test_the_keys_hold_what_the_plain_fold_holds(notifications: list[TaskNotification], size: int) -> None:
    store: Values = {}
    inbox: Inbox = {}
    for at in range(0, len(notifications), size):
        write(store, notifications[at : at + size])
    for each in notifications:
        apply(inbox, each)
    times = entering_times(notifications)
    for corp, user in {(each.corp_id, each.recipient_id) for each in notifications}:
        mine = [(line, each) for line, each in inbox.items() if (line.corp_id, line.user_id) == (corp, user)]
        counts = layout.read_counts(store.get(layout.counts_key(layout.user_part(corp, user))))
        assert counts == tuple(sum(line.view is view for line, _ in mine) for view in layout.VIEWS)
        for view in layout.VIEWS:
            in_order = sorted(
                ((line, each) for line, each in mine if line.view is view),
                key=lambda found: (
                    -times[found[0]],
                    found[0].instance_id.encode(),
                    found[0].task_id is not None,
                    (found[0].task_id or "").encode(),
                ),
            )
            assert items_of(store, corp, user, view) == [
                layout.item_of(each, entered_at=times[line]) for line, each in in_order
            ]
    for corp, user in {(each.corp_id, each.recipient_id) for each in notifications}:
        write(store, [notification(Change.REMOVED, corp=corp, user=user, view=view, instance_id=i, task_id=t)
                      for (c, u, view, i, t) in inbox if (c, u) == (corp, user)])  # fmt: skip
    assert store == {}, "an inbox that is empty again takes no place"


def inboxes_after(events: Iterable[TaskEvent]) -> dict[tuple[str, View], list[layout.Item]]:
    """Every person's views as they are shown, in their order, once these events have come in this one."""
    store: Values = {}
    instances: dict[str, Instance] = {}
    people: set[str] = set()
    for event in events:
        before = instances.get(event.instance_id)
        after = instances[event.instance_id] = fold(before, event)
        told = notifications(before, after, event)
        people.update(each.recipient_id for each in told)
        write(store, told)
    shown = {(user, view): items_of(store, "corp", user, view) for user in people for view in layout.VIEWS}
    return {place: items for place, items in shown.items() if items}


@given(data=st.data())
def test_entries_their_times_and_their_order_are_the_same_in_any_order_of_events(
    histories: SearchStrategy[list[TaskEvent]], data: DataObject
) -> None:
    events = [
        replace(each, instance_id=data.draw(st.sampled_from(("I-1", "I-2", "I-3")))) for each in data.draw(histories)
    ]
    repeats = data.draw(st.lists(st.sampled_from(events), max_size=4))
    assert inboxes_after(data.draw(st.permutations(events + repeats))) == inboxes_after(events)


def test_one_story_shows_the_same_in_every_order(make_event: MakeEvent) -> None:
    """And says when what happened, not when it was heard of."""
    story = [
        make_event(Action.CREATED, originator=Person("ann"), title="Leave", created_at=1_000, occurred_at=1_500),
        make_event(Action.CREATED, task_id="T-1", recipient_ids=("bob",), created_at=2_000, occurred_at=2_500),
        make_event(Action.COPIED, recipient_ids=("cai",), occurred_at=3_000),
        make_event(Action.COMPLETED, task_id="T-1", actor_id="bob", occurred_at=4_000),
        make_event(Action.CREATED, task_id="T-2", recipient_ids=("dan",), occurred_at=5_000),
    ]
    for order in itertools.permutations(story):
        times = {
            (*place, item.task_id): (item.created_at, item.updated_at)
            for place, items in inboxes_after([*order, order[0]]).items()
            for item in items
        }
        assert times == {
            ("ann", View.CREATED, None): (1_000, 5_000),
            ("bob", View.HANDLED, "T-1"): (4_000, 4_000),
            ("cai", View.COPIED, None): (3_000, 5_000),
            ("dan", View.PENDING, "T-2"): (5_000, 5_000),
        }


def test_notifications_without_times_of_older_versions_leave_a_line_in_its_place() -> None:
    store: Values = {}
    write(store, [notification(instance_id="I-1"), notification(instance_id="I-2", occurred_at=2_000)])
    write(store, [notification(Change.UPDATED, instance_id="I-1", occurred_at=9_000, title="Longer leave")])
    first, second = items_of(store, "corp", "ann", View.PENDING)
    assert (first.instance_id, second.instance_id) == ("I-2", "I-1")
    assert (second.title, second.created_at, second.updated_at) == ("Longer leave", 1_000, 9_000)


def test_a_line_moves_when_a_notification_says_that_it_entered_at_another_time() -> None:
    store: Values = {}
    write(store, [notification(instance_id="I-1", entered_at=3_000), notification(instance_id="I-2", entered_at=2_000)])
    write(store, [notification(Change.UPDATED, instance_id="I-1", entered_at=1_000, updated_at=4_000)])
    assert [
        (each.instance_id, each.created_at, each.updated_at) for each in items_of(store, "corp", "ann", View.PENDING)
    ] == [
        ("I-2", 2_000, 1_000),
        ("I-1", 1_000, 4_000),
    ]
    assert layout.read_counts(store.get(layout.counts_key(layout.user_part("corp", "ann")))) == (0, 2, 0, 0)
    write(store, [notification(Change.REMOVED, instance_id=each) for each in ("I-1", "I-2")])
    assert store == {}


def test_what_goes_without_having_come_changes_nothing() -> None:
    assert inbox_changes([notification(Change.REMOVED)], stored=lambda _: None) == {}


def test_a_view_of_a_newer_schema_is_refused() -> None:
    with pytest.raises(UnknownView):
        check(notification(view=View.UNKNOWN), b"corp/ann", size=100)
    with pytest.raises(UnknownView):
        check(notification(Change.UNKNOWN), b"corp/ann", size=100)


@pytest.mark.parametrize("at", [253_402_300_800_000, -62_135_596_800_001])
def test_a_moment_outside_of_the_calendar_is_refused(at: int) -> None:
    """It has no text, and would stand above everything for ever."""
    for field in ("occurred_at", "entered_at", "updated_at", "finished_at"):
        with pytest.raises(OutsideContract):
            check(replace(notification(), **{field: at}), b"corp/ann", size=100)


def test_a_notification_that_is_larger_than_ours_may_be_is_refused() -> None:
    check(notification(), b"corp/ann", size=USUAL_MESSAGE_BYTES)
    with pytest.raises(TooLarge):
        check(notification(), b"corp/ann", size=USUAL_MESSAGE_BYTES + 1)


def test_the_largest_notification_fits_into_the_inboxs_changelog() -> None:
    """Ids of zero bytes only, which take twice their place in keys."""
    large = notification(instance_id="\0" * USUAL_MESSAGE_BYTES, task_id="T-1")
    changes = inbox_changes([large], stored=lambda _: None)
    assert max(len(key) + len(value or b"") for key, value in changes.items()) < MAX_MESSAGE_BYTES


def test_a_notification_under_another_key_is_refused() -> None:
    check(notification(), b"corp/ann", size=100)
    for key in (b"corp/bob", b"", None):
        with pytest.raises(MisplacedNotification):
            check(notification(), key, size=100)


@given(corp=_IDS, user=_IDS, view=st.sampled_from(layout.VIEWS), instance_id=_IDS, task_id=st.none() | _IDS)
def test_a_lines_key_says_whose_it_is_and_what_it_is_about(
    corp: str, user: str, view: View, instance_id: str, task_id: str | None
) -> None:
    key = layout.line_key(layout.user_part(corp, user), view, layout.line_part(instance_id, task_id))
    assert layout.read_line_key(key) == layout.LineId(corp, user, view, instance_id, task_id)
    assert layout.read_line_key(b"E" + key[1:]) is None
    assert layout.read_line_key(b"L damaged") is None
