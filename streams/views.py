"""What people see of an instance, and the notifications that bring a reader from one state to the next. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from schemas.events import Change, Lifecycle, Status, TaskNotification, View, notification_id_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.events import Person, TaskEntry, TaskEvent
    from streams.lifecycle import Instance


class EntryKey(NamedTuple):
    """One line in one person's view. ``task_id`` is None where the line is about the whole instance."""

    user_id: str
    view: View
    task_id: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """What the line says."""

    title: str | None
    url: str | None
    app_type: str
    originator: Person | None
    actor_id: str | None
    status: Status


def views(instance: Instance | None) -> dict[EntryKey, Entry]:
    """Every line that anybody sees of this instance now; nothing when it is unknown or deleted.

    Created: the originator. Pending: the assignees of pending tasks, and those of the instance whom no task has named.
    Handled: the actor of a completed task. Copied: who was copied in.
    """
    if instance is None or instance.state.lifecycle is Lifecycle.DELETED:
        return {}
    state = instance.state
    shown: dict[EntryKey, Entry] = {}
    if state.originator is not None:
        shown[EntryKey(state.originator.user_id, View.CREATED, None)] = _instance_entry(instance)
    for copied in state.copied:
        shown[EntryKey(copied.user_id, View.COPIED, None)] = _instance_entry(instance)
    for user_id in _unnamed_assignees(instance):
        shown[EntryKey(user_id, View.PENDING, None)] = _entry(instance, Status.PENDING)
    for task in state.tasks:
        if task.status is Status.PENDING:
            for user_id in task.assignee_ids:
                shown[EntryKey(user_id, View.PENDING, task.task_id)] = _task_entry(instance, task)
        elif task.status is Status.COMPLETED and task.actor_id is not None:
            shown[EntryKey(task.actor_id, View.HANDLED, task.task_id)] = _task_entry(instance, task)
    return shown


def notifications(before: Instance | None, after: Instance, event: TaskEvent) -> list[TaskNotification]:
    """What to tell people after ``event`` took the instance from ``before`` to ``after``.

    The difference of the two views. An event that changed nothing is a repeat whose first notifications may have been
    lost: then everyone who has, or ever had, a line of the instance is told how it stands now.
    """
    shown = views(after)
    if before is after:
        return [
            _notification(after, event, key, Change.UPDATED if key in shown else Change.REMOVED, shown.get(key))
            for key in _ever_shown(after)
        ]
    shown_before = views(before)
    gone = [
        _notification(after, event, key, Change.REMOVED, entry)
        for key, entry in shown_before.items()
        if key not in shown
    ]
    changed = [
        _notification(after, event, key, Change.UPDATED if key in shown_before else Change.ADDED, entry)
        for key, entry in shown.items()
        if shown_before.get(key) != entry
    ]
    return gone + changed


def _ever_shown(instance: Instance) -> Iterator[EntryKey]:
    """The key of every line that this instance's events can have put into a view."""
    for user_id in instance.marks.originator_ids:
        yield EntryKey(user_id, View.CREATED, None)
    for copied in instance.state.copied:
        yield EntryKey(copied.user_id, View.COPIED, None)
    for user_id in instance.marks.assignee_ids:
        yield EntryKey(user_id, View.PENDING, None)
    for task in instance.state.tasks:
        for user_id in task.assignee_ids:
            yield EntryKey(user_id, View.PENDING, task.task_id)
        for user_id in instance.marks.tasks[task.task_id].actor_ids:
            yield EntryKey(user_id, View.HANDLED, task.task_id)


def _unnamed_assignees(instance: Instance) -> list[str]:
    named = {user_id for task in instance.state.tasks for user_id in task.assignee_ids}
    named.update(user_id for marks in instance.marks.tasks.values() for user_id in marks.actor_ids)
    return [user_id for user_id in instance.marks.assignee_ids if user_id not in named]


def _instance_status(instance: Instance) -> Status:
    found = {task.status for task in instance.state.tasks}
    for status in (Status.PENDING, Status.COMPLETED, Status.CANCELLED):
        if status in found:
            return status
    return Status.ACTIVE


def _instance_entry(instance: Instance) -> Entry:
    return _entry(instance, _instance_status(instance))


def _task_entry(instance: Instance, task: TaskEntry) -> Entry:
    return _entry(instance, task.status, url=task.url, actor_id=task.actor_id)


def _entry(instance: Instance, status: Status, *, url: str | None = None, actor_id: str | None = None) -> Entry:
    state = instance.state
    return Entry(
        title=state.title,
        url=state.url if url is None else url,
        app_type=state.app_type,
        originator=state.originator,
        actor_id=actor_id,
        status=status,
    )


def _notification(
    instance: Instance, event: TaskEvent, key: EntryKey, change: Change, entry: Entry | None
) -> TaskNotification:
    if entry is None:
        entry = _instance_entry(instance)
    return TaskNotification(
        notification_id=notification_id_for(event.event_id, key.user_id, key.view, key.task_id, change),
        corp_id=instance.state.corp_id,
        recipient_id=key.user_id,
        view=key.view,
        change=change,
        instance_id=instance.state.instance_id,
        task_id=key.task_id,
        title=entry.title,
        url=entry.url,
        app_type=entry.app_type,
        originator=entry.originator,
        actor_id=entry.actor_id,
        status=entry.status,
        occurred_at=event.occurred_at,
        event_id=event.event_id,
    )
