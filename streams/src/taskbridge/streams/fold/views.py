"""The view entries of an instance, and the notifications that bring a reader from one state to the next. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from taskbridge.schemas.events import Change, Lifecycle, Status, TaskNotification, View, notification_id_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.schemas.events import Person, TaskEntry, TaskEvent
    from taskbridge.streams.fold.instance import Instance


class EntryKey(Struct, frozen=True, gc=False):
    """Identifies one entry in one person's view. ``task_id`` is None if the entry is about the whole instance."""

    user_id: str
    view: View
    task_id: str | None


class Entry(Struct, frozen=True, gc=False):
    """The content of an entry."""

    title: str | None
    url: str | None
    app_type: str
    originator: Person | None
    actor_id: str | None
    status: Status
    process_name: str | None
    source: str
    entered_at: int
    """When the entry came into the view: like ``updated_at`` a function of the state, not of the order of arrival."""
    updated_at: int
    """The last creation or decision of what the entry is about."""
    outcome: str | None
    """Of the task's decision, as is the remark; None in an entry about the whole instance."""
    remark: str | None
    finished_at: int | None
    """Of the instance, as is the result; None in an entry about a task."""
    result: str | None


Lines = dict[EntryKey, Entry]


class Shown(Struct, frozen=True, gc=False):
    """An instance with its entries: computed once, and compared with those after the next event."""

    instance: Instance
    lines: Lines
    offsets: tuple[int, ...] = ()
    """Of its last events on their partition, growing. Not part of the instance: they depend on the order of arrival."""


def show(instance: Instance, offsets: tuple[int, ...] = ()) -> Shown:
    return Shown(instance, views(instance), offsets)


def views(instance: Instance | None) -> Lines:
    """Every present entry of this instance; none when it is unknown or deleted.

    Created: the originator. Pending: the assignees of pending tasks, and those of the instance whom no task has named.
    Handled: the actor of a completed task. Copied: who was copied in.

    An entry about the whole instance has the instance's result, one about a task the task's outcome.

    Times: created and copied from the instance's beginning, or the first copy, to the last creation or decision of a
    task; pending and handled from the task's creation, or decision, to the same.
    """
    if instance is None or instance.state.lifecycle is Lifecycle.DELETED:
        return {}
    state = instance.state
    began_at, moved_at = instance.marks.began_at, _moved_at(instance)
    status = _instance_status(instance)
    shown: Lines = {}
    if state.originator is not None:
        key = EntryKey(state.originator.user_id, View.CREATED, None)
        shown[key] = _entry(instance, status, (began_at, moved_at))
    for copied in state.copied:
        key = EntryKey(copied.user_id, View.COPIED, None)
        shown[key] = _entry(instance, status, (copied.at, max(copied.at, moved_at)))
    for user_id in _unnamed_assignees(instance):
        shown[EntryKey(user_id, View.PENDING, None)] = _entry(instance, Status.PENDING, (began_at, began_at))
    for task in state.tasks:
        if task.status is Status.PENDING:
            for user_id in task.assignee_ids:
                key = EntryKey(user_id, View.PENDING, task.task_id)
                shown[key] = _task_entry(instance, task, task.created_at)
        elif task.status is Status.COMPLETED and task.actor_id is not None:
            shown[EntryKey(task.actor_id, View.HANDLED, task.task_id)] = _task_entry(instance, task, task.decided_at)
    return shown


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


def is_finished(instance: Instance) -> bool:
    """Whether it has tasks, and none of them, nor an assignee without a task, is pending."""
    done = _instance_status(instance) in (Status.COMPLETED, Status.CANCELLED)
    return done and not _unnamed_assignees(instance)


def was_shown_to(instance: Instance, user_id: str) -> bool:
    """Whether this person has, or ever had, an entry of the instance in any view."""
    return any(key.user_id == user_id for key in _ever_shown(instance))


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


def _unnamed_assignees(instance: Instance) -> list[str]:
    if not instance.marks.assignee_ids:
        return []
    named = {user_id for task in instance.state.tasks for user_id in task.assignee_ids}
    named.update(user_id for marks in instance.marks.tasks for user_id in marks.actor_ids)
    return [user_id for user_id in instance.marks.assignee_ids if user_id not in named]


def _instance_status(instance: Instance) -> Status:
    found = [task.status for task in instance.state.tasks]
    for status in (Status.PENDING, Status.COMPLETED, Status.CANCELLED):
        if status in found:
            return status
    return Status.ACTIVE


def _moved_at(instance: Instance) -> int:
    """The last creation or decision of a task; without tasks, the beginning."""
    found = instance.marks.began_at
    for task in instance.state.tasks:
        for at in (task.created_at, task.decided_at):
            if at is not None and at > found:
                found = at
    return found


def _task_entry(instance: Instance, task: TaskEntry, at: int | None) -> Entry:
    # A create assigns and a decision completes, so ``at`` is missing only in damaged data.
    at = instance.marks.began_at if at is None else at
    return _entry(instance, task.status, (at, at), task)


# Positional arguments, here and below: keywords cost several times as much, for every event.


def _entry(instance: Instance, status: Status, times: tuple[int, int], task: TaskEntry | None = None) -> Entry:
    """About a task, or the whole instance. ``times``: ``entered_at`` and ``updated_at``."""
    state = instance.state
    return Entry(
        state.title,
        state.url if task is None or task.url is None else task.url,
        state.app_type,
        state.originator,
        None if task is None else task.actor_id,
        status,
        state.process_name,
        state.source,
        *times,
        None if task is None else task.outcome,
        None if task is None else task.remark,
        state.finished_at if task is None else None,
        state.result if task is None else None,
    )


def _notification(
    instance: Instance, event: TaskEvent, key: EntryKey, change: Change, entry: Entry | None
) -> TaskNotification:
    if entry is None:
        entry = _entry(instance, _instance_status(instance), (instance.marks.began_at, _moved_at(instance)))
    return TaskNotification(
        notification_id_for(event.event_id, key.user_id, key.view, key.task_id, change),
        instance.state.corp_id,
        key.user_id,
        key.view,
        change,
        instance.state.instance_id,
        key.task_id,
        entry.title,
        entry.url,
        entry.app_type,
        entry.originator,
        entry.actor_id,
        entry.status,
        event.occurred_at,
        event.event_id,
        entry.process_name,
        entry.entered_at,
        entry.updated_at,
        entry.source,
        entry.outcome,
        entry.remark,
        entry.finished_at,
        entry.result,
        event.recovered_by,
    )
