"""DingTalk's own approvals as messages of a source: what the edge accepts at ``/sources/NAME/tasks/ACTION``. No I/O.

The fields are those of the vendor's documents of ``bpms_task_change`` and ``bpms_instance_change``. A repeated event
must give the same bytes, so a message has nothing of the delivery, nor the present time.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from taskbridge.dingtalk import wire, workflow
from taskbridge.dingtalk.times import span_of
from taskbridge.schemas.cloudevents import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TASK, INSTANCE = "bpms_task_change", "bpms_instance_change"
EVENT_TYPES = (TASK, INSTANCE)

_CREATE, _COMPLETE, _CANCEL, _DELETE = "create", "complete", "cancel", "delete"
START = "start"
_TERMINATE, _FINISH, _AGREE = "terminate", "finish", "agree"
_ACTIONS = {
    (TASK, START): _CREATE,
    (TASK, _FINISH): _COMPLETE,
    (TASK, "cancel"): _CANCEL,
    (INSTANCE, START): _CREATE,
    (INSTANCE, _FINISH): _CREATE,
    (INSTANCE, _TERMINATE): _CREATE,
    (INSTANCE, "delete"): _DELETE,
}
"""Type of the event, ``type`` in its data → action. An instance that ends is described by one more create."""
_STATUSES = {START: wire.RUNNING, _FINISH: wire.COMPLETED, _TERMINATE: wire.TERMINATED}


_RESULTS = {"redirected": "redirect"}
"""Where the word of a task that is read is not the word of its event in capitals."""


class Event(NamedTuple):
    event_id: str
    """The same in each delivery."""
    event_type: str
    corp_id: str | None
    data: Mapping[str, Any]


class Message(NamedTuple):
    """A message for the edge; ``message_id`` is its idempotency key."""

    action: str
    message_id: str
    body: bytes
    """A CloudEvent in JSON, structured mode."""


def message_of(event: Event, source: str) -> Message | None:
    """The message about this event; None if it changes no list: a comment, or anything that is no approval.

    A field that the event lacks is left out: the edge says which one it requires.
    """
    data, kind = event.data, str(event.data.get("type"))
    action = _ACTIONS.get((event.event_type, kind))
    if action is None:
        return None
    about = _of_task(data, action) if event.event_type == TASK else _of_instance(data, kind, action)
    return _message(event, source, action, about)


class Change(NamedTuple):
    """What an event is about: a task or, if it is empty, the approval; and the event's ``type``."""

    task_id: str
    kind: str


BEGAN = Change("", START)
"""The beginning of the approval."""


def change_of(event: Event) -> Change:
    task_id = event.data.get("taskId") if event.event_type == TASK else None
    return Change("" if task_id is None else str(task_id), str(event.data.get("type")))


def ends(event: Event) -> bool:
    """Whether nothing happens to the approval after this event."""
    return event.event_type == INSTANCE and event.data.get("type") in (_FINISH, _TERMINATE, _DELETE)


def deletes(event: Event) -> bool:
    return event.event_type == INSTANCE and event.data.get("type") == _DELETE


def events_of(instance_id: str, process_code: str, read: workflow.Approval) -> Iterator[Event]:
    """The events that led to what was read, as far as it shows them: without remarks, and its times may be minutes.

    An event that came has the exact time, and may be known already. Of two creations the earlier time holds, of two
    decisions and ends the later: so a creation is put at the end of its minute, the others at the beginning.
    """
    about = {"processInstanceId": instance_id, "processCode": process_code, "title": read.title}
    about |= {"businessId": read.business_id}
    began = {"staffId": read.originator_user_id, "createTime": _last_ms(read.create_time)}
    is_open = read.status in workflow.TASK_OPEN
    if is_open:
        # The end says all that the beginning does, and could come before the end of the beginning's minute.
        yield _event(INSTANCE, {**about, **began, "type": START})
    for each in read.tasks:
        its = {**about, "taskId": each.task_id, "staffId": each.user_id, "createTime": _last_ms(each.create_time)}
        yield _event(TASK, {**its, "type": START})
        its["finishTime"] = _ms(each.finish_time) or _ms(read.finish_time)
        if each.status == workflow.TASK_COMPLETED:
            result = (each.result or "").lower()
            yield _event(TASK, {**its, "type": _FINISH, "result": _RESULTS.get(result, result) or None})
        elif not is_open or each.status not in workflow.TASK_OPEN:
            yield _event(TASK, {**its, "type": _CANCEL})
    if not is_open:
        kind = _FINISH if read.status == workflow.TASK_COMPLETED else _TERMINATE
        ended = {"finishTime": _ms(read.finish_time), "result": (read.result or "").lower() or None}
        yield _event(INSTANCE, {**about, **began, **ended, "type": kind})


