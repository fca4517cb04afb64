"""A publisher in memory, and callbacks as Yida and another system send them, for tests with the edge."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from taskbridge.edge.errors import NotDurable
from taskbridge.edge.events import Durability
from taskbridge.edge.publisher import KafkaPublisher
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.testing import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from taskbridge.edge.events import Decided
    from taskbridge.schemas.events import QuarantinedCallback, TaskEvent

APP_TYPE = "APP_RY60OCRF33Z7534TEST1"
CORP_ID = "ding5d17e3add038d44535c2f4657eb6378f"
SYSTEM_TOKEN = "TESTTOKEN0123456789ABCDEF0123456789ABCDEF"
DATE_TIME = "1693462062502"

SOURCE = "flow"
SOURCE_SECRET = "whsec_YSBzZWNyZXQgb2YgYSBzeXN0ZW0gaW4gdGhlIHRlc3Q="
"""The secret of another system of CORP_ID."""


_EVENTS = task_event_codec(FakeRegistry())


def event_in(decided: Decided) -> TaskEvent:
    return _EVENTS.decode(_EVENTS.frame() + decided.body)


@dataclass
class MemoryPublisher(KafkaPublisher):
    """Stores events in a list; rejects them while ``away`` is the reason."""

    published: list[TaskEvent] = field(default_factory=list["TaskEvent"])
    traceparents: list[str | None] = field(default_factory=list[str | None])
    quarantined: list[QuarantinedCallback] = field(default_factory=list["QuarantinedCallback"])
    away: str | None = None

    async def start(self) -> None:
        """There is nothing to connect to."""

    async def close(self) -> None:
        """There is nothing to wait for."""

    def health(self) -> dict[str, str]:
        return {"kafka": self.away or "ok", "spool": self.away or "ok", "registry": "ok"}

    def can_store(self) -> bool:
        return self.away is None

    async def publish(self, decided: Decided, *, traceparent: str | None) -> Durability:
        if self.away is not None:
            raise NotDurable(self.away)
        self.published.append(event_in(decided))
        self.traceparents.append(traceparent)
        return Durability.KAFKA

    def way(self) -> None:
        """There may be something to wait for."""

    async def quarantine(self, callback: QuarantinedCallback) -> Durability:
        if self.away is not None:
            raise NotDurable(self.away)
        self.quarantined.append(callback)
        return Durability.KAFKA


def write_credentials(
    path: Path, *tokens: str, app_type: str = APP_TYPE, corp_id: str | None = CORP_ID, secrets: Sequence[str] = ()
) -> None:
    """Write a credentials file with one app, and with SOURCE if ``secrets`` are given, in one step."""
    lines = ["[[apps]]", f"app_type = {json.dumps(app_type)}", f"system_tokens = {json.dumps(tokens)}"]
    if corp_id is not None:
        lines.append(f"corp_id = {json.dumps(corp_id)}")
    if secrets:
        named = [f"name = {json.dumps(SOURCE)}", f"corp_id = {json.dumps(CORP_ID)}"]
        lines += ["[[sources]]", *named, f"secrets = {json.dumps(secrets)}"]
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines), "utf-8")
    new.replace(path)


def parameters_of(wire_action: str, *, instance_id: str, task_id: str = "2199132092") -> dict[str, str]:
    """The parameters of one callback, in the documented shape and not signed."""
    if wire_action in ("create", "cc"):
        return {"task": json.dumps(task_of(instance_id, task_id), ensure_ascii=False), "dateTime": DATE_TIME}
    flat = {"appType": APP_TYPE, "corpId": CORP_ID, "formInstId": instance_id, "dateTime": DATE_TIME}
    return flat if wire_action == "delete" else flat | {"taskId": task_id, "actualWorkId": "01690741902689"}


def message_of(wire_action: str, *, instance_id: str, task_id: str = "T-1") -> dict[str, Any]:
    """The data of a message of SOURCE, with all fields that the edge reads."""
    named = {"app_type": "leave", "instance_id": instance_id}
    if wire_action == "delete":
        return named
    if wire_action in ("complete", "cancel"):
        return named | {"task_id": task_id, "actor_id": "0169"}
    return named | {
        "corp_id": CORP_ID,
        "task_id": task_id,
        "recipient_ids": ["0169", "0170"],
        "originator": {"user_id": "01690741902689", "name": "张红"},
        "title": "张红的请假申请",
        "url": "https://flow.example/tasks/T-1",
        "process_code": "leave:3",
        "process_name": "请假",
        "form_uuid": "FORM-1",
        "serial_no": "2023-0001",
        "instance_status": "RUNNING",
        "created_at": 1693462062502,
        "form_data": {"days": 3, "reason": None},
    }


def task_of(instance_id: str, task_id: str = "2199132092") -> Mapping[str, object]:
    """``task`` of a create: the documented sample, with the ids that its description promises."""
    return {
        "actionerId": ["0169", "0170"],
        "appType": APP_TYPE,
        "corpId": CORP_ID,
        "createTime": 1693462062502,
        "dataMap": {"numberField_l4s57vma": "1", "imageField_llyrklcy": None, "deep": {"n": 1.0, "b": True}},
        "finishTime": None,
        "formInstanceId": instance_id,
        "formUuid": "FORM-MT866EA1X3N9W79GDQM2HB400M413OS76A2GL51",
        "originatorCorpId": CORP_ID,
        "originatorDisplayName": "张红",
        "originatorId": "01690741902689",
        "processApprovedResult": "",
        "processCode": "TPROC--9BC6687125N9XAJ8873I0864QY122BZ96A2GL1",
        "processInstanceStatus": "RUNNING",
        "processName": "访客申请",
        "taskId": task_id,
        "title": "张红的1位访客申请",
        "url": "https://www.aliwork.com/APP_RY60OCRF33Z7534TEST1/processDetail?id=1",
    }
