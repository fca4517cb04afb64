"""A process instance, and the fold of events into it. The result does not depend on the order or repetition of events.

Every part of an instance is a register whose merge is commutative, associative and idempotent: the latest writer wins a
fact, sets only grow, the greatest decision holds, a deletion never ends. ``revision``, a count of changes, is the one
exception.

An instance belongs to one app of one source: that of the event that the edge received first
(docs/adr/0028-whose-instance-it-is.md).
"""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from taskbridge.schemas.events import Action, CopiedEntry, Lifecycle, Status, TaskEntry, TaskEvent, TaskState
from taskbridge.schemas.views import began_at_of
from taskbridge.streams.fold.rejections import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


FACTS = ("app_type", "title", "url", "originator", "process_code", "process_name")
DETAILS = ("form_uuid", "serial_no", "instance_status", "approved_result", "finished_at", "form_data")
"""Fields of ``TaskState`` that an event may state; the latest statement holds. DETAILS were added later."""
STEP_FACTS = ("step_name", "step_id", "due_at")

EARLIEST, LATEST = -(1 << 63), (1 << 63) - 1

EVERY_FIELD = "*"
FORM_BYTES = 8 << 10
"""Limit of a published form, names and values together: a state is written with each event, and cached in memory."""


class Stamp(NamedTuple):
    """When a fact was stated, and by which event: the order in which the latest writer wins."""

    at: int
    event_id: str


class Decision(Struct, frozen=True, array_like=True, gc=False):
    at: int
    is_completed: bool
    """Else cancelled."""
    event_id: str | None
    """None: read from a published state, which does not name the event."""
    actor_id: str | None
    is_recovered: bool
    """Recovered from the sender's API, not received as a callback: ``TaskEvent.recovered_by``."""
    outcome: str | None
    remark: str | None
    decided_by: str | None = None


class StepMarks(Struct, frozen=True, array_like=True, gc=False):
    step_name: Stamp | None = None
    step_id: Stamp | None = None
    due_at: Stamp | None = None


class TaskMarks(Struct, frozen=True, array_like=True, gc=False):
    url: Stamp | None = None
    decision_id: str | None = None
    actor_ids: tuple[str, ...] = ()
    """Every actor that any event named; one of them holds."""
    is_recovered: bool = False
    others: tuple[Decision, ...] = ()
    """The decisions that do not hold, in the order of ``_order``."""
    step: StepMarks | None = None
    """None: no event stated any, as of most senders."""


class Marks(Struct, frozen=True, array_like=True, gc=False):
    """What the fold needs in addition to the published ``TaskState``, so that late events merge correctly."""

    facts: tuple[Stamp | None, ...] = (None,) * len(FACTS)
    tasks: tuple[TaskMarks, ...] = ()
    originator_ids: tuple[str, ...] = ()
    assignee_ids: tuple[str, ...] = ()
    """Assignees of creates that named no task: pending on the instance until a task names them."""
    deleted_at: int | None = None
    began_at: int = LATEST
    """The earliest moment that any event stated, of itself or of its instance's creation. LATEST: none yet."""
    first_received_at: int = EARLIEST
    """When the edge received the first event, which no sender can choose. EARLIEST: stored by an older version."""
    details: tuple[Stamp | None, ...] = (None,) * len(DETAILS)


class Instance(Struct, frozen=True, gc=False):
    state: TaskState
    marks: Marks


def from_published(state: TaskState) -> Instance:
    """An instance of which only the published state is left; any event that states a fact replaces that fact.

    What is not published is lost: earlier originators and actors, and assignees of the instance whom a task has named.
    """
    tasks = [
        TaskMarks(actor_ids=() if task.status is Status.PENDING or task.actor_id is None else (task.actor_id,))
        for task in state.tasks
    ]
    originators = () if state.originator is None else (state.originator.user_id,)
    marks = Marks(
        tasks=tuple(tasks), originator_ids=originators, assignee_ids=state.assignee_ids, began_at=began_at_of(state)
    )
    return Instance(replace(state, began_at=marks.began_at), marks)


def unnamed_assignees(state: TaskState, marks: Marks) -> tuple[str, ...]:
    """The state's ``assignee_ids``: those of the marks whom no task has named as assignee or actor."""
    if not marks.assignee_ids:
        return ()
    named = {user_id for task in state.tasks for user_id in task.assignee_ids}
    named.update(user_id for task in marks.tasks for user_id in task.actor_ids)
    return tuple(user_id for user_id in marks.assignee_ids if user_id not in named)


