"""The permissions on Kafka that the task center needs: it reads topics and writes none."""

from __future__ import annotations

from taskbridge.runtime.kafka import Acl
from taskbridge.schemas import topics

GROUPS = "taskbridge-center-"
"""Prefix of its consumer groups."""

CENTER = (
    Acl("Read", "topic", topics.TASK_STATES.name, "builds the lists from states"),
    Acl("Read", "topic", topics.TASK_EVENTS.name, "shows histories"),
    Acl("Read", "topic", topics.PEOPLE.name, "shows people by name"),
    Acl("Read", "topic", topics.FORMS.name, "shows form fields by label"),
    Acl("Read", "topic", topics.CALLBACKS_QUARANTINE.name, "shows rejected callbacks on the operator page"),
    Acl("Read", "topic", topics.TASK_EVENTS_DLQ.name, "shows dead letters on the operator page"),
    Acl("Read", "group", GROUPS, "shares partitions among replicas", prefixed=True),
)
