"""What the fake DingTalk shows of an instance, in the API's shapes."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import msgspec

from taskbridge.reconcile.dingtalk import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.reconcile.testing.company import TrueInstance

NO_TASK = "null"


def by_minute(at_ms: int) -> str:
    """As published answers have it: the minute, and nothing of what it was of it."""
    return f"{datetime.fromtimestamp(at_ms / 1000, timezone.utc):%Y-%m-%dT%H:%M}Z"  # noqa: UP017 - as in moments


def exactly(at_ms: int) -> str:
    """To the millisecond, as no published answer has it: for what must come out the same to the last digit."""
    return f"{datetime.fromtimestamp(at_ms // 1000, timezone.utc):%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"  # noqa: UP017


def instance(known: TrueInstance, told: Callable[[int], str]) -> wire.Instance:
    executors = dict.fromkeys(each for task in known.open_tasks for each in task.assignee_ids)
    return wire.Instance(
        process_instance_id=known.instance_id,
        form_uuid=known.form_uuid,
        process_code=known.process_code,
        title=known.title,
        instance_status=known.status,
        approved_result=known.result,
        create_time=told(known.created_ms),
        modified_time=told(known.modified_ms),
        originator=_member(known),
        action_executor=[wire.Member(each) for each in executors],
        data=dict(known.form_data),
    )


def without_times(found: wire.Instance) -> wire.Instance:
    """As the answer for several ids has it."""
    return msgspec.structs.replace(found, create_time=None, modified_time=None)


def running_tasks(known: TrueInstance, told: Callable[[int], str]) -> list[wire.RunningTask]:
    """One for each who may decide."""
    return [
        wire.RunningTask(
            process_instance_id=known.instance_id,
            task_id=task.task_id,
            actual_actioner_id=user_id,
            title=known.title,
            status="running",
            create_time=told(task.created_ms),
            active_time=told(task.created_ms),
        )
        for task in known.open_tasks
        for user_id in task.assignee_ids
    ]


def operation_records(known: TrueInstance, told: Callable[[int], str]) -> list[wire.OperationRecord]:
    """What was done, by its time; then what is to be done."""
    done: list[tuple[int, wire.OperationRecord]] = []
    if known.originator is not None:
        submitted = _record(known, task_id=NO_TASK, user_id=known.originator.user_id, word=wire.SUBMIT)
        done.append((known.created_ms, submitted))
    for task in known.tasks:
        if task.decided_ms is not None:
            decided = _record(known, task_id=task.task_id, user_id=task.actor_id, word=task.word, remark=task.remark)
            done.append((task.decided_ms, decided))
    for user_id, at_ms in known.copied:
        done.append((at_ms, _record(known, task_id=NO_TASK, user_id=user_id, word=wire.CARBON)))
    done.sort(key=lambda each: each[0])
    to_do = [
        wire.OperationRecord(
            process_instance_id=known.instance_id,
            task_id=task.task_id,
            operator_user_id=user_id,
            action_exit=wire.DOING,
            type="TODO",
            active_time=told(task.created_ms),
        )
        for task in known.open_tasks
        for user_id in task.assignee_ids
    ]
    return [_at(record, told(at_ms)) for at_ms, record in done] + to_do


def _record(
    known: TrueInstance, *, task_id: str, user_id: str | None, word: str | None, remark: str | None = None
) -> wire.OperationRecord:
    return wire.OperationRecord(
        process_instance_id=known.instance_id,
        task_id=task_id,
        operator_user_id=user_id,
        action_exit=word,
        remark=remark or "",
        type="HISTORY",
        domain_list=[],
    )


def _at(record: wire.OperationRecord, operate_time: str) -> wire.OperationRecord:
    return msgspec.structs.replace(record, operate_time=operate_time)


def _member(known: TrueInstance) -> wire.Member | None:
    if known.originator is None:
        return None
    return wire.Member(known.originator.user_id, wire.Name(known.originator.name, known.originator.name))
