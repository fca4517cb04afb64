"""Each event of DingTalk's approvals becomes one message, always with the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.approvals import BEGAN, ENDED, INSTANCE_ID, PROCESS, instance_event, task_event
from taskbridge.dingtalk.approvals.mapping import Event, cancellations, may_leave_tasks_open, message_of
from taskbridge.dingtalk.workflow import ApprovalTask
from taskbridge.schemas.cloudevents import rfc3339

COMMON = {
    "corp_id": "ding1",
    "app_type": PROCESS,
    "process_code": PROCESS,
    "instance_id": INSTANCE_ID,
    "title": "考勤-测试",
    "serial_no": "20260038",
}
OF_TASK = {**COMMON, "task_id": "811165"}
OF_INSTANCE = {
    **COMMON,
    "originator": {"user_id": "manager75"},
    "url": "https://aflow.dingtalk.com/homepage.htm?corpid=1",
    "created_at": BEGAN,
}


def event(given: tuple[str, dict[str, Any]], event_id: str = "e-1") -> Event:
    event_type, data = given
    return Event(event_id, event_type, "ding1", data)


@pytest.mark.parametrize(
    ("given", "action", "at_ms", "data"),
    [
        (task_event("start"), "create", BEGAN, {**OF_TASK, "recipient_ids": "0805", "created_at": BEGAN}),
        (
            task_event("finish", result="agree", remark="好"),
            *("complete", ENDED),
            {**OF_TASK, "actor_id": "0805", "outcome": "agree", "remark": "好"},
        ),
        (
            task_event("finish", result="refuse"),
            *("complete", ENDED),
            {**OF_TASK, "actor_id": "0805", "outcome": "refuse"},
        ),
        (
            task_event("finish", result="redirect"),
            *("complete", ENDED),
            {**OF_TASK, "actor_id": "0805", "outcome": "redirect"},
        ),
        (task_event("cancel"), "cancel", ENDED, OF_TASK),
        (instance_event("start"), "create", BEGAN, {**OF_INSTANCE, "instance_status": "RUNNING"}),
        (
            instance_event("finish", result="refuse"),
            *("create", ENDED),
            {**OF_INSTANCE, "instance_status": "COMPLETED", "approved_result": "refuse", "finished_at": ENDED},
        ),
        (
            instance_event("terminate"),
            *("create", ENDED),
            {**OF_INSTANCE, "instance_status": "TERMINATED", "finished_at": ENDED},
        ),
        (instance_event("delete"), "delete", None, COMMON),
    ],
    ids=lambda each: f"{each[0]} {each[1]['type']} {each[1].get('result', '')}" if isinstance(each, tuple) else "",
)
def test_an_event_is_a_message(
    given: tuple[str, dict[str, Any]], action: str, at_ms: int | None, data: dict[str, Any]
) -> None:
    message = message_of(event(given), "flow")
    assert message is not None
    assert (message.action, message.message_id) == (action, "e-1")
    body = json.loads(message.body)
    told = body.pop("data")
    assert told.pop("dingtalk") == {"eventType": given[0], **given[1]}
    assert told == data
    assert body == {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/flow",
        "type": f"flow.task.{action}",
        **({} if at_ms is None else {"time": rfc3339(at_ms)}),
    }


@pytest.mark.parametrize(
    "given", [task_event("comment"), task_event("later-invention"), ("user_add_org", {"userId": ["1"]}), ("", {})]
)
def test_what_changes_no_list_is_no_message(given: tuple[str, dict[str, Any]]) -> None:
    assert message_of(event(given), "flow") is None


def test_an_event_without_its_fields_is_a_message_that_the_edge_refuses() -> None:
    message = message_of(event(("bpms_task_change", {"type": "finish", "finishTime": "soon"})), "flow")
    assert message is not None
    body = json.loads(message.body)
    assert "time" not in body
    assert body["data"].keys() == {"corp_id", "dingtalk"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (instance_event("terminate"), True),
        (instance_event("finish", result="refuse"), True),
        (instance_event("finish", result="agree"), False),
        (instance_event("start"), False),
        (instance_event("delete"), False),
        (task_event("finish", result="refuse"), False),
    ],
)
def test_tasks_may_be_left_open_after_an_end_without_agreement(
    given: tuple[str, dict[str, Any]], *, expected: bool
) -> None:
    assert may_leave_tasks_open(event(given)) is expected


def test_only_tasks_that_nobody_decided_are_cancelled() -> None:
    tasks = [ApprovalTask(1, "COMPLETED"), ApprovalTask(2, "RUNNING"), ApprovalTask(3, "CANCELED"), ApprovalTask(4)]
    found = cancellations(event(instance_event("terminate")), tasks, "flow")
    assert [(each.action, each.message_id) for each in found] == [
        *(("cancel", "e-1:2"), ("cancel", "e-1:3"), ("cancel", "e-1:4")),
    ]
    body = json.loads(found[0].body)
    assert (body["data"]["task_id"], body["time"]) == ("2", rfc3339(ENDED))