def fold(before: Instance | None, event: TaskEvent, form_fields: Collection[str] = ()) -> Instance:
    """The instance after one more event; ``before`` itself (the same object) when the event changes nothing.

    Any permutation of an app's events, with any duplicates, ends in the same instance, ``revision`` aside. In any
    permutation of several apps' events it ends as an instance of the same app: an event of another app that was
    received before all events folded so far starts the instance again. The owner's events that were refused until then
    are dead letters; once these are replayed, the instance is the same in any order.

    ``form_fields``: names of the form fields that a state contains, always the same: see ``published_form``.

    Raises:
        Refused: nothing was changed; the record belongs in the dead-letter topic.
    """
    if event.action is Action.UNKNOWN:
        raise Refusal.UNKNOWN_ACTION.error()
    if before is None:
        before = _empty(event, revision=0)
    elif before.state.corp_id != event.corp_id:
        raise Refusal.ANOTHER_CORP.error(before.state.corp_id, event.corp_id)
    elif (state := before.state).app_type != event.app_type or state.source != event.source:
        theirs, ours = (event.app_type, event.source), (state.app_type, state.source)
        if (event.received_at, *theirs) > (before.marks.first_received_at, *ours):
            raise Refusal.ANOTHER_APP.error("/".join(ours[::-1]), "/".join(theirs[::-1]))
        before = _empty(event, revision=state.revision)
    after = _ACTIONS[event.action](_with_facts(before, event, form_fields), event)
    if after == before and before.state.revision > 0:
        return before
    state, marks = after.state, after.marks
    # What follows from the rest. The result: as far as the sender reported that the instance has ended.
    derived = replace(
        state,
        revision=before.state.revision + 1,
        result=None if state.finished_at is None else state.approved_result or state.instance_status,
        began_at=marks.began_at,
        assignee_ids=unnamed_assignees(state, marks),
    )
    return Instance(derived, marks)


def _empty(event: TaskEvent, *, revision: int) -> Instance:
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


_facts_of = attrgetter(*FACTS)
_details_of = attrgetter(*DETAILS[:-1])
_step_of = attrgetter(*STEP_FACTS)
_NO_STEP = (None,) * len(STEP_FACTS)


def _with_facts(before: Instance, event: TaskEvent, form_fields: Collection[str]) -> Instance:
    state, marks = before.state, before.marks
    stamp = Stamp(event.occurred_at, event.event_id)
    form = (published_form(event.form_data, form_fields) or None) if form_fields else None
    stated: dict[str, Any] = {}
    facts = _state(stated, marks.facts, stamp, FACTS, _facts_of(event))
    details = _state(stated, marks.details, stamp, DETAILS, (*_details_of(event), form))
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
            began_at=min(marks.began_at, event.occurred_at, _created_at(event)),
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
    """Put the values that hold from now on into ``stated``; returns who states each."""
    after = list(stamps)
    for at, (known, value) in enumerate(zip(stamps, values, strict=True)):
        if value is not None and (known is None or stamp > known):
            stated[names[at]] = value
            after[at] = stamp
    return tuple(after)


def published_form(form: Mapping[str, str | None], fields: Collection[str]) -> dict[str, str | None]:
    """The values of the named fields, in the order of their names; ``fields`` may contain EVERY_FIELD.

    Values that would exceed FORM_BYTES together are left out.
    """
    found: dict[str, str | None] = {}
    room = FORM_BYTES
    for name in sorted(form if EVERY_FIELD in fields else form.keys() & set(fields)):
        value = form[name]
        size = len(name.encode()) + len((value or "").encode())
        if size <= room:
            found[name] = value
            room -= size
    return found


def _created(before: Instance, event: TaskEvent) -> Instance:
    if event.task_id is None:
        assignees = _union(before.marks.assignee_ids, event.recipient_ids)
        return replace(before, marks=replace(before.marks, assignee_ids=assignees))
    entry, marks = _task(before, event.task_id)
    stamp, created_at = Stamp(event.occurred_at, event.event_id), _created_at(event)
    entry = replace(
        entry,
        assignee_ids=_union(entry.assignee_ids, event.recipient_ids),
        created_at=created_at if entry.created_at is None else min(entry.created_at, created_at),
    )
    if event.url is not None and (marks.url is None or stamp > marks.url):
        entry, marks = replace(entry, url=event.url), replace(marks, url=stamp)
    return _with_task(before, *_with_step(entry, marks, event))


def _decided(before: Instance, event: TaskEvent) -> Instance:
    if event.task_id is None:
        return before
    entry, marks = _task(before, event.task_id)
    entry, marks = with_decision(entry, marks, event)
    if event.actor_id is not None:
        marks = replace(marks, actor_ids=_union(marks.actor_ids, (event.actor_id,)))
    return _with_task(before, *_with_step(entry, marks, event))


def _with_step(entry: TaskEntry, marks: TaskMarks, event: TaskEvent) -> tuple[TaskEntry, TaskMarks]:
    values = _step_of(event)
    if values == _NO_STEP:
        return entry, marks
    stated: dict[str, Any] = {}
    known = _step_of(marks.step or StepMarks())
    stamps = _state(stated, known, Stamp(event.occurred_at, event.event_id), STEP_FACTS, values)
    return replace(entry, **stated), replace(marks, step=StepMarks(*stamps))


