"""What people see of an instance, and the notifications that bring a reader from one state to the next. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from taskbridge.schemas.events import Change, Lifecycle, Status, TaskNotification, View, notification_id_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.schemas.events import Person, TaskEntry, TaskEvent
    from taskbridge.streams.fold.instance import Instance


class EntryKey(Struct, frozen=True, gc=False):
    """One line in one person's view. ``task_id`` is None where the line is about the whole instance."""

    user_id: str
    view: View
    task_id: str | None


class Entry(Struct, frozen=True, gc=False):
    """What the line says."""

    title: str | None
    url: str | None
    app_type: str
    originator: Person | None
    actor_id: str | None
    status: Status
    process_name: str | None
    source: str
    entered_at: int
    """When the line entered the view. As ``updated_at``, a function of the state: nothing says when we heard of it."""
    updated_at: int
    """When what the line is about last moved."""
    outcome: str | None
    """Of the task's decision, as the remark; of a line about the whole instance there is none."""
    remark: str | None
    finished_at: int | None
    """Of the instance, as its result; a line about a task has none."""
    result: str | None


Lines = dict[EntryKey, Entry]


class Shown(Struct, frozen=True, gc=False):
    """An instance, and every line that anybody sees of it: found once, and compared with the next ones."""

    instance: Instance
    lines: Lines
    offsets: tuple[int, ...] = ()
    """Of its last events on their partition, growing. Not part of the instance: they depend on what came when."""


def show(instance: Instance, offsets: tuple[int, ...] = ()) -> Shown:
    return Shown(instance, views(instance), offsets)


def views(instance: Instance | None) -> Lines:
    """Every line that anybody sees of this instance now; nothing when it is unknown or deleted.

    Created: the originator. Pending: the assignees of pending tasks, and those of the instance whom no task has named.
    Handled: the actor of a completed task. Copied: who was copied in.

    A line about the whole instance tells how that ended, one about a task how that was decided.

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
    """What to tell people after ``event`` took the instance from ``before`` to ``after``: see ``difference``."""
    return difference(None if before is None else show(before), show(after), event)


def difference(before: Shown | None, after: Shown, event: TaskEvent) -> list[TaskNotification]:
    """What to tell people after ``event`` took the instance from ``before`` to ``after``, for whom both are at hand.

    The difference of the two views. Where the instance is the same object, the event changed nothing: it is a repeat
    whose first notifications may have been lost. Then everyone who has, or ever had, a line of the instance is told how
    it stands now.
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
    """Whether it had something to be done and nobody has to do any of it now."""
    done = _instance_status(instance) in (Status.COMPLETED, Status.CANCELLED)
    return done and not _unnamed_assignees(instance)


def was_shown_to(instance: Instance, user_id: str) -> bool:
    """Whether this person has, or ever had, a line of the instance in any view."""
    return any(key.user_id == user_id for key in _ever_shown(instance))


def _ever_shown(instance: Instance) -> Iterator[EntryKey]:
    """The key of every line that this instance's events can have put into a view."""
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
    """The last creation or decision of a task; the beginning where there is none."""
    found = instance.marks.began_at
    for task in instance.state.tasks:
        for at in (task.created_at, task.decided_at):
            if at is not None and at > found:
                found = at
    return found


def _task_entry(instance: Instance, task: TaskEntry, at: int | None) -> Entry:
    # Who is assigned was so by a create, and who decided by a decision, so ``at`` is only missing in what is damaged.
    at = instance.marks.began_at if at is None else at
    return _entry(instance, task.status, (at, at), task)


# Positional, here and below: names cost several times as much, and these are made for every event.


def _entry(instance: Instance, status: Status, times: tuple[int, int], task: TaskEntry | None = None) -> Entry:
    """Of a task, or of the whole instance. ``times``: when the line entered the view, and when that last moved."""
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
