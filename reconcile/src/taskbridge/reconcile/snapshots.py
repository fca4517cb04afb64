"""DingTalk's answers about an instance in our terms: open tasks, decisions, and the people copied in. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.runtime.dingtalk import wire
from taskbridge.runtime.dingtalk.clock import Span, span_of
from taskbridge.schemas.events import Action

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


@dataclass(frozen=True, slots=True)
class OpenTask:
    task_id: str
    assignee_ids: tuple[str, ...]
    since: Span | None


@dataclass(frozen=True, slots=True)
class Decision:
    task_id: str | None
    """None if the record names no task. Then it ended all open tasks."""
    action: Action
    word: str
    """The API's word: agree, disagree, forward …"""
    actor_id: str | None
    at: Span
    remark: str | None


@dataclass(frozen=True, slots=True)
class Copy:
    user_id: str
    at: Span


def open_tasks(running: Sequence[wire.RunningTask]) -> dict[str, OpenTask]:
    """The open tasks by id. DingTalk may return a task once for each of its assignees."""
    found: dict[str, OpenTask] = {}
    for each in running:
        task_id = id_of(each.task_id)
        if task_id is None:
            continue
        before = found.get(task_id, OpenTask(task_id, (), None))
        user_id = id_of(each.actual_actioner_id)
        ids = sorted({*before.assignee_ids, *([user_id] if user_id else ())})
        since = span_of(each.active_time) or span_of(each.create_time)
        starts = [span for span in (before.since, since) if span is not None]
        found[task_id] = OpenTask(task_id, tuple(ids), min(starts, default=None))
    return found


def decisions(records: Sequence[wire.OperationRecord]) -> list[Decision]:
    """The decisions, oldest first. Those of one time stay in DingTalk's order."""
    found = [each for record in records for each in _decided(record)]
    return sorted(found, key=lambda each: each.at)


def copies(records: Sequence[wire.OperationRecord]) -> list[Copy]:
    """The people copied in, as far as the records name them."""
    return [
        Copy(user_id, span)
        for user_id, word, at, _, _ in _flat(records)
        if word == wire.CARBON and user_id is not None and (span := span_of(at)) is not None
    ]


def last_operation(records: Sequence[wire.OperationRecord]) -> Span | None:
    """The time of the last operation, except copies, which follow the end of the instance."""
    spans = [span_of(at) for _, word, at, _, _ in _flat(records) if word != wire.CARBON]
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


def _decided(record: wire.OperationRecord) -> Iterator[Decision]:
    for user_id, word, at, task_id, remark in _flat([record]):
        span = span_of(at)
        action = _DECISIONS.get(word)
        # A record without a time is of an open task.
        if span is not None and action is not None and (task_id is not None or action is Action.CANCELLED):
            yield Decision(task_id, action, word, user_id, span, remark or None)


_Flat = tuple["str | None", str, "str | int | None", "str | None", "str | None"]


def _flat(records: Sequence[wire.OperationRecord]) -> Iterator[_Flat]:
    """Person, word, time, task and remark of each record, and of each part of a common step."""
    for record in records:
        if record.domain_list:
            for each in record.domain_list:
                word = _word(each.action, each.format_action, record.action_exit)
                yield id_of(each.operator), word, each.operate_time, id_of(each.task_id), each.remark
        else:
            word = _word(record.action_exit, record.action)
            yield id_of(record.operator_user_id), word, record.operate_time, id_of(record.task_id), record.remark


def _word(*words: str | None) -> str:
    return next((wire.ACTIONS[each] for each in words if each in wire.ACTIONS), "")
