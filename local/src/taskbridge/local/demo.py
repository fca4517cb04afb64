"""The demo: post the life of three requests to a running bridge, and show the notifications that a consumer receives.

The requests are the vendor's documented sample and the other documented shapes of callbacks.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from taskbridge.cli.callbacks import Sender
from taskbridge.edge.verification.credentials import CredentialsFile
from taskbridge.local.company import CORP, vendor_sample
from taskbridge.local.host import write_new
from taskbridge.local.simulation import Simulation, Tally, apps_of, introduce, page_of, simulate
from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.events import Change, View
from taskbridge.schemas.inbox import apply
from taskbridge.schemas.topics import TASK_NOTIFICATIONS

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

    from confluent_kafka import Message
    from rich.console import Console

    from taskbridge.cli.connection import Connection
    from taskbridge.edge.sender import Encoding
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.schemas.inbox import Inbox

APP = "APP_RY60OCRF33Z7534***"
PEOPLE = {
    "01690741902689": "张红 (originator)",
    "0169-li-lei": "李雷 (department head)",
    "0169-han-mei": "韩梅梅 (security desk)",
    "0169-wang-wei": "王伟 (reception)",
}
_ZHANG, _LI, _HAN, _WANG = PEOPLE

_NOTIFICATIONS_WITHIN_S = 20.0
_COMPANY_APPS = ("APP_OA7K2MDEMO", "APP_FIN3XDEMO")
_TRICKLE_A_SECOND, _CHAOS = 0.7, 0.05
_QUIET_S = 0.3
"""The notifications of a callback are written together; after this pause no more are expected."""

_VIEW_NAMES = {
    View.CREATED: "created by me",
    View.PENDING: "pending",
    View.HANDLED: "handled",
    View.COPIED: "copied to me",
}


@dataclass(frozen=True, slots=True)
class Step:
    says: str
    action: str
    encoding: Encoding
    parameters: dict[str, str]


def story() -> list[Step]:
    """A request that is approved, one that is withdrawn, one that is deleted. Ids are new each time."""
    approved, withdrawn, deleted = (str(uuid.uuid4()) for _ in range(3))
    # DingTalk's API knows tasks by numbers.
    first, second, third = (str(10**10 + uuid.uuid4().int % 2**32) for _ in range(3))
    return [
        Step(
            "张红 files a visitor request (the vendor's sample)", "create", "form", _task(approved, "张红的1位访客申请")
        ),
        Step(
            "it waits for 李雷's approval",
            "create",
            "json",
            _task(approved, "张红的1位访客申请", taskId=first, actionerId=_LI, url=_page(approved)),
        ),
        Step("李雷 approves", "complete", "form", _decision(approved, first, _LI)),
        Step("韩梅梅 is copied in", "cc", "multipart", _task(approved, "张红的1位访客申请", actionerIds=[_HAN])),
        Step("张红 files another", "create", "form", _task(withdrawn, "张红的3位访客申请")),
        Step(
            "it waits for 李雷 or 王伟",
            "create",
            "form",
            _task(withdrawn, "张红的3位访客申请", taskId=second, actionerId=[_LI, _WANG], url=_page(withdrawn)),
        ),
        Step("张红 withdraws it", "cancel", "query", _decision(withdrawn, second, _ZHANG)),
        Step(
            "张红 files a third by mistake",
            "create",
            "json",
            _task(deleted, "测试, 请忽略", taskId=third, actionerId=_WANG),
        ),
        Step("and deletes it", "delete", "form", {"appType": APP, "corpId": CORP, "formInstId": deleted}),
    ]


def _task(instance_id: str, title: str, **more: Any) -> dict[str, str]:
    task = {**vendor_sample(), "appType": APP, "formInstanceId": instance_id, "title": title, **more}
    return {"task": json.dumps(task, ensure_ascii=False)}


def _decision(instance_id: str, task_id: str, actor_id: str) -> dict[str, str]:
    return {"appType": APP, "corpId": CORP, "formInstId": instance_id, "taskId": task_id, "actualWorkId": actor_id}


def _page(instance_id: str) -> str:
    return f"https://yida.example/{APP.rstrip('*')}/processDetail?procInsId={instance_id}"


def write_credentials(path: Path) -> str:
    """Create a credentials file for the demo's apps; returns the token of the story's app.

    A file that exists is never changed: its apps are used if they are those of an earlier demo.

    Raises ConfigurationError if it cannot be read, or has other apps.
    """
    tokens = {app: secrets.token_hex(20).upper() for app in (APP, *_COMPANY_APPS)}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(
        f'[[apps]]\napp_type = "{app}"\ncorp_id = "{CORP}"\nsystem_tokens = ["{token}"]\n'
        for app, token in tokens.items()
    )
    if write_new(path, text):
        return tokens[APP]
    used = next((each for each in CredentialsFile(path).current.tokens if each.app_type == APP), None)
    if used is None:
        raise ConfigurationError(
            f"{path} exists and has no app of the demo, which does not change it: choose another --credentials"
        )
    return used.secret.get_secret_value()


def person_pages(center_url: str) -> dict[str, str]:
    return {name: page_of(center_url, CORP, user_id) for user_id, name in PEOPLE.items()}


def person_of_assistant() -> tuple[str, str]:
    """Corp and user id of the first of them."""
    return CORP, next(iter(PEOPLE))


def trickle(edge_url: str, credentials: Path, stop: threading.Event) -> None:
    """Simulate a company until ``stop``, so that the pages change. Errors of the edge do not end the demo."""
    simulation = Simulation(apps_of(credentials), seed=secrets.randbelow(1 << 32), chaos=_CHAOS)
    while not stop.is_set():
        with suppress(OperatorError):
            simulate(edge_url, simulation, tally=Tally(), rate=_TRICKLE_A_SECOND, stop=stop, progress=lambda _: None)
        stop.wait(1)


def play(connection: Connection, edge_url: str, system_token: str, console: Console) -> None:
    """Post every callback of the story, show its notifications as they arrive, then everyone's four views.

    Raises OperatorError if a callback was rejected, or its notifications did not arrive in time.
    """
    inbox: Inbox = {}
    callbacks, notifications, slowest_ms = 0, 0, 0.0
    codec = task_notification_codec(connection.registry)
    introduce(connection, [CORP], progress=lambda _: None)
    with (
        closing(connection.follow(TASK_NOTIFICATIONS.name, from_beginning=True)) as batches,
        Sender(edge_url) as sender,
    ):
        next(batches)  # so that the consumer is ready before the first callback
        for step in story():
            posted = time.perf_counter()
            event_id = _post(step, sender, system_token, console)
            callbacks += 1
            for notification in _caused_by(event_id, batches, codec):
                slowest_ms = max(slowest_ms, (time.perf_counter() - posted) * 1000)
                notifications += 1
                apply(inbox, notification)
                console.print(_line(notification), highlight=False, soft_wrap=True)
    console.print()
    console.print(_four_views(inbox))
    console.print(
        f"{callbacks} callbacks accepted, {notifications} notifications read back from {TASK_NOTIFICATIONS.name}; "
        f"slowest from post to notification: {slowest_ms:.0f} ms",
        highlight=False,
        soft_wrap=True,
    )


def _post(step: Step, sender: Sender, system_token: str, console: Console) -> str:
    answer = sender.post(step.action, step.parameters, system_token=system_token, encoding=step.encoding)
    if not answer.accepted:
        raise OperatorError(f"the edge rejected '{step.action}' with {answer.status}: {answer.body}")
    event_id = str(answer.body["eventId"])
    console.print(
        f"\n[bold]{step.says}[/bold]\n"
        f"  POST /yida/tasks/{step.action} as {step.encoding}: 200 in {answer.milliseconds:.0f} ms, "
        f"durable in {answer.body['durability']}, event {event_id}",
        highlight=False,
        soft_wrap=True,
    )
    return event_id


def _line(notification: TaskNotification) -> str:
    who = PEOPLE.get(notification.recipient_id, notification.recipient_id)
    task = f", task {notification.task_id}" if notification.task_id else ""
    view = _VIEW_NAMES[notification.view]
    status = "" if notification.change is Change.REMOVED else f", now {notification.status}"
    return f"    → {who}: {notification.change} in '{view}'{status}{task}"


def _four_views(inbox: Inbox) -> Table:
    table = Table("person", *_VIEW_NAMES.values(), title="The four views at the end", show_lines=True)
    for user_id, name in PEOPLE.items():
        cells: dict[View, list[str]] = {view: [] for view in _VIEW_NAMES}
        for line, notification in inbox.items():
            if line.user_id == user_id:
                cells[line.view].append(f"{notification.title} ({notification.status})")
        table.add_row(name, *("\n".join(each) or "-" for each in cells.values()))
    return table


def _caused_by(
    event_id: str, batches: Iterator[list[Message]], codec: Codec[TaskNotification]
) -> Iterator[TaskNotification]:
    """The notifications of one event as they arrive, until a pause."""
    until, came = time.monotonic() + _NOTIFICATIONS_WITHIN_S, False
    while time.monotonic() < until:
        for message in next(batches):
            notification = codec.decode(message.value())
            if notification.event_id == event_id:
                until, came = time.monotonic() + _QUIET_S, True
                yield notification
    if not came:
        raise OperatorError(
            f"no notification of event {event_id} within {_NOTIFICATIONS_WITHIN_S:.0f} s; run 'taskbridge doctor'"
        )
