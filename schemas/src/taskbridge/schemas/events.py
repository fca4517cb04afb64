"""The records that both sides share, a struct for each Avro schema: one module, in which codecs look up their types.

Field names are the Avro names; fields that must be given come first. Times are milliseconds since the epoch, UTC. What
each field means is documented in the ``.avsc`` file, which is what consumers in other languages read.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping  # noqa: TC003 - whoever asks for the records' types must be able to resolve them
from enum import StrEnum

from msgspec import Struct, field

SOURCE_YIDA = "yida"
"""The sending system of whatever does not say another one."""
SOURCE_TASKBRIDGE = "taskbridge"
"""Of the cause of a notification that no callback caused: the end of a retention, or a rebuild of the states."""

MAX_ID_CHARACTERS = 128
"""Of an ``instance_id``; it has one at least, and no control characters."""
MAX_NAME_CHARACTERS = 256
"""Of a name or an id of a person, and of a title, an id or a label of a form: what is longer is a note, or two columns
that ran together, and is not taken."""

ID_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:taskbridge:v1").bytes
"""Of the UUIDs, version 5, that are made here."""
_NAMESPACE = hashlib.sha1(ID_NAMESPACE, usedforsecurity=False)
_VARIANTS = dict(zip("0123456789abcdef", 4 * "89ab", strict=True))
"""A hex digit → the one that says which variant of UUID it is, with the two bits that are kept."""


class Word(StrEnum):
    """One of a fixed set of words. Hashed as the text that it equals, in C: an enum's own hash is a Python function."""

    __hash__ = str.__hash__


class Action(Word):
    """What happened, in the past tense. ``UNKNOWN`` stands for an action of a newer schema."""

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
    """The state of a task; ``ACTIVE`` is an instance's before it has any task."""

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
    """What is known of one person: Avro ``Person``. Topic ``taskbridge.people.v1``, key as of notifications, compacted.

    A type of its own: a ``Person`` within other records stays as small as it was, on the wire and in the stores.
    """

    user_id: str
    name: str | None = None
    department: str | None = None
    employee_number: str | None = None
    other_ids: Mapping[str, str] = field(default_factory=dict[str, str])


class Form(Struct, frozen=True, gc=False):
    """What a form and its fields are called. Topic ``taskbridge.forms.v1``, key as ``form_key`` has it, compacted."""

    form_uuid: str
    title: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


class TaskEvent(Struct, frozen=True, gc=False):
    """One callback that was verified and understood. Topic ``taskbridge.task-events.v1``, key ``instance_id``."""

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


class CopiedEntry(Struct, frozen=True, gc=False):
    """Somebody who was copied in, and when first."""

    user_id: str
    at: int


class TaskState(Struct, frozen=True, gc=False):
    """What is known of one process instance. Topic ``taskbridge.task-states.v1``, key ``instance_id``, compacted."""

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
    recovered_by: str | None = None


def event_id_for(source: str, action: str, parameters: Mapping[str, str]) -> str:
    """The same for ever for the same callback: UUIDv5 of source, action and all parameters but ``sign``.

    Encoding, token, hex case of the signature and order of the parameters do not enter it. Each part is preceded by its
    length, so that no two different callbacks run together to one text.
    """
    parts = [f"{len(key)}:{key}{len(value := parameters[key])}:{value}" for key in sorted(parameters) if key != "sign"]
    return _uuid5(f"{len(source)}:{source}{len(action)}:{action}{''.join(parts)}")


def notification_id_for(event_id: str, recipient_id: str, view: View, task_id: str | None, change: Change) -> str:
    """The same for ever for the same change of the same entry by the same event, so that a consumer can deduplicate."""
    return _uuid5("\n".join((event_id, recipient_id, view, task_id or "", change)))


def state_id_for(state: TaskState) -> str:
    """The same for ever for the same revision of an instance's state."""
    return _uuid5(f"state\n{state.instance_id}\n{state.revision}\n{state.updated_at}")


def notification_key(corp_id: str, user_id: str) -> bytes:
    """The key of a person's records: the order of notifications is kept, and one inbox reads one partition."""
    return f"{corp_id}/{user_id}".encode()


def form_key(corp_id: str, form_uuid: str) -> bytes:
    """The key of a form's record."""
    return f"{corp_id}/{form_uuid}".encode()


def _uuid5(name: str) -> str:
    """The text of the UUIDv5, without the object between, which takes longer to make than the hash."""
    digest = _NAMESPACE.copy()
    digest.update(name.encode())
    digits = digest.hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANTS[digits[16]]}{digits[17:20]}-{digits[20:32]}"
