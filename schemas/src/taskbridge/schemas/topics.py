"""The topics of the contract: name, record, and the broker settings that the guarantees need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PARTITIONS = 12

MAX_MESSAGE_BYTES = 4 << 20
"""A body of 1 MiB is in its event twice (parsed and raw). Headers and the encoding need room too."""

USUAL_MESSAGE_BYTES = 1_048_588
"""The broker's default, for topics without this setting. Every notification fits, and every consumer accepts it."""

_DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic, with the name and the settings that every part of taskbridge uses."""

    name: str
    record: str | None
    """The name of the Avro record in ``schemas/avro``. None if values are bytes as received."""
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    any_partitions: bool = False
    """Whether its number of partitions may differ from the others, because no reader needs a record's partition."""

    @property
    def subject(self) -> str:
        return f"{self.name}-value"


def _retention(days: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS)}


REPLAYED_DAYS = 30
"""How long a callback can be replayed from these topics, as a dead letter or from the quarantine."""

_LARGE = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}

TASK_EVENTS = Topic("taskbridge.task-events.v1", "TaskEvent", _retention(REPLAYED_DAYS) | _LARGE)
TASK_STATES = Topic("taskbridge.task-states.v1", "TaskState", {"cleanup.policy": "compact"} | _LARGE)
TASK_NOTIFICATIONS = Topic("taskbridge.task-notifications.v1", "TaskNotification", _retention(7))
TASK_EVENTS_DLQ = Topic("taskbridge.task-events-dlq.v1", None, _retention(REPLAYED_DAYS) | _LARGE)
CALLBACKS_QUARANTINE = Topic(
    "taskbridge.callbacks-quarantine.v1",
    "QuarantinedCallback",
    # Every sender that reaches the edge can fill this topic, so its size is bounded too. Bytes are per partition.
    _retention(7) | _LARGE | {"retention.bytes": str(256 << 20)},
)
PEOPLE = Topic("taskbridge.people.v1", "Person", {"cleanup.policy": "compact"}, any_partitions=True)
FORMS = Topic("taskbridge.forms.v1", "Form", {"cleanup.policy": "compact"}, any_partitions=True)
FORM_DATA = Topic("taskbridge.form-data.v1", "FormData", {"cleanup.policy": "compact"} | _LARGE, any_partitions=True)

ALL = (TASK_EVENTS, TASK_STATES, TASK_NOTIFICATIONS, TASK_EVENTS_DLQ, CALLBACKS_QUARANTINE, PEOPLE, FORMS, FORM_DATA)
