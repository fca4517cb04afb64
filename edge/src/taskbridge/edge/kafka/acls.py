"""What the edge's Kafka user may do: no more, and no less."""

from __future__ import annotations

from taskbridge.runtime.kafka import Acl
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS

EDGE = (
    Acl("Write", "topic", TASK_EVENTS.name, "stores accepted callbacks; without it they wait in the spool"),
    Acl("Write", "topic", CALLBACKS_QUARANTINE.name, "stores rejected callbacks; without it they wait in the spool"),
    Acl("DescribeConfigs", "topic", "taskbridge.", "reports changed topic settings", prefixed=True),
)
