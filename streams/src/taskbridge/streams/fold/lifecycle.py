"""The fold: what a process instance is, whatever the order and repetition of its events.

Every part of an instance is a register whose merge is commutative, associative and idempotent, so the order of events
cannot matter: the latest writer wins a fact, sets only grow, the greatest decision holds, a deletion never ends.
``revision`` is the one exception: it counts the changes on the way.

An instance belongs to one app of one source: that of which the edge received an event first
(docs/adr/0028-whose-instance-it-is.md).
"""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from taskbridge.schemas.events import Action, CopiedEntry, Lifecycle, Status, TaskEntry, TaskState
from taskbridge.streams.fold.decisions import with_decision
from taskbridge.streams.fold.forms import published_form
from taskbridge.streams.fold.instance import DETAILS, EARLIEST, FACTS, Instance, Marks, Stamp, TaskMarks
from taskbridge.streams.fold.rejections import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from taskbridge.schemas.events import TaskEvent

_facts_of = attrgetter(*FACTS)
_details_of = attrgetter(*DETAILS[:-1])


def fold(before: Instance | None, event: TaskEvent, form_fields: Collection[str] = ()) -> Instance:
    """The instance after one more event; ``before`` itself (the same object) when the event changes nothing.

    Any permutation of an app's events, with any duplicates, ends in the same instance, ``revision`` aside. In any
    permutation of several apps' events it ends as an instance of the same app: where an event was received before all
    that were folded so far, and is of another app, the instance is made anew of it. The owner's events that were
    refused until then are dead letters: once they are put back, it is the same instance in whatever order they came.

    ``form_fields``: names of the fields whose values stand in the state, always the same: see ``fold.forms``.

    Raises:
        UnknownAction, AnotherCorp, AnotherApp: nothing was changed; the record belongs in the dead-letter topic.
    """
    if event.action is Action.UNKNOWN:
        raise Refusal.UNKNOWN_ACTION.error()
    if before is None:
        before = _unknown(event, revision=0)
    elif before.state.corp_id != event.corp_id:
        raise Refusal.ANOTHER_CORP.error(before.state.corp_id, event.corp_id)
    elif (state := before.state).app_type != event.app_type or state.source != event.source:
        theirs, ours = (event.app_type, event.source), (state.app_type, state.source)
        if (event.received_at, *theirs) > (before.marks.first_received_at, *ours):
            raise Refusal.ANOTHER_APP.error("/".join(ours[::-1]), "/".join(theirs[::-1]))
        before = _unknown(event, revision=state.revision)
    after = _ACTIONS[event.action](_with_facts(before, event, form_fields), event)
    if after == before and before.state.revision > 0:
        return before
    revision, result = before.state.revision + 1, _result(after.state)
    return Instance(replace(after.state, revision=revision, result=result), after.marks)


def _unknown(event: TaskEvent, *, revision: int) -> Instance:
    """An instance of which nothing was told yet."""
    return Instance(
        TaskState(
            instance_id=event.instance_id,
            corp_id=event.corp_id,
            app_type=event.app_type,
            updated_at=event.occurred_at,
            revision=revision,
            source=event.source,
        ),
        Marks(first_received_at=event.received_at),
    )


def _with_facts(before: Instance, event: TaskEvent, form_fields: Collection[str]) -> Instance:
    state, marks = before.state, before.marks
    stamp = Stamp(event.occurred_at, event.event_id)
    form = (published_form(event.form_data, form_fields) or None) if form_fields else None
    stated: dict[str, Any] = {}
    facts = _state(stated, marks.facts, stamp, FACTS, _facts_of(event))
    details = _state(stated, marks.details, stamp, DETAILS, (*_details_of(event), form))
    created_at = event.occurred_at if event.created_at is None else event.created_at
    originators = marks.originator_ids
    if event.originator is not None:
        originators = _union(originators, (event.originator.user_id,))
    return Instance(
        replace(state, **stated, updated_at=max(state.updated_at, event.occurred_at)),
        replace(
            marks,
            facts=facts,
            details=details,
            originator_ids=originators,
            began_at=min(marks.began_at, event.occurred_at, created_at),
            first_received_at=min(marks.first_received_at, event.received_at),
        ),
    )


