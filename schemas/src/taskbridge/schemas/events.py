"""The records of the contract, one struct for each Avro schema, and the rules for their ids and times. Pure.

Field names are the Avro names; required fields come first. Times are milliseconds since the epoch, UTC. The ``.avsc``
file documents each field, because consumers in other languages read that file. Codecs look up their types here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping  # noqa: TC003 - get_type_hints of the records resolves it
from enum import StrEnum

from msgspec import Struct, field

SOURCE_YIDA = "yida"
"""The default source of an event."""
SOURCE_TASKBRIDGE = "taskbridge"
"""The source of a notification that no callback caused: a retention ended, or the states were rebuilt."""

PERSON, AUTOMATIC, DELEGATE = "PERSON", "AUTOMATIC", "DELEGATE"
"""Who decided a task: the words of ``decided_by``. AUTOMATIC: a rule or the system. DELEGATE: for the person."""

MAX_ID_CHARACTERS = 128
"""The maximum length of an ``instance_id``. It has at least one character, and no control characters."""
MAX_NAME_CHARACTERS = 256
"""The maximum length of a person's name or id, and of a form's title, id or label. A longer one is rejected: it is a
note, or two columns that ran together."""

FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999: what CloudEvents' ``time`` and ISO 8601 can express."""
AHEAD_MS = 5 * 60 * 1000
"""How far a sender's clock may be ahead of ours."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:taskbridge:v1")
ID_NAMESPACE = _NAMESPACE.bytes
"""The namespace of the UUIDs, version 5, that this module makes."""


class Word(StrEnum):
    """One of a fixed set of words. It hashes as its text, in C: an enum's own hash is a Python function."""

    __hash__ = str.__hash__


class Action(Word):
    """What happened, in the past tense. ``UNKNOWN`` is an action of a newer schema."""

    CREATED = "CREATED"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    DELETED = "DELETED"
    COPIED = "COPIED"
    UNKNOWN = "UNKNOWN"


class Lifecycle(Word):
    ACTIVE = "ACTIVE"
    DELETED = "DELETED"
    UNKNOWN = "UNKNOWN"


class Status(Word):
    """The status of a task. ``ACTIVE`` is the status of an instance that has no task yet."""

    PENDING = "PENDING"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    ACTIVE = "ACTIVE"
    UNKNOWN = "UNKNOWN"


class View(Word):
    """The four lists of a task center: created by me, pending, handled, copied to me."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    HANDLED = "HANDLED"
    COPIED = "COPIED"
    UNKNOWN = "UNKNOWN"


class Change(Word):
    ADDED = "ADDED"
    UPDATED = "UPDATED"
    REMOVED = "REMOVED"
    UNKNOWN = "UNKNOWN"


class Person(Struct, frozen=True, gc=False):
    user_id: str
    name: str | None = None


class PersonRecord(Struct, frozen=True, gc=False):
    """One person: Avro ``Person``. Topic ``taskbridge.people.v1``, key as for notifications, compacted.

    It is a separate type, so that a ``Person`` within other records stays small on the wire and in the stores.
    """

    user_id: str
    name: str | None = None
    department: str | None = None
    employee_number: str | None = None
    other_ids: Mapping[str, str] = field(default_factory=dict[str, str])


class FormField(Struct, frozen=True, gc=False):
    """A field of a form that has values."""

    field_id: str
    component: str
    """The sender's name for its kind, such as ``NumberField``."""
    parent_field_id: str | None = None
    """The table that the field is in."""


class Form(Struct, frozen=True, gc=False):
    """The title and the fields of a form. Topic ``taskbridge.forms.v1``, key ``form_key``, compacted."""

    form_uuid: str
    title: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    fields: tuple[FormField, ...] = ()
    """In the order of the form; none if only labels are known."""


class FormData(Struct, frozen=True, gc=False):
    """The values of one form instance. Topic ``taskbridge.form-data.v1``, key ``instance_id``, compacted."""

    corp_id: str
    app_type: str
    form_uuid: str
    instance_id: str
    read_at: int
    cause: str
    """``create``, ``event``, ``scan`` or ``backfill``. Other words are possible."""
    process_code: str | None = None
    data: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])
    modified_at: int | None = None
    event_id: str | None = None
    deleted: bool = False


class TaskEvent(Struct, frozen=True, gc=False):
    """One verified callback. Topic ``taskbridge.task-events.v1``, key ``instance_id``."""

    event_id: str
    source: str
    action: Action
    corp_id: str
    app_type: str
    instance_id: str
    occurred_at: int
    received_at: int
    task_id: str | None = None
    actor_id: str | None = None
    recipient_ids: tuple[str, ...] = ()
    originator: Person | None = None
    title: str | None = None
    url: str | None = None
    process_code: str | None = None
    process_name: str | None = None
    form_uuid: str | None = None
    serial_no: str | None = None
    instance_status: str | None = None
    approved_result: str | None = None
    created_at: int | None = None
    finished_at: int | None = None
    outcome: str | None = None
    remark: str | None = None
    step_name: str | None = None
    step_id: str | None = None
    decided_by: str | None = None
    """PERSON, AUTOMATIC or DELEGATE. Other words are possible: docs/adr/0052."""
    due_at: int | None = None
    recovered_by: str | None = None
    form_data: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])
    raw_parameters: Mapping[str, str] = field(default_factory=dict[str, str])