def _event(event_type: str, data: Mapping[str, Any]) -> Event:
    """An event whose id comes from its content: the edge refuses an id with another content."""
    present = {name: value for name, value in data.items() if value is not None}
    content = json.dumps([event_type, present], sort_keys=True).encode()
    return Event(f"read-{hashlib.sha256(content).hexdigest()[:32]}", event_type, None, present)


def _ms(value: wire.Id) -> int | None:
    span = span_of(value)
    return None if span is None else span.first


def _last_ms(value: wire.Id) -> int | None:
    span = span_of(value)
    return None if span is None else span.end - 1


def may_leave_tasks_open(event: Event) -> bool:
    """Whether the approval ended in a way after which DingTalk is not known to report the end of each open task."""
    data = event.data
    ended = data.get("type") == _TERMINATE or (data.get("type") == _FINISH and data.get("result") != _AGREE)
    return event.event_type == INSTANCE and ended


def cancellations(event: Event, tasks: Iterable[workflow.ApprovalTask], source: str) -> list[Message]:
    """The messages that cancel the tasks which nobody decided, because the approval has ended by this event."""
    return [
        _message(event, source, _CANCEL, {"task_id": str(each.task_id)}, suffix=f":{each.task_id}")
        for each in tasks
        if each.status != workflow.TASK_COMPLETED
    ]


def _of_task(data: Mapping[str, Any], action: str) -> dict[str, Any]:
    task_id, user_id = data.get("taskId"), data.get("staffId")
    about: dict[str, Any] = {"task_id": None if task_id is None else str(task_id)}
    if action == _CREATE:
        return about | {"recipient_ids": user_id, "created_at": data.get("createTime")}
    if action == _COMPLETE:
        return about | {"actor_id": user_id, "outcome": data.get("result"), "remark": data.get("remark")}
    # A cancel names whose task it was, not who did it.
    return about


def _of_instance(data: Mapping[str, Any], kind: str, action: str) -> dict[str, Any]:
    if action == _DELETE:
        return {}
    user_id = data.get("staffId")
    return {
        "originator": None if user_id is None else {"user_id": user_id},
        "url": data.get("url"),
        "instance_status": _STATUSES[kind],
        "approved_result": data.get("result"),
        "created_at": data.get("createTime"),
        "finished_at": None if kind == START else data.get("finishTime"),
    }


def _message(event: Event, source: str, action: str, about: Mapping[str, Any], *, suffix: str = "") -> Message:
    data, message_id = event.data, event.event_id + suffix
    told = {
        "corp_id": event.corp_id,
        "app_type": data.get("processCode"),
        "process_code": data.get("processCode"),
        "instance_id": data.get("processInstanceId"),
        "title": data.get("title"),
        "serial_no": data.get("businessId"),
        **about,
        "dingtalk": {"eventType": event.event_type, **data},
    }
    attributes = {
        "specversion": "1.0",
        "id": message_id,
        "source": f"/{source}",
        "type": f"{source}.task.{action}",
        "data": {name: value for name, value in told.items() if value is not None},
    }
    if (at_ms := _happened_ms(data, action)) is not None:
        attributes["time"] = rfc3339(at_ms)
    return Message(action, message_id, json.dumps(attributes, ensure_ascii=False).encode())


def _happened_ms(data: Mapping[str, Any], action: str) -> int | None:
    """When it happened; None leaves it to the edge, which takes the time of receipt.

    A deletion has no time of its own: that of the instance may be long ago, and deleted instances are forgotten after a
    time.
    """
    if action == _DELETE:
        return None
    at_ms = data.get("createTime") if data.get("type") == START else data.get("finishTime")
    return at_ms if isinstance(at_ms, int) else None
