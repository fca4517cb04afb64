"""The differences between DingTalk and our state of an instance, as events that repair the state. Pure.

docs/adr/0066 explains how the times are chosen, and why a late callback changes no list.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from taskbridge.dingtalk import wire
from taskbridge.dingtalk.times import span_of
from taskbridge.reconcile.snapshots import FINISHED, copies, decisions, id_of, last_operation, open_tasks
from taskbridge.schemas.events import AHEAD_MS, SOURCE_YIDA, Action, Lifecycle, Person, Status, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taskbridge.reconcile.snapshots import OpenTask, RecordedDecision, Snapshot
    from taskbridge.schemas.events import TaskEntry, TaskState

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:taskbridge:reconcile:v1")
"""The namespace of the ids of repairs, which are never the id of a callback."""
_PASSED_ON = frozenset({wire.FORWARD, wire.RESTART, wire.REDIRECT})
_ACTIONS = {Status.COMPLETED: Action.COMPLETED, Status.CANCELLED: Action.CANCELLED}


class Kind(StrEnum):
    """What was missing."""

    INSTANCE = "instance"
    TASK = "task"
    """A task, or one of its assignees."""
    ASSIGNEE = "assignee"
    """All assignees of a known task. Documented callbacks do not name them."""
    STEP = "step"
    """The step of a known task: no documented callback names it."""
    DECISION = "decision"
    COPY = "copy"
    DELETION = "deletion"
    OUTCOME = "outcome"
    END = "end"
    """The end of the instance."""
    CLOSED = "closed"
    """The end of a task without a decision."""


LOST = frozenset({Kind.INSTANCE, Kind.TASK, Kind.DECISION, Kind.COPY, Kind.DELETION})
"""The kinds for which a callback is missing. No documented callback contains the others."""


@dataclass(frozen=True, slots=True)
class Repair:
    kind: Kind
    event: TaskEvent


_Fields = dict[str, Any]
_Difference = tuple[Kind, _Fields]


def repair(kind: Kind, *, received_at: int, **fields: Any) -> Repair:
    """The event with these fields. Its id depends on all of them, and on nothing else."""
    fields = {"source": SOURCE_YIDA, **fields}
    return Repair(kind, TaskEvent(event_id=repair_id(fields), received_at=received_at, **fields))


def repair_id(fields: Mapping[str, Any]) -> str:
    """A UUID, version 5, of these fields of an event. A field that is None or empty does not count."""
    plain = {name: msgspec.to_builtins(value) for name, value in fields.items() if value not in (None, (), {})}
    return str(uuid.uuid5(NAMESPACE, json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))))


def deletion(corp_id: str, app_type: str, instance_id: str, *, first_absent_ms: int, received_at: int) -> Repair:
    """The deletion of an instance that was absent then, and again at least a day later: see ``store.Absences``."""
    return repair(
        Kind.DELETION,
        received_at=received_at,
        action=Action.DELETED,
        corp_id=corp_id,
        app_type=app_type,
        instance_id=instance_id,
        occurred_at=first_absent_ms,
    )


def copied(
    state: TaskState,
    user_id: str,
    *,
    created_ms: int,
    notice: wire.CopyNotice | None,
    url: str | None,
    received_at: int,
) -> Repair:
    """The copy of an instance to a user.

    It counts from the beginning of the notice's time; without one, whose time is unknown, from the instance's creation.
    ``url`` is the instance's page, and the notice's the copy's. A known page stays.
    """
    span = None if notice is None else span_of(notice.create_time)
    if url is None and notice is not None and (notice.url or "").startswith(("https://", "http://")):
        url = notice.url
    return repair(
        Kind.COPY,
        received_at=received_at,
        action=Action.COPIED,
        corp_id=state.corp_id,
        app_type=state.app_type,
        instance_id=state.instance_id,
        recipient_ids=(user_id,),
        url=url if state.url is None else None,
        occurred_at=created_ms if span is None else span.first,
    )


def is_settled(snapshot: Snapshot, *, now_ms: int, settle_ms: int) -> bool:
    """Whether enough time has passed since the last change for its callbacks to arrive."""
    modified = snapshot.modified
    return modified is None or modified.end + settle_ms <= now_ms


def needs_details(snapshot: Snapshot, state: TaskState | None, *, outcomes: bool = True) -> bool:
    """Whether the row of a query differs from the state, so that the tasks of the instance must be read.

    True for every row that may differ: a change in DingTalk after our last event may be a decision. Without
    ``outcomes``, a missing outcome or end, which no callback contains, is no difference once no task is open.
    """
    if state is None:
        return True
    if not _is_ours(snapshot, state):
        return False
    instance, pending = snapshot.instance, [each for each in state.tasks if each.status is Status.PENDING]
    assigned = {each for task in pending for each in task.assignee_ids}
    modified = snapshot.modified
    is_over = instance.instance_status in wire.ENDED and bool(state.tasks) and not pending
    return (
        snapshot.executors != assigned
        or (
            outcomes
            and (
                bool(_end(snapshot, state))
                or any(each.decided_at is not None and each.outcome is None for each in state.tasks)
            )
        )
        or (modified is not None and modified.first > state.updated_at and (outcomes or not is_over))
    )


def differences(
    snapshot: Snapshot, state: TaskState | None, *, received_at: int, remarks: bool = False, with_copies: bool = False
) -> list[Repair]:
    """The events that bring the state to DingTalk's. Empty if there is no difference.

    Nothing known is removed: an answer that is missing, or was not requested, changes nothing. ``remarks`` includes
    people's remarks. ``with_copies`` reads records named carbon as copies.
    """
    if state is not None and not _is_ours(snapshot, state):
        return []
    found = [*_of_instance(snapshot, state)]
    if snapshot.running is not None and snapshot.records is not None:
        running, decided = open_tasks(snapshot.running, snapshot.records), decisions(snapshot.records)
        found += _of_open(running, state)
        found += _of_decisions(running, decided, state, remarks=remarks)
        found += _of_closed(snapshot, running, decided, state)
        if with_copies:
            found += _of_copies(snapshot, state)
    common = {
        "corp_id": snapshot.corp_id,
        "app_type": snapshot.app_type,
        "instance_id": snapshot.instance.process_instance_id,
    }
    return [repair(kind, received_at=received_at, **common, **fields) for kind, fields in found]


def _is_ours(snapshot: Snapshot, state: TaskState) -> bool:
    """Whether the instance is of this app and not deleted. No other is repaired."""
    return (
        state.lifecycle is not Lifecycle.DELETED
        and state.source == SOURCE_YIDA
        and (state.corp_id, state.app_type) == (snapshot.corp_id, snapshot.app_type)
    )


def _of_instance(snapshot: Snapshot, state: TaskState | None) -> Iterator[_Difference]:
    """The facts of an instance without a create, and its end."""
    instance, modified = snapshot.instance, snapshot.modified
    originator = _originator(instance)
    is_unknown = state is None or (
        (state.originator is None and originator is not None) or (state.title is None and instance.title is not None)
    )
    ends = _end(snapshot, state)
    if modified is None or not (is_unknown or ends):
        return
    fields: _Fields = {"action": Action.CREATED, "occurred_at": modified.end, **ends}
    if state is not None:
        # It must win against all earlier facts, even if the clocks differ.
        fields["occurred_at"] = max(modified.end, state.updated_at + 1)
    if is_unknown:
        fields |= {
            "originator": originator,
            "title": instance.title,
            "url": snapshot.url,
            "process_code": instance.process_code,
            "process_name": snapshot.process_name,
            "form_uuid": instance.form_uuid,
            "created_at": None if snapshot.created is None else snapshot.created.first,
            "form_data": instance.texts(),
        }
    yield (Kind.INSTANCE if is_unknown else Kind.END), fields


def _end(snapshot: Snapshot, state: TaskState | None) -> _Fields:
    """The fields that the state lacks of the end of the instance. Empty while the instance is running."""
    instance = snapshot.instance
    status, result = instance.instance_status, instance.approved_result
    if status is None or status == wire.RUNNING:
        return {}
    finished = last_operation(snapshot.records or ()) or snapshot.modified
    lacks_end = status in FINISHED and (state is None or state.finished_at is None)
    if (
        state is not None
        and not lacks_end
        and status == state.instance_status
        and result in (None, state.approved_result)
    ):
        return {}
    fields: _Fields = {"instance_status": status, "approved_result": result}
    if lacks_end and finished is not None:
        fields["finished_at"] = finished.end
    return fields


def _of_open(running: dict[str, OpenTask], state: TaskState | None) -> Iterator[_Difference]:
    """Open tasks, assignees and steps that the state lacks."""
    for task in running.values():
        if task.since is None:
            continue
        known, kind = _task(state, task.task_id), None
        fields: _Fields = {"action": Action.CREATED, "task_id": task.task_id, "occurred_at": task.since.first}
        if known is None or not {*task.assignee_ids} <= {*known.assignee_ids}:
            kind = Kind.ASSIGNEE if known is not None and not known.assignee_ids else Kind.TASK
            fields["recipient_ids"] = task.assignee_ids
        elif any(named is not None and getattr(known, name) is None for name, named in task.step._asdict().items()):
            # The task does not move in lists.
            kind = Kind.STEP
            fields["occurred_at"] = task.since.first if known.created_at is None else known.created_at
        if kind is not None:
            yield kind, fields | task.step._asdict()


def _of_decisions(
    running: dict[str, OpenTask], decided: list[RecordedDecision], state: TaskState | None, *, remarks: bool
) -> Iterator[_Difference]:
    last: dict[str, RecordedDecision] = {each.task_id: each for each in decided if each.task_id is not None}
    for task_id, decision in last.items():
        if task_id in running:
            continue
        known = _task(state, task_id)
        fields: _Fields = {
            "task_id": task_id,
            "actor_id": decision.actor_id,
            "outcome": decision.word,
            "remark": decision.remark if remarks else None,
            "decided_by": decision.decided_by,
            **decision.step._asdict(),
        }
        if known is None or known.decided_at is None or decision.at.first > known.decided_at + AHEAD_MS:
            yield Kind.DECISION, {"action": decision.action, "occurred_at": decision.at.end, **fields}
        elif _is_same(decision, known) and (known.outcome is None or (fields["remark"] and known.remark is None)):
            # The action, the actor and the time of the callback stay. Only outcome and remark are added.
            fields["actor_id"] = known.actor_id or decision.actor_id
            yield Kind.OUTCOME, {"action": _ACTIONS[known.status], "occurred_at": known.decided_at + 1, **fields}


def _is_same(decision: RecordedDecision, known: TaskEntry) -> bool:
    """Whether the record is the known decision. A callback may report a forwarded task as completed or cancelled."""
    is_of_that_time = known.decided_at is not None and known.decided_at <= decision.at.end + AHEAD_MS
    return is_of_that_time and (decision.action is _ACTIONS[known.status] or decision.word in _PASSED_ON)


def _of_closed(
    snapshot: Snapshot, running: dict[str, OpenTask], decided: list[RecordedDecision], state: TaskState | None
) -> Iterator[_Difference]:
    """Tasks that are pending in the state, and neither open nor decided in DingTalk."""
    withdrawn = max((each for each in decided if each.task_id is None), key=lambda each: each.at, default=None)
    with_record = {each.task_id for each in decided}
    for task in state.tasks if state is not None else ():
        if task.status is not Status.PENDING or task.task_id in running or task.task_id in with_record:
            continue
        if withdrawn is not None and (task.created_at is None or withdrawn.at.end > task.created_at):
            fields = {"occurred_at": withdrawn.at.end, "actor_id": withdrawn.actor_id, "outcome": withdrawn.word}
            yield Kind.DECISION, {"action": Action.CANCELLED, "task_id": task.task_id, **fields}
        else:
            # The time is unknown. With the earliest possible one, every later decision wins.
            created = task.created_at if task.created_at is not None else snapshot.created and snapshot.created.first
            if created is not None:
                yield Kind.CLOSED, {"action": Action.CANCELLED, "task_id": task.task_id, "occurred_at": created}


def _of_copies(snapshot: Snapshot, state: TaskState | None) -> Iterator[_Difference]:
    known = {each.user_id for each in state.copied} if state is not None else set[str]()
    for copy in copies(snapshot.records or ()):
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