def _state(
    stated: dict[str, Any],
    stamps: tuple[Stamp | None, ...],
    stamp: Stamp,
    names: tuple[str, ...],
    values: tuple[Any, ...],
) -> tuple[Stamp | None, ...]:
    """Put those values that hold from now on into ``stated``; returns who states each."""
    after = list(stamps)
    for at, (known, value) in enumerate(zip(stamps, values, strict=True)):
        if value is not None and (known is None or stamp > known):
            stated[names[at]] = value
            after[at] = stamp
    return tuple(after)


def _result(state: TaskState) -> str | None:
    """How the instance ended, as far as its sender said so."""
    return None if state.finished_at is None else state.approved_result or state.instance_status


def _created(before: Instance, event: TaskEvent) -> Instance:
    if event.task_id is None:
        assignees = _union(before.marks.assignee_ids, event.recipient_ids)
        return replace(before, marks=replace(before.marks, assignee_ids=assignees))
    entry, marks = _task(before, event.task_id)
    stamp = Stamp(event.occurred_at, event.event_id)
    created_at = event.occurred_at if event.created_at is None else event.created_at
    entry = replace(
        entry,
        assignee_ids=_union(entry.assignee_ids, event.recipient_ids),
        created_at=created_at if entry.created_at is None else min(entry.created_at, created_at),
    )
    if event.url is not None and stamp > (marks.url or _NEVER):
        entry, marks = replace(entry, url=event.url), replace(marks, url=stamp)
    return _with_task(before, entry, marks)


def _decided(before: Instance, event: TaskEvent) -> Instance:
    if event.task_id is None:
        return before
    entry, marks = _task(before, event.task_id)
    entry, marks = with_decision(entry, marks, event)
    if event.actor_id is not None:
        marks = replace(marks, actor_ids=_union(marks.actor_ids, (event.actor_id,)))
    return _with_task(before, entry, marks)


def _copied(before: Instance, event: TaskEvent) -> Instance:
    first = {each.user_id: each.at for each in before.state.copied}
    for user_id in event.recipient_ids:
        first[user_id] = min(first.get(user_id, event.occurred_at), event.occurred_at)
    copied = tuple(CopiedEntry(user_id, first[user_id]) for user_id in sorted(first))
    return replace(before, state=replace(before.state, copied=copied))


def _deleted(before: Instance, event: TaskEvent) -> Instance:
    # What is known stays, out of sight: a late event finds its place under the deletion, and everyone who ever saw the
    # instance can be told again that it is gone.
    known = before.marks.deleted_at
    deleted_at = event.occurred_at if known is None else max(event.occurred_at, known)
    return Instance(replace(before.state, lifecycle=Lifecycle.DELETED), replace(before.marks, deleted_at=deleted_at))


_ACTIONS = {
    Action.CREATED: _created,
    Action.COMPLETED: _decided,
    Action.CANCELLED: _decided,
    Action.COPIED: _copied,
    Action.DELETED: _deleted,
}

_NEVER = Stamp(EARLIEST, "")


def _task(before: Instance, task_id: str) -> tuple[TaskEntry, TaskMarks]:
    """The task as known so far; a shell where its create has not come yet."""
    for entry, marks in zip(before.state.tasks, before.marks.tasks, strict=True):
        if entry.task_id == task_id:
            return entry, marks
    return TaskEntry(task_id=task_id, status=Status.PENDING), TaskMarks()


def _with_task(before: Instance, entry: TaskEntry, marks: TaskMarks) -> Instance:
    """The instance with the task in the place of its id: the order of tasks is that of their ids."""
    ids = [each.task_id for each in before.state.tasks]
    at = bisect_left(ids, entry.task_id)
    behind = at + 1 if ids[at : at + 1] == [entry.task_id] else at
    return Instance(
        replace(before.state, tasks=(*before.state.tasks[:at], entry, *before.state.tasks[behind:])),
        replace(before.marks, tasks=(*before.marks.tasks[:at], marks, *before.marks.tasks[behind:])),
    )


def _union(ids: tuple[str, ...], more: Sequence[str]) -> tuple[str, ...]:
    known = {*ids}
    return ids if known.issuperset(more) else tuple(sorted(known.union(more)))
