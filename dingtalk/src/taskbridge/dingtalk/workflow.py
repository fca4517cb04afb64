"""The names of DingTalk's own approvals and of its Stream mode, as ``wire`` has those of Yida."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct, field

from taskbridge.dingtalk import wire

TASK_COMPLETED = "COMPLETED"
"""The status of an approval's task that a person decided."""
TASK_OPEN = ("NEW", "RUNNING", "PAUSED")
IDS_PER_PAGE, PROCESSES_PER_PAGE = 20, 100
"""The most that the documents allow."""


class GetProcessInstance(wire.Call, frozen=True, kw_only=True):
    """GET: one approval."""

    path: ClassVar[str] = "/v1.0/workflow/processInstances"

    process_instance_id: str


class ListProcesses(wire.Call, frozen=True, kw_only=True):
    """GET: the processes of the organisation: all, because no user is named."""

    path: ClassVar[str] = "/v1.0/workflow/processes/userVisibilities/templates"

    max_results: int = PROCESSES_PER_PAGE
    next_token: int


class ListProcessInstanceIds(wire.Call, frozen=True, kw_only=True, omit_defaults=True):
    """POST: the approvals of a process that were created within a time, in ms: of 120 days at most."""

    path: ClassVar[str] = "/v1.0/workflow/processes/instanceIds/query"

    process_code: str
    start_time: int
    end_time: int
    next_token: int
    max_results: int
    statuses: list[str] | None = None


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
    user_id: str | None = None
    create_time: wire.Id = None
    finish_time: wire.Id = None
    result: str | None = None


class Approval(Struct, frozen=True, rename="camel", omit_defaults=True):
    tasks: list[ApprovalTask] = []
    title: str | None = None
    business_id: str | None = None
    originator_user_id: str | None = None
    create_time: wire.Id = None
    finish_time: wire.Id = None
    status: str | None = None
    result: str | None = None


class ApprovalAnswer(Struct, frozen=True):
    result: Approval


class ProcessRow(Struct, frozen=True, rename="camel"):
    process_code: str


class ProcessPage(Struct, frozen=True, rename="camel", omit_defaults=True):
    process_list: list[ProcessRow] = []
    next_token: wire.Id = None


class ProcessAnswer(Struct, frozen=True):
    result: ProcessPage


class IdPage(Struct, frozen=True, rename="camel", omit_defaults=True):
    ids: list[str] = field(default_factory=list[str], name="list")
    next_token: wire.Id = None


class IdAnswer(Struct, frozen=True):
    result: IdPage


class Connection(Struct, frozen=True):
    endpoint: str
    ticket: str
    """For one connection, within 90 seconds."""

    def __repr__(self) -> str:
        return f"Connection({self.endpoint})"
