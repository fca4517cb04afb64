"""The permissions on Kafka that webhooks need: they read topics and write none."""

from __future__ import annotations

from taskbridge.runtime.kafka import Acl
from taskbridge.schemas import topics

GROUPS = "taskbridge-webhooks"
"""Prefix of its consumer groups."""

WEBHOOKS = (
    Acl("Read", "topic", topics.TASK_NOTIFICATIONS.name, "delivers notifications"),
    Acl("Read", "topic", topics.TASK_STATES.name, 'delivers present entries, for start = "present"'),
    Acl("Read", "topic", topics.PEOPLE.name, "finds people's ids in other systems"),
    Acl("Read", "group", GROUPS, "shares partitions among replicas", prefixed=True),
)
