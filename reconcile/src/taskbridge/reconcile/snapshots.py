"""DingTalk's answers about an instance in our terms: open tasks, decisions, and the people copied in. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.dingtalk import wire
from taskbridge.dingtalk.times import Span, span_of
from taskbridge.schemas.events import AUTOMATIC, DELEGATE, PERSON, Action

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_NO_ID = ("", "null", "None")
FINISHED = frozenset({wire.COMPLETED, wire.TERMINATED})

_DECISIONS: Mapping[str, Action] = {
    wire.AGREE: Action.COMPLETED,
    wire.DISAGREE: Action.COMPLETED,
    wire.FORWARD: Action.COMPLETED,
    wire.RESTART: Action.COMPLETED,
    wire.REDIRECT: Action.COMPLETED,
    wire.REVOKED: Action.CANCELLED,
}
"""The words that end a task for its assignees. Others add an assignee, or withdraw a decision."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Complete answers about one instance at one time. None means not requested, so nothing is concluded from it."""

    corp_id: str
    app_type: str
    instance: wire.Instance
    running: Sequence[wire.RunningTask] | None = None
    records: Sequence[wire.OperationRecord] | None = None
    url: str | None = None
    """The URL of the instance's page, which DingTalk's API does not return."""
    process_name: str | None = None
    """The title of its form."""

    @property
    def modified(self) -> Span | None:
        return span_of(self.instance.modified_time)

    @property
    def executors(self) -> set[str]:
        """The people with an open task."""
        return {each for member in self.instance.action_executor or () if (each := id_of(member.user_id))}

    @property
    def is_over(self) -> bool:
        """Whether the instance certainly has no open task."""
        return self.instance.instance_status in FINISHED and not self.executors

    @property
    def created(self) -> Span | None:
        return span_of(self.instance.create_time)


class Step(NamedTuple):
    """The fields of an event about the step of a task, as far as they are known."""

    step_name: str | None
    step_id: str | None


@dataclass(frozen=True, slots=True)
class OpenTask:
    task_id: str
    assignee_ids: tuple[str, ...]
    since: Span | None
    step: Step


@dataclass(frozen=True, slots=True)
class RecordedDecision:
    task_id: str | None
    """None if the record names no task. Then it ended all open tasks."""
    action: Action
    word: str
    """The API's word: agree, disagree, forward …"""
    actor_id: str | None
    at: Span
    remark: str | None
    step: Step
    decided_by: str | None


@dataclass(frozen=True, slots=True)
class RecordedCopy:
    user_id: str
    at: Span


def open_tasks(
    running: Sequence[wire.RunningTask], records: Sequence[wire.OperationRecord] = ()
) -> dict[str, OpenTask]:
    """The open tasks by id. DingTalk may return a task once for each of its assignees. Only records name steps."""
    names = {each.task_id: each.step.step_name for each in _flat(records) if each.step.step_name is not None}
    found: dict[str, OpenTask] = {}
    for each in running:
        task_id = id_of(each.task_id)
        if task_id is None:
            continue
        step = Step(names.get(task_id), each.activity_id or None)
        before = found.get(task_id, OpenTask(task_id, (), None, step))
        user_id = id_of(each.actual_actioner_id)
        ids = sorted({*before.assignee_ids, *([user_id] if user_id else ())})
        since = span_of(each.active_time) or span_of(each.create_time)
        starts = [span for span in (before.since, since) if span is not None]
        found[task_id] = OpenTask(task_id, tuple(ids), min(starts, default=None), before.step)
    return found


def decisions(records: Sequence[wire.OperationRecord]) -> list[RecordedDecision]:
    """The decisions, oldest first. Those of one time stay in DingTalk's order."""
    found = [each for record in records for each in _decided(record)]
    return sorted(found, key=lambda each: each.at)


def copies(records: Sequence[wire.OperationRecord]) -> list[RecordedCopy]:
    """The people copied in, as far as the records name them."""
    return [
        RecordedCopy(each.user_id, span)
        for each in _flat(records)
        if each.word == wire.CARBON and each.user_id is not None and (span := span_of(each.at)) is not None
    ]


def last_operation(records: Sequence[wire.OperationRecord]) -> Span | None:
    """The time of the last operation, except copies, which follow the end of the instance."""
    spans = [span_of(each.at) for each in _flat(records) if each.word != wire.CARBON]
    return max((span for span in spans if span is not None), default=None)


def last_activity_ms(snapshot: Snapshot) -> int:
    """The time of the last operation or the start of an open task, whichever is later; 0 if there is none."""
    done = last_operation(snapshot.records or ())
    starts = [each.since.first for each in open_tasks(snapshot.running or ()).values() if each.since is not None]
    return max(starts if done is None else [*starts, done.end], default=0)


def id_of(value: wire.Id) -> str | None:
    """The id as text; None if there is none, which some answers write as ``null``."""
    text = str(value).strip() if value is not None else ""
    return None if text in _NO_ID else text


def _decided(record: wire.OperationRecord) -> Iterator[RecordedDecision]:
    for each in _flat([record]):
        span = span_of(each.at)
        action = _DECISIONS.get(each.word)
        # A record without a time is of an open task.
        if span is not None and action is not None and (each.task_id is not None or action is Action.CANCELLED):
            remark = each.remark or None
            yield RecordedDecision(
                each.task_id, action, each.word, each.user_id, span, remark, each.step, each.decided_by
            )


class _Operation(NamedTuple):
    """A record, or a part of one of a common step."""

    user_id: str | None
    word: str
    at: str | int | None
    task_id: str | None
    remark: str | None
    step: Step
    decided_by: str | None


def _flat(records: Sequence[wire.OperationRecord]) -> Iterator[_Operation]:
    for record in records:
        step = Step(record.show_name or None, record.activity_id or None)
        if record.domain_list:
            for each in record.domain_list:
                yield _Operation(
                    id_of(each.operator),
                    _word(each.action, each.format_action, record.action_exit),
                    each.operate_time,
                    id_of(each.task_id),
                    each.remark,
                    Step(each.show_name or step.step_name, each.activity_id or step.step_id),
                    _decided_by(each.task_execute_type or record.task_execute_type, each.operator_agent_id_list),
                )
        else:
            yield _Operation(
                id_of(record.operator_user_id),
                _word(record.action_exit, record.action),
                record.operate_time,
                id_of(record.task_id),
                record.remark,
                step,
                _decided_by(record.task_execute_type),
            )


def _decided_by(executed: str | None, agents: object = None) -> str | None:
    """None for a word that is not known, or missing: it proves no person."""
    if executed in (wire.FILTERED, wire.AUTO):
        return AUTOMATIC
    if agents:
        return DELEGATE
    return PERSON if executed == wire.NORMAL else None


def _word(*words: str | None) -> str:
    return next((wire.ACTIONS[each] for each in words if each in wire.ACTIONS), "")
