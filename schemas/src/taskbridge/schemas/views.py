"""The list entries of an instance, their notifications, and whom it concerns: functions of its state. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import asdict

from taskbridge.schemas.events import Lifecycle, Person, Status, TaskNotification, View, notification_id_for

if TYPE_CHECKING:
    from taskbridge.schemas.events import Change, TaskEntry, TaskState


class EntryKey(Struct, frozen=True, gc=False):
    """Identifies one entry in one person's view. ``task_id`` is None if the entry is about the whole instance."""

    user_id: str
    view: View
    task_id: str | None


class Entry(Struct, frozen=True, gc=False, array_like=True):
    """The content of an entry. As JSON it is an array, two thirds of the size of an object."""

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
    step_name: str | None = None
    """Of the task, as are the next three; None in an entry about the whole instance."""
    step_id: str | None = None
    decided_by: str | None = None
    due_at: int | None = None


Entries = dict[EntryKey, Entry]


def views(state: TaskState | None) -> Entries:
    """Every present entry of this instance; none when it is unknown or deleted.

    Created: the originator. Pending: the assignees of pending tasks, and those of the instance whom no task has named.
    Handled: the actor of a completed task. Copied: who was copied in.

    An entry about the whole instance has the instance's result, one about a task the task's outcome.

    Times: created and copied from the instance's beginning, or the first copy, to the last creation or decision of a
    task; pending and handled from the task's creation, or decision, to the same.
    """
    if state is None or state.lifecycle is Lifecycle.DELETED:
        return {}
    began_at = began_at_of(state)
    moved_at = _moved_at(state, began_at)
    status = status_of(state)
    entries: Entries = {}
    if state.originator is not None:
        key = EntryKey(state.originator.user_id, View.CREATED, None)
        entries[key] = _entry(state, status, (began_at, moved_at))
    for copied in state.copied:
        key = EntryKey(copied.user_id, View.COPIED, None)
        entries[key] = _entry(state, status, (copied.at, max(copied.at, moved_at)))
    for user_id in state.assignee_ids:
        entries[EntryKey(user_id, View.PENDING, None)] = _entry(state, Status.PENDING, (began_at, began_at))
    for task in state.tasks:
        if task.status is Status.PENDING:
            for user_id in task.assignee_ids:
                key = EntryKey(user_id, View.PENDING, task.task_id)
                entries[key] = _task_entry(state, task, task.created_at, began_at)
        elif task.status is Status.COMPLETED and task.actor_id is not None:
            key = EntryKey(task.actor_id, View.HANDLED, task.task_id)
            entries[key] = _task_entry(state, task, task.decided_at, began_at)
    return entries


def notification_of(
    change: Change,
    key: EntryKey,
    entry: Entry,
    instance: tuple[str, str],
    event: tuple[str, int],
    *,
    recovered_by: str | None = None,
) -> TaskNotification:
    """The notification of an entry's change. Of ``instance`` corp and id; of ``event`` id and time."""
    (corp_id, instance_id), (event_id, occurred_at) = instance, event
    return TaskNotification(
        notification_id=notification_id_for(event_id, key.user_id, key.view, key.task_id, change),
        corp_id=corp_id,
        recipient_id=key.user_id,
        view=key.view,
        change=change,
        instance_id=instance_id,
        task_id=key.task_id,
        occurred_at=occurred_at,
        event_id=event_id,
        recovered_by=recovered_by,
        **asdict(entry),
    )


def concerns(state: TaskState, user_id: str) -> bool:
    """Whether this person originated it, was copied in, or is assignee or actor of anything in it."""
    return (
        (state.originator is not None and state.originator.user_id == user_id)
        or user_id in state.assignee_ids
        or any(each.user_id == user_id for each in state.copied)
        or any(user_id == task.actor_id or user_id in task.assignee_ids for task in state.tasks)
    )


def whole_entry(state: TaskState) -> Entry:
    """The content of an entry about the whole instance, as the originator sees it."""
    began_at = began_at_of(state)
    return _entry(state, status_of(state), (began_at, _moved_at(state, began_at)))


def status_of(state: TaskState) -> Status:
    """The status of the whole instance: that of its most open task, and ACTIVE without any."""
    found = [task.status for task in state.tasks]
    for status in (Status.PENDING, Status.COMPLETED, Status.CANCELLED):
        if status in found:
            return status
    return Status.ACTIVE


def began_at_of(state: TaskState) -> int:
    """When the instance began; in a state of a version that did not publish it, the earliest time that is known."""
    return earliest_known(state) if state.began_at is None else state.began_at


def earliest_known(state: TaskState) -> int:
    """The earliest of the times in a published state, apart from ``began_at``."""
    found = [state.updated_at, *(each.at for each in state.copied)]
    for task in state.tasks:
        found += [at for at in (task.created_at, task.decided_at) if at is not None]
    return min(found)


def _moved_at(state: TaskState, began_at: int) -> int:
    """The last creation or decision of a task; without tasks, the beginning."""
    found = began_at
    for task in state.tasks:
        for at in (task.created_at, task.decided_at):
            if at is not None and at > found:
                found = at
    return found


def _task_entry(state: TaskState, task: TaskEntry, at: int | None, began_at: int) -> Entry:
    # A create assigns and a decision completes, so ``at`` is missing only in damaged data.
    at = began_at if at is None else at
    # Positional arguments: keywords cost several times as much, for every event.
    return Entry(
        state.title,
        state.url if task.url is None else task.url,
        state.app_type,
        state.originator,
        task.actor_id,
        task.status,
        state.process_name,
        state.source,
        at,
        at,
        task.outcome,
        task.remark,
        None,
        None,
        task.step_name,
        task.step_id,
        task.decided_by,
        task.due_at,
    )


def _entry(state: TaskState, status: Status, times: tuple[int, int]) -> Entry:
    """About the whole instance. ``times``: ``entered_at`` and ``updated_at``."""
    return Entry(
        state.title,
        state.url,
        state.app_type,
        state.originator,
        None,
        status,
        state.process_name,
        state.source,
        *times,
        None,
        None,
        state.finished_at,
        state.result,
    )
