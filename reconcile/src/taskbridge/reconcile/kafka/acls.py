"""What reconcile's Kafka user may do: no more, and no less."""

from __future__ import annotations

from taskbridge.reconcile.kafka.states_topic import GROUP
from taskbridge.runtime.acls import Acl
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES

RECONCILE = (
    Acl("Read", "topic", TASK_STATES.name, "what is known of each instance"),
    Acl("Write", "topic", TASK_EVENTS.name, "repairs, and history"),
    Acl("Describe", "group", GROUP, "it joins no group, and still names one"),
)
