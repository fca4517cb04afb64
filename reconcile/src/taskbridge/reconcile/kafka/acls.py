"""What reconcile's Kafka user may do: no more, and no less."""

from __future__ import annotations

from taskbridge.reconcile.kafka.states_topic import GROUP
from taskbridge.runtime.acls import Acl
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES

RECONCILE = (
    Acl("Read", "topic", TASK_STATES.name, "reads the state of each instance"),
    Acl("Write", "topic", TASK_EVENTS.name, "repairs, and history"),
    Acl("Read", "topic", TASK_EVENTS.name, "checks whether events wait for the workers"),
    Acl("Describe", "group", GROUP, "reads the workers' positions; joins no group"),
)
