"""What the edge's Kafka user may do: no more, and no less."""

from __future__ import annotations

from taskbridge.runtime.acls import Acl
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS

EDGE = (
    Acl("Write", "topic", TASK_EVENTS.name, "accepted callbacks; meanwhile they wait in the spool"),
    Acl("Write", "topic", CALLBACKS_QUARANTINE.name, "rejected callbacks; meanwhile they wait in the spool"),
    Acl("DescribeConfigs", "topic", "taskbridge.", "changed settings of topics are told", prefixed=True),
)
