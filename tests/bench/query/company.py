"""The queried data: many people with tasks, one with very many, and a stream of events meanwhile."""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING

from tests.bench.streams.records import Writer

from taskbridge.schemas.cloudevents import event_headers, notification_headers
from taskbridge.schemas.codec import task_event_codec, task_notification_codec
from taskbridge.schemas.events import (
    SOURCE_YIDA,
    Action,
    Change,
    Person,
    Status,
    TaskEvent,
    TaskNotification,
    View,
    notification_key,
)
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from tests.bench.streams.setup import Setup

CORP = "ding5d17e3add038d445"
BUSY = "busy"
"""The one with very many handled tasks."""

_FIRST_MS = 1_700_000_000_000
_TICK_S = 0.02


def user(number: int) -> str:
    return f"user{number:06}"


def fill(setup: Setup, *, users: int, tasks: int, busy_tasks: int) -> int:
    """Write everybody's notifications; returns how many."""
    codec = task_notification_codec(setup.registry)
    writer = Writer(setup)
    entries = [(user(number), task) for task in range(tasks) for number in range(users)]
    entries += [(BUSY, task) for task in range(busy_tasks)]
    for user_id, task in entries:
        notification = _notification(
            user_id, task, View.HANDLED if user_id == BUSY else (View.PENDING, View.HANDLED)[task % 2]
        )
        key = notification_key(CORP, user_id)
        writer.write(TASK_NOTIFICATIONS.name, key, codec.encode(notification), notification_headers(notification))
    writer.finish()
    return len(entries)


def _notification(user_id: str, task: int, view: View) -> TaskNotification:
    return TaskNotification(
        notification_id=str(uuid.uuid4()),
        corp_id=CORP,
        recipient_id=user_id,
        view=view,
        change=Change.ADDED,
        instance_id=str(uuid.uuid4()),
        task_id=f"TASK-{task}",
        title=f"{user_id}发起的{('请假', '报销', '采购')[task % 3]}申请 {task}",
        url=f"https://example.aliwork.com/APP_RY60OCRF33Z7534/task/{task}",
        app_type=f"APP_{task % 5}",
        originator=Person("manager01", "王小明"),
        actor_id=None,
        status=Status.COMPLETED if view is View.HANDLED else Status.PENDING,
        occurred_at=_FIRST_MS + task * 1000,
        event_id=str(uuid.UUID(int=task)),
        process_name="审批",
    )


class Trickle:
    """A thread that writes events at a rate, of instances whose lives are a create, a complete and a cc."""

    def __init__(self, setup: Setup, *, per_second: int, users: int) -> None:
        self._writer = Writer(setup, linger_ms=2)
        self._codec = task_event_codec(setup.registry)
        self._per_second = per_second
        self._users = users
        self._stop = threading.Event()
        self._written = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """End it; returns how many events were written."""
        self._stop.set()
        self._thread.join()
        self._writer.finish()
        return self._written

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stop.wait(_TICK_S):
            due = int((time.monotonic() - began) * self._per_second)
            while self._written < due:
                self._write(self._written)
                self._written += 1

    def _write(self, number: int) -> None:
        instance, step = divmod(number, 3)
        assignee, copied = user(instance % self._users), user((instance + 1) % self._users)
        event = TaskEvent(
            event_id=str(uuid.uuid4()),
            source=SOURCE_YIDA,
            action=(Action.CREATED, Action.COMPLETED, Action.COPIED)[step],
            corp_id=CORP,
            app_type="APP_1",
            instance_id=f"trickle-{instance}",
            occurred_at=time.time_ns() // 1_000_000,
            received_at=time.time_ns() // 1_000_000,
            task_id=None if step == 2 else "TASK-1",
            actor_id=assignee if step == 1 else None,
            recipient_ids=((assignee,), (), (copied,))[step],
            originator=Person("manager01", "王小明"),
            title=f"申请 {instance}",
            form_data={"days": "3"},
        )
        self._writer.write(
            TASK_EVENTS.name, event.instance_id.encode(), self._codec.encode(event), event_headers(event)
        )