def _copied(before: Instance, event: TaskEvent) -> Instance:
    first = {each.user_id: each.at for each in before.state.copied}
    for user_id in event.recipient_ids:
        first[user_id] = min(first.get(user_id, event.occurred_at), event.occurred_at)
    copied = tuple(CopiedEntry(user_id, first[user_id]) for user_id in sorted(first))
    return replace(before, state=replace(before.state, copied=copied))


def _deleted(before: Instance, event: TaskEvent) -> Instance:
    # Everything else stays, invisible: late events still merge, and a repeated deletion can notify again everyone who
    # ever saw the instance.
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


def _created_at(event: TaskEvent) -> int:
    return event.occurred_at if event.created_at is None else event.created_at


def _task(before: Instance, task_id: str) -> tuple[TaskEntry, TaskMarks]:
    for entry, marks in zip(before.state.tasks, before.marks.tasks, strict=True):
        if entry.task_id == task_id:
            return entry, marks
    return TaskEntry(task_id=task_id, status=Status.PENDING), TaskMarks()


def _with_task(before: Instance, entry: TaskEntry, marks: TaskMarks) -> Instance:
    ids = [each.task_id for each in before.state.tasks]
    at = bisect_left(ids, entry.task_id)
    after = at + 1 if ids[at : at + 1] == [entry.task_id] else at
    return Instance(
        replace(before.state, tasks=(*before.state.tasks[:at], entry, *before.state.tasks[after:])),
        replace(before.marks, tasks=(*before.marks.tasks[:at], marks, *before.marks.tasks[after:])),
    )


def _union(ids: tuple[str, ...], more: Sequence[str]) -> tuple[str, ...]:
    known = {*ids}
    return ids if known.issuperset(more) else tuple(sorted(known.union(more)))


# Decisions. Each actor's completion is a register of its own, and so is the cancellation, by any actor.


def with_decision(entry: TaskEntry, marks: TaskMarks, event: TaskEvent) -> tuple[TaskEntry, TaskMarks]:
    """The task after one more decision, with the one that holds in its entry; the same objects if nothing changes.

    Within a register, a completion recovered from the sender's API wins over every callback, because it has the outcome
    and the remark; otherwise the latest wins. Among registers the latest holds; at equal times completed wins over
    cancelled, then the greater event id. A completion that names no actor gives way to any recovered completion: both
    are about the same decision.
    """
    stated = Decision(
        event.occurred_at,
        event.action is Action.COMPLETED,
        event.event_id,
        event.actor_id,
        event.recovered_by is not None,
        event.outcome,
        event.remark,
        event.decided_by,
    )
    registers = {_register(each): each for each in (*marks.others, *_held(entry, marks))}
    known = registers.get(_register(stated))
    if known is not None and _weight(stated) <= _weight(known):
        return entry, marks
    registers[_register(stated)] = stated
    growing = sorted(registers.values(), key=_order)
    is_named = any(each.is_completed and each.is_recovered for each in growing)
    held = next(each for each in reversed(growing) if not (is_named and _names_nobody(each)))
    return (
        replace(
            entry,
            status=Status.COMPLETED if held.is_completed else Status.CANCELLED,
            actor_id=held.actor_id,
            decided_at=held.at,
            outcome=held.outcome,
            remark=held.remark,
            decided_by=held.decided_by,
        ),
        replace(
            marks,
            decision_id=held.event_id,
            is_recovered=held.is_recovered,
            others=tuple(each for each in growing if each is not held),
        ),
    )


def _held(entry: TaskEntry, marks: TaskMarks) -> tuple[Decision, ...]:
    if entry.decided_at is None:
        return ()
    return (
        Decision(
            entry.decided_at,
            entry.status is Status.COMPLETED,
            marks.decision_id,
            entry.actor_id,
            marks.is_recovered,
            entry.outcome,
            entry.remark,
            entry.decided_by,
        ),
    )


def _register(decision: Decision) -> tuple[bool, str | None]:
    return decision.is_completed, decision.actor_id if decision.is_completed else None


def _weight(decision: Decision) -> tuple[bool, int, str]:
    return decision.is_completed and decision.is_recovered, decision.at, decision.event_id or ""


def _order(decision: Decision) -> tuple[int, bool, str, bool, str]:
    """No two registers are equal in it."""
    actor_id = decision.actor_id
    return decision.at, decision.is_completed, decision.event_id or "", actor_id is not None, actor_id or ""


def _names_nobody(decision: Decision) -> bool:
    return decision.is_completed and decision.actor_id is None and not decision.is_recovered
