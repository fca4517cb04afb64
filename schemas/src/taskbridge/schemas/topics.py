"""The topics of the contract, as values: name, record, and the broker's settings that the promises rest on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PARTITIONS = 12

MAX_MESSAGE_BYTES = 4 << 20
"""A body of 1 MiB stands in its event twice (parsed and raw), and needs room for headers and growth in encoding."""

USUAL_MESSAGE_BYTES = 1_048_588
"""A broker's own default, for topics that say nothing of it. No notification needs more, and any consumer takes it."""

_DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that every part of taskbridge finds by this name and these settings."""

    name: str
    record: str | None
    """Name of the Avro record in ``schemas/avro``; None where values are whatever was received."""
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    any_partitions: bool = False
    """Whether it may have another number of partitions than the others: nothing is where its records are."""

    @property
    def subject(self) -> str:
        return f"{self.name}-value"


def _kept(days: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS)}


REPLAYED_DAYS = 30
"""How long a callback can come again from one of these topics: as a dead letter, or from the quarantine."""

_LARGE = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}

TASK_EVENTS = Topic("taskbridge.task-events.v1", "TaskEvent", _kept(REPLAYED_DAYS) | _LARGE)
TASK_STATES = Topic("taskbridge.task-states.v1", "TaskState", {"cleanup.policy": "compact"} | _LARGE)
TASK_NOTIFICATIONS = Topic("taskbridge.task-notifications.v1", "TaskNotification", _kept(7))
TASK_EVENTS_DLQ = Topic("taskbridge.task-events-dlq.v1", None, _kept(REPLAYED_DAYS) | _LARGE)
CALLBACKS_QUARANTINE = Topic(
    "taskbridge.callbacks-quarantine.v1",
    "QuarantinedCallback",
    # Anybody who reaches the edge can fill this topic, so its size is bounded too: bytes are per partition.
    _kept(7) | _LARGE | {"retention.bytes": str(256 << 20)},
)
PEOPLE = Topic("taskbridge.people.v1", "Person", {"cleanup.policy": "compact"}, any_partitions=True)
FORMS = Topic("taskbridge.forms.v1", "Form", {"cleanup.policy": "compact"}, any_partitions=True)

ALL = (TASK_EVENTS, TASK_STATES, TASK_NOTIFICATIONS, TASK_EVENTS_DLQ, CALLBACKS_QUARANTINE, PEOPLE, FORMS)
