"""What differs between DingTalk and our state of an instance, and the events that mend it. Pure.

How the times are chosen, and why a callback that comes after all changes nobody's list: docs/adr/0066.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from taskbridge.reconcile.dingtalk import wire
from taskbridge.reconcile.repairs.events import Kind, Repair, repair
from taskbridge.reconcile.repairs.reading import copies, decisions, id_of, last_operation, open_tasks
from taskbridge.schemas.events import AHEAD_MS, SOURCE_YIDA, Action, Lifecycle, Person, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.reconcile.repairs.reading import Decision, OpenTask, Reading
    from taskbridge.schemas.events import TaskEntry, TaskState

_FINISHED = frozenset({wire.COMPLETED, wire.TERMINATED})
_PASSED_ON = frozenset({wire.FORWARD, wire.RESTART, wire.REDIRECT})
_ACTIONS = {Status.COMPLETED: Action.COMPLETED, Status.CANCELLED: Action.CANCELLED}


def is_settled(reading: Reading, *, now_ms: int, settle_ms: int) -> bool:
    """Whether callbacks had the time to come, and DingTalk's answers to agree, since the instance last changed."""
    modified = reading.modified
    return modified is None or modified.end + settle_ms <= now_ms


def needs_details(reading: Reading, state: TaskState | None, *, outcomes: bool = True) -> bool:
    """Whether what a query by time says of the instance differs from the state, so that its tasks are asked for.

    True for all that may differ: whatever changed in DingTalk after the last event of ours may be a decision. Without
    ``outcomes`` not for how something was decided or ended, which no callback tells, where nobody has anything to do.
    """
    if state is None:
        return True
    if not _is_ours(reading, state):
        return False
    instance, pending = reading.instance, [each for each in state.tasks if each.status is Status.PENDING]
    executors = {each for member in instance.action_executor or () if (each := id_of(member.user_id))}
    assigned = {each for task in pending for each in task.assignee_ids}
    modified = reading.modified
    is_over = instance.instance_status in wire.ENDED and bool(state.tasks) and not pending
    return (
        executors != assigned
        or (
            outcomes
            and (
                bool(_end(reading, state))
                or any(each.decided_at is not None and each.outcome is None for each in state.tasks)
            )
        )
        or (modified is not None and modified.first > state.updated_at and (outcomes or not is_over))
    )


def differences(
    reading: Reading, state: TaskState | None, *, received_at: int, remarks: bool = False, with_copies: bool = False
) -> list[Repair]:
    """The events that bring the state to what DingTalk says; none where it is that already.

    Nothing that is known is taken away: what DingTalk does not say, or was not asked, changes nothing.
    ``remarks``: whether people's words go along. ``with_copies``: whether records named carbon say who was copied in.
    """
    if state is not None and not _is_ours(reading, state):
        return []
    found = [*_of_instance(reading, state)]
    if reading.running is not None and reading.records is not None:
        running, decided = open_tasks(reading.running), decisions(reading.records)
        found += _of_open(running, state)
        found += _of_decisions(running, decided, state, remarks=remarks)
        found += _of_closed(reading, running, decided, state)
        if with_copies:
            found += _of_copies(reading, state)
    common = {
        "corp_id": reading.corp_id,
        "app_type": reading.app_type,
        "instance_id": reading.instance.process_instance_id,
    }
    return [repair(kind, received_at=received_at, **common, **told) for kind, told in found]


_Told = tuple[Kind, dict[str, Any]]


def _is_ours(reading: Reading, state: TaskState) -> bool:
    """What was deleted stays so, and an instance of another app's is not ours to mend."""
    return (
        state.lifecycle is not Lifecycle.DELETED
        and state.source == SOURCE_YIDA
        and (state.corp_id, state.app_type) == (reading.corp_id, reading.app_type)
    )


def _of_instance(reading: Reading, state: TaskState | None) -> Iterator[_Told]:
    """What it is, where a create of it was never seen; and how it ended."""
    instance, modified = reading.instance, reading.modified
    originator = _originator(instance)
    is_unknown = state is None or (
        (state.originator is None and originator is not None) or (state.title is None and instance.title is not None)
    )
    ends = _end(reading, state)
    if modified is None or not (is_unknown or ends):
        return
    told: dict[str, Any] = {"action": Action.CREATED, "occurred_at": modified.end, **ends}
    if state is not None:
        # It must hold against all that was stated before, whatever the clocks say.
        told["occurred_at"] = max(modified.end, state.updated_at + 1)
    if is_unknown:
        told |= {
            "originator": originator,
            "title": instance.title,
            "url": reading.url,
            "process_code": instance.process_code,
            "process_name": reading.process_name,
            "form_uuid": instance.form_uuid,
            "created_at": None if reading.created is None else reading.created.first,
            "form_data": _form(instance.data),
        }
    yield (Kind.INSTANCE if is_unknown else Kind.END), told


