"""What DingTalk's answers say of an instance, in our words: who may decide, who decided what, who was copied. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.reconcile.dingtalk import wire
from taskbridge.reconcile.dingtalk.moments import Span, span_of
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_NO_ID = ("", "null", "None")

_DECIDES: Mapping[str, Action] = {
    wire.AGREE: Action.COMPLETED,
    wire.DISAGREE: Action.COMPLETED,
    wire.FORWARD: Action.COMPLETED,
    wire.RESTART: Action.COMPLETED,
    wire.REDIRECT: Action.COMPLETED,
    wire.REVOKED: Action.CANCELLED,
}
"""Words after which whoever had the task has it no more. Others add somebody, or take a decision back."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Whole answers about one instance, of one moment. None: not asked for, so nothing is concluded from it."""

    corp_id: str
    app_type: str
    instance: wire.Instance
    running: Sequence[wire.RunningTask] | None = None
    records: Sequence[wire.OperationRecord] | None = None
    url: str | None = None
    """Where the instance is shown; DingTalk does not say it."""
    process_name: str | None = None
    """What its form is called."""

    @property
    def modified(self) -> Span | None:
        return span_of(self.instance.modified_time)

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
    """None where the record is of no task: then it ended all that were open."""
    action: Action
    word: str
    """Agree, disagree, forward …: the API's."""
    actor_id: str | None
    at: Span
    remark: str | None


@dataclass(frozen=True, slots=True)
class Copy:
    user_id: str
    at: Span


def open_tasks(running: Sequence[wire.RunningTask]) -> dict[str, OpenTask]:
    """By id. A task may come once for each who may decide it."""
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
    """Those that took a task from whoever had it, oldest first; of records at one time, in DingTalk's order."""
    found = [each for record in records for each in _decided(record)]
    return sorted(found, key=lambda each: each.at)


def copies(records: Sequence[wire.OperationRecord]) -> list[Copy]:
    """Who was copied in, as far as the records tell."""
    return [
        Copy(user_id, span)
        for user_id, word, told, _, _ in _flat(records)
        if word == wire.CARBON and user_id is not None and (span := span_of(told)) is not None
    ]


def last_operation(records: Sequence[wire.OperationRecord]) -> Span | None:
    """When something was last done in the instance, copies aside: they follow its end."""
    spans = [span_of(told) for _, word, told, _, _ in _flat(records) if word != wire.CARBON]
    return max((span for span in spans if span is not None), default=None)


def id_of(told: wire.Id) -> str | None:
    """The id as text; None where there is none, which some answers write as ``null``."""
    text = str(told).strip() if told is not None else ""
    return None if text in _NO_ID else text


def _decided(record: wire.OperationRecord) -> Iterator[Decision]:
    for user_id, word, told, task_id, remark in _flat([record]):
        span = span_of(told)
        action = _DECIDES.get(word)
        # Without a time it is still to be done.
        if span is not None and action is not None and (task_id is not None or action is Action.CANCELLED):
            yield Decision(task_id, action, word, user_id, span, remark or None)


_Flat = tuple["str | None", str, "str | int | None", "str | None", "str | None"]


def _flat(records: Sequence[wire.OperationRecord]) -> Iterator[_Flat]:
    """Who, the word, when, of which task, with which remark: of a step of several, each for themselves."""
    for record in records:
        if record.domain_list:
            for each in record.domain_list:
                word = _word(each.action, each.format_action, record.action_exit)
                yield id_of(each.operator), word, each.operate_time, id_of(each.task_id), each.remark
        else:
            word = _word(record.action_exit, record.action)
            yield id_of(record.operator_user_id), word, record.operate_time, id_of(record.task_id), record.remark


def _word(*told: str | None) -> str:
    return next((wire.ACTIONS[each] for each in told if each in wire.ACTIONS), "")
