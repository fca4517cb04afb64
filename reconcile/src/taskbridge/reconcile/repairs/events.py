"""A repair as an event: marked, and with an id that the same repair has for ever. Pure."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from taskbridge.schemas.events import SOURCE_YIDA, Action, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:taskbridge:reconcile:v1")
"""Of the ids of repairs: none is ever that of a callback."""


class Kind(StrEnum):
    """What was missing."""

    INSTANCE = "instance"
    """Nothing was known of it."""
    TASK = "task"
    """A task, or one more who may decide it, was not known."""
    ASSIGNEE = "assignee"
    """A task was known, but nobody who may decide it: callbacks of the documents do not name them."""
    DECISION = "decision"
    """A task was open here and is not."""
    COPY = "copy"
    DELETION = "deletion"
    OUTCOME = "outcome"
    """That it was decided was known, but not how."""
    END = "end"
    """How the instance ended."""
    CLOSED = "closed"
    """A task was open here and is not, and nobody decided it."""


LOST = frozenset({Kind.INSTANCE, Kind.TASK, Kind.DECISION, Kind.COPY, Kind.DELETION})
"""A callback should have told it. The others no callback of the documents tells."""


@dataclass(frozen=True, slots=True)
class Repair:
    kind: Kind
    event: TaskEvent


def repair(kind: Kind, *, received_at: int, **told: Any) -> Repair:
    """The event that says ``told``. Its id is made of all that it says, and of nothing else."""
    fields: dict[str, Any] = {"source": SOURCE_YIDA, **told}
    return Repair(kind, TaskEvent(event_id=repair_id(fields), received_at=received_at, **fields))


def repair_id(fields: Mapping[str, Any]) -> str:
    """A UUID, version 5, of these fields of an event; what is None is as if it were not there."""
    plain = {name: msgspec.to_builtins(value) for name, value in fields.items() if value not in (None, (), {})}
    return str(uuid.uuid5(NAMESPACE, json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))))


def deletion(corp_id: str, app_type: str, instance_id: str, *, first_absent_ms: int, received_at: int) -> Repair:
    """The instance was not there then, nor a day or more later: see ``kept.absences``."""
    return repair(
        Kind.DELETION,
        received_at=received_at,
        action=Action.DELETED,
        corp_id=corp_id,
        app_type=app_type,
        instance_id=instance_id,
        occurred_at=first_absent_ms,
    )
