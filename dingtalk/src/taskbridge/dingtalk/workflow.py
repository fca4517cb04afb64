"""The names of DingTalk's own approvals and of its Stream mode, as ``wire`` has those of Yida."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from taskbridge.dingtalk import wire

TASK_COMPLETED = "COMPLETED"
"""The status of an approval's task that a person decided."""


class GetProcessInstance(wire.Call, frozen=True, kw_only=True):
    """GET: one approval."""

    path: ClassVar[str] = "/v1.0/workflow/processInstances"

    process_instance_id: str


class Subscription(Struct, frozen=True):
    topic: str
    type: str


class OpenConnection(wire.Call, frozen=True, kw_only=True):
    """POST: where to connect for events. It needs no access token."""

    path: ClassVar[str] = "/v1.0/gateway/connections/open"

    client_id: str
    client_secret: str
    subscriptions: list[Subscription]

    def __repr__(self) -> str:
        return "OpenConnection()"


class ApprovalTask(Struct, frozen=True, rename="camel", omit_defaults=True):
    task_id: int
    status: str | None = None


class Approval(Struct, frozen=True):
    tasks: list[ApprovalTask] = []


class ApprovalAnswer(Struct, frozen=True):
    result: Approval


class Connection(Struct, frozen=True):
    endpoint: str
    ticket: str
    """For one connection, within 90 seconds."""

    def __repr__(self) -> str:
        return f"Connection({self.endpoint})"
