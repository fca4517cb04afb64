"""The notifications that bring a reader from the entries of one state of an instance to those of the next. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from taskbridge.schemas.events import Change, Status, TaskEvent, TaskNotification, TaskState, View
from taskbridge.schemas.views import Entries, Entry, EntryKey, notification_of, status_of, views, whole_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.streams.fold.instance import Instance


class Shown(Struct, frozen=True, gc=False):
    instance: Instance
    lines: Entries
    events_lost: bool = False
    """Some of its events are not on the topic, so that the others alone do not give its state."""


def show(instance: Instance, *, events_lost: bool = False) -> Shown:
    return Shown(instance, views(instance.state), events_lost)


def notifications(before: Instance | None, after: Instance, event: TaskEvent) -> list[TaskNotification]:
    """The notifications of ``event``, which changed the instance from ``before`` to ``after``: see ``difference``."""
    return difference(None if before is None else show(before), show(after), event)


def difference(before: Shown | None, after: Shown, event: TaskEvent) -> list[TaskNotification]:
    """The notifications of ``event``: the difference between the entries before and after it.

    If the instance is the same object, the event changed nothing: it is a repetition whose first notifications may have
    been lost. Then everyone who has, or ever had, an entry of the instance gets the present one, or its removal.
    """
    instance, shown = after.instance, after.lines
    if before is not None and before.instance is instance:
        return [
            _notification(instance, event, key, Change.UPDATED if key in shown else Change.REMOVED, shown.get(key))
            for key in _ever_shown(instance)
        ]
    shown_before = before.lines if before is not None else {}
    gone = [
        _notification(instance, event, key, Change.REMOVED, entry)
        for key, entry in shown_before.items()
        if key not in shown
    ]
    changed = [
        _notification(instance, event, key, Change.UPDATED if key in shown_before else Change.ADDED, entry)
        for key, entry in shown.items()
        if shown_before.get(key) != entry
    ]
    return gone + changed


def is_finished(state: TaskState) -> bool:
    return not state.assignee_ids and status_of(state) in (Status.COMPLETED, Status.CANCELLED)


def _ever_shown(instance: Instance) -> Iterator[EntryKey]:
    """The key of every entry that this instance's events can have added to a view."""
    for user_id in instance.marks.originator_ids:
        yield EntryKey(user_id, View.CREATED, None)
    for copied in instance.state.copied:
        yield EntryKey(copied.user_id, View.COPIED, None)
    for user_id in instance.marks.assignee_ids:
        yield EntryKey(user_id, View.PENDING, None)
    for task, marks in zip(instance.state.tasks, instance.marks.tasks, strict=True):
        for user_id in task.assignee_ids:
            yield EntryKey(user_id, View.PENDING, task.task_id)
        for user_id in marks.actor_ids:
            yield EntryKey(user_id, View.HANDLED, task.task_id)


def _notification(
    instance: Instance, event: TaskEvent, key: EntryKey, change: Change, entry: Entry | None
) -> TaskNotification:
    its, cause = (instance.state.corp_id, instance.state.instance_id), (event.event_id, event.occurred_at)
    return notification_of(
        change, key, entry or whole_entry(instance.state), its, cause, recovered_by=event.recovered_by
    )