def _end(reading: Reading, state: TaskState | None) -> dict[str, Any]:
    """What the state lacks of how the instance ended; nothing while it has not."""
    instance = reading.instance
    status, result = instance.instance_status, instance.approved_result
    if status is None or status == wire.RUNNING:
        return {}
    finished = last_operation(reading.records or ()) or reading.modified
    lacks_end = status in _FINISHED and (state is None or state.finished_at is None)
    if (
        state is not None
        and not lacks_end
        and status == state.instance_status
        and result in (None, state.approved_result)
    ):
        return {}
    told: dict[str, Any] = {"instance_status": status, "approved_result": result}
    if lacks_end and finished is not None:
        told["finished_at"] = finished.end
    return told


def _of_open(running: dict[str, OpenTask], state: TaskState | None) -> Iterator[_Told]:
    """Tasks, and people who may decide them, of which no create told."""
    for task in running.values():
        known = _task(state, task.task_id)
        if task.since is not None and (known is None or not {*task.assignee_ids} <= {*known.assignee_ids}):
            at = task.since.first
            ids = task.assignee_ids
            yield (
                Kind.ASSIGNEE if known is not None and not known.assignee_ids else Kind.TASK,
                {"action": Action.CREATED, "task_id": task.task_id, "recipient_ids": ids, "occurred_at": at},
            )


def _of_decisions(
    running: dict[str, OpenTask], decided: list[Decision], state: TaskState | None, *, remarks: bool
) -> Iterator[_Told]:
    last: dict[str, Decision] = {each.task_id: each for each in decided if each.task_id is not None}
    for task_id, decision in last.items():
        if task_id in running:
            continue
        known = _task(state, task_id)
        told = {
            "task_id": task_id,
            "actor_id": decision.actor_id,
            "outcome": decision.word,
            "remark": decision.remark if remarks else None,
        }
        if known is None or known.decided_at is None or decision.at.first > known.decided_at + AHEAD_MS:
            yield Kind.DECISION, {"action": decision.action, "occurred_at": decision.at.end, **told}
        elif _is_how(decision, known) and (known.outcome is None or (told["remark"] and known.remark is None)):
            # The callback's word on what was done, by whom and when stands; only how is added.
            told["actor_id"] = known.actor_id or decision.actor_id
            yield Kind.OUTCOME, {"action": _ACTIONS[known.status], "occurred_at": known.decided_at + 1, **told}


def _is_how(decision: Decision, known: TaskEntry) -> bool:
    """Whether the record is of the decision that is known. Of passing a task on, a callback may call it either."""
    is_of_that_time = known.decided_at is not None and known.decided_at <= decision.at.end + AHEAD_MS
    return is_of_that_time and (decision.action is _ACTIONS[known.status] or decision.word in _PASSED_ON)


def _of_closed(
    reading: Reading, running: dict[str, OpenTask], decided: list[Decision], state: TaskState | None
) -> Iterator[_Told]:
    """Tasks that are open here, and neither open nor decided there."""
    withdrawn = max((each for each in decided if each.task_id is None), key=lambda each: each.at, default=None)
    with_record = {each.task_id for each in decided}
    for task in state.tasks if state is not None else ():
        if task.status is not Status.PENDING or task.task_id in running or task.task_id in with_record:
            continue
        if withdrawn is not None and (task.created_at is None or withdrawn.at.end > task.created_at):
            told = {"occurred_at": withdrawn.at.end, "actor_id": withdrawn.actor_id, "outcome": withdrawn.word}
            yield Kind.DECISION, {"action": Action.CANCELLED, "task_id": task.task_id, **told}
        else:
            # When is not told. As early as can be: whoever says that it was decided is right.
            created = task.created_at if task.created_at is not None else reading.created and reading.created.first
            if created is not None:
                yield Kind.CLOSED, {"action": Action.CANCELLED, "task_id": task.task_id, "occurred_at": created}


def _of_copies(reading: Reading, state: TaskState | None) -> Iterator[_Told]:
    known = {each.user_id for each in state.copied} if state is not None else set[str]()
    for copy in copies(reading.records or ()):
        if copy.user_id not in known:
            known.add(copy.user_id)
            yield Kind.COPY, {"action": Action.COPIED, "recipient_ids": (copy.user_id,), "occurred_at": copy.at.first}


def _task(state: TaskState | None, task_id: str) -> TaskEntry | None:
    return next((each for each in state.tasks if each.task_id == task_id), None) if state is not None else None


def _originator(instance: wire.Instance) -> Person | None:
    member = instance.originator
    user_id = None if member is None else id_of(member.user_id)
    if member is None or user_id is None:
        return None
    if isinstance(member.name, wire.Name):
        return Person(user_id, member.name.name_in_chinese or member.name.name_in_english)
    return Person(user_id, member.name)


def _form(data: dict[str, Any] | None) -> dict[str, str | None]:
    """A form's values by field id: texts and nulls as they are, anything else as JSON text, as in callbacks."""
    return {
        name: value
        if value is None or isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        for name, value in (data or {}).items()
    }