class QuarantinedCallback(Struct, frozen=True, gc=False):
    """A rejected request as received. Topic ``taskbridge.callbacks-quarantine.v1``, key the app type or empty."""

    quarantine_id: str
    received_at: int
    action: str
    reason: str
    app_type: str | None
    remote_address: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class TaskEntry(Struct, frozen=True, gc=False):
    """One approval step within a ``TaskState``."""

    task_id: str
    status: Status
    assignee_ids: tuple[str, ...] = ()
    actor_id: str | None = None
    url: str | None = None
    created_at: int | None = None
    decided_at: int | None = None
    outcome: str | None = None
    remark: str | None = None
    step_name: str | None = None
    step_id: str | None = None
    decided_by: str | None = None
    due_at: int | None = None


class CopiedEntry(Struct, frozen=True, gc=False):
    """A person who was copied in, and the first time."""

    user_id: str
    at: int


class TaskState(Struct, frozen=True, gc=False):
    """The state of one process instance. Topic ``taskbridge.task-states.v1``, key ``instance_id``, compacted."""

    instance_id: str
    corp_id: str
    app_type: str
    updated_at: int
    revision: int
    title: str | None = None
    url: str | None = None
    originator: Person | None = None
    process_code: str | None = None
    process_name: str | None = None
    lifecycle: Lifecycle = Lifecycle.ACTIVE
    tasks: tuple[TaskEntry, ...] = ()
    copied: tuple[CopiedEntry, ...] = ()
    source: str = SOURCE_YIDA
    form_uuid: str | None = None
    serial_no: str | None = None
    instance_status: str | None = None
    approved_result: str | None = None
    finished_at: int | None = None
    result: str | None = None
    form_data: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])
    began_at: int | None = None
    assignee_ids: tuple[str, ...] = ()


class TaskNotification(Struct, frozen=True, gc=False):
    """One change of one person's view. Topic ``taskbridge.task-notifications.v1``, key ``{corp_id}/{recipient_id}``."""

    notification_id: str
    corp_id: str
    recipient_id: str
    view: View
    change: Change
    instance_id: str
    task_id: str | None
    title: str | None
    url: str | None
    app_type: str
    originator: Person | None
    actor_id: str | None
    status: Status
    occurred_at: int
    event_id: str
    process_name: str | None = None
    entered_at: int | None = None
    updated_at: int | None = None
    source: str = SOURCE_YIDA
    outcome: str | None = None
    remark: str | None = None
    finished_at: int | None = None
    result: str | None = None
    step_name: str | None = None
    step_id: str | None = None
    decided_by: str | None = None
    due_at: int | None = None
    recovered_by: str | None = None


def event_id_for(source: str, action: str, parameters: Mapping[str, str]) -> str:
    """The UUIDv5 of source, action and all parameters but ``sign``. The same callback always has the same id.

    The id does not depend on the encoding, the token, the hex case of the signature or the order of the parameters.
    A length precedes each part, so that two different callbacks never give the same text.
    """
    parts = [f"{len(key)}:{key}{len(value := parameters[key])}:{value}" for key in sorted(parameters) if key != "sign"]
    return _uuid(f"{len(source)}:{source}{len(action)}:{action}{''.join(parts)}")


def notification_id_for(event_id: str, recipient_id: str, view: View, task_id: str | None, change: Change) -> str:
    """The id of one change of one entry by one event. It never changes, so that a consumer can deduplicate."""
    return _uuid("\n".join((event_id, recipient_id, view, task_id or "", change)))


def state_id_for(state: TaskState) -> str:
    """The id of one revision of an instance's state. It never changes."""
    return _uuid(f"state\n{state.instance_id}\n{state.revision}\n{state.updated_at}")


def form_data_id_for(record: FormData) -> str:
    """The id of one reading of an instance. It never changes."""
    return _uuid(f"form-data\n{record.instance_id}\n{record.read_at}\n{record.cause}\n{record.deleted}")


def notification_key(corp_id: str, user_id: str) -> bytes:
    """The key of a person's records: their notifications stay in order, in one partition."""
    return f"{corp_id}/{user_id}".encode()


def form_key(corp_id: str, form_uuid: str) -> bytes:
    return f"{corp_id}/{form_uuid}".encode()


def effective_time(at: int, *, received_at: int) -> int:
    """The time that counts, in the edge and in the fold: the time of receipt, if ``at`` is more than 5 minutes later.

    The latest fact or decision wins, so a date in the far future would win against every true one. The event contains
    the time of receipt too, so each event counts as of the same time in any order.
    """
    return received_at if at > received_at + AHEAD_MS else at


def _uuid(name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, name))
