"""What the measured center follows: states of any number of instances, one person with very many, and events."""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING

from tests.bench.streams.records import Writer
from tests.bench.streams.seeds import folded, instance_id
from tests.bench.streams.workload import workload

from taskbridge.cli.terminal import Heartbeat
from taskbridge.schemas.cloudevents import event_headers
from taskbridge.schemas.codec import task_event_codec, task_state_codec
from taskbridge.schemas.events import (
    SOURCE_YIDA,
    Action,
    Lifecycle,
    Person,
    Status,
    TaskEntry,
    TaskEvent,
    TaskState,
)
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES
from taskbridge.schemas.views import views
from taskbridge.streams.fold.instance import fold

if TYPE_CHECKING:
    from tests.bench.streams.setup import Setup

    from taskbridge.streams.fold.instance import Instance

CORP = "ding5d17e3add038d445"
BUSY = "busy"
"""The person with very many handled tasks."""

_TEMPLATES = 500
_FIRST_MS = 1_700_000_000_000
_TICK_S = 0.02


def write_states(setup: Setup, instances: int) -> int:
    """One state of each instance, as a compacted topic has them: 500 real ones with ids of their own.

    Returns how many list entries they have.
    """
    codec, writer, heartbeat = task_state_codec(setup.registry), Writer(setup), Heartbeat(setup.progress)
    states = [folded(number).state for number in range(_TEMPLATES)]
    templates = [(state.instance_id.encode(), codec.encode(state)) for state in states]
    counts, entries = [len(views(each)) for each in states], 0
    for number in range(instances):
        key = instance_id(number).encode()
        old, value = templates[number % _TEMPLATES]
        # Of the same length, so no length before it changes.
        writer.write(TASK_STATES.name, key, value.replace(old, key))
        entries += counts[number % _TEMPLATES]
        if number % 1000 == 0:
            heartbeat.beat(f"writing {number:,} of {instances:,} states")
    writer.finish()
    return entries


def write_busy(setup: Setup, tasks: int) -> None:
    """One person's handled tasks."""
    states, writer = task_state_codec(setup.registry), Writer(setup)
    for number in range(tasks):
        state = _handled(number)
        writer.write(TASK_STATES.name, state.instance_id.encode(), states.encode(state))
    writer.finish()


def write_backlog(setup: Setup, events: int) -> None:
    """The state after each event of new instances, as streams publishes them."""
    codec, writer, heartbeat = task_state_codec(setup.registry), Writer(setup), Heartbeat(setup.progress)
    instances: dict[bytes, Instance] = {}
    for number, (key, event) in enumerate(workload(events, seed=time.time_ns())):
        instances[key] = instance = fold(instances.get(key), event)
        is_there = instance.state.lifecycle is not Lifecycle.DELETED
        writer.write(TASK_STATES.name, key, codec.encode(instance.state) if is_there else None)
        heartbeat.beat(f"writing a backlog: {number:,} of {events:,} states")
    writer.finish()


def _handled(number: int) -> TaskState:
    at = _FIRST_MS + number * 1000
    name = f"{instance_id(number)[:-4]}busy"
    task = TaskEntry(f"TASK-{number}", Status.COMPLETED, (BUSY,), BUSY, None, at, at)
    return TaskState(
        name,
        CORP,
        f"APP_{number % 5}",
        at,
        2,
        title=f"王小明发起的{('请假', '报销', '采购')[number % 3]}申请 {number}",
        url=f"https://example.aliwork.com/APP_RY60OCRF33Z7534/task/{number}",
        originator=Person("manager01", "王小明"),
        process_name="审批",
        tasks=(task,),
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
        self._run_id = uuid.uuid4().hex[:8]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._writer.finish()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stop.wait(_TICK_S):
            due = int((time.monotonic() - began) * self._per_second)
            while self._written < due:
                self._write(self._written)
                self._written += 1

    def _write(self, number: int) -> None:
        instance, step = divmod(number, 3)
        assignee, copied = f"user{instance % self._users:06}", f"user{(instance + 1) % self._users:06}"
        event = TaskEvent(
            event_id=str(uuid.uuid4()),
            source=SOURCE_YIDA,
            action=(Action.CREATED, Action.COMPLETED, Action.COPIED)[step],
            corp_id=CORP,
            app_type="APP_1",
            instance_id=f"trickle-{self._run_id}-{instance}",
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
