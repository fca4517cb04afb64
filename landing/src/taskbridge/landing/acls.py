"""The permissions on Kafka that land needs: it reads topics and writes none."""

from __future__ import annotations

from taskbridge.runtime.kafka import Acl
from taskbridge.schemas import topics

GROUPS = "taskbridge-land"
"""Prefix of its consumer groups."""

LAND = (
    Acl("Read", "topic", topics.FORM_DATA.name, "the values of forms"),
    Acl("Read", "topic", topics.FORMS.name, "the fields of forms and their labels"),
    Acl("Read", "topic", topics.PEOPLE.name, "names of people, and their departments"),
    Acl("Read", "topic", topics.TASK_STATES.name, "instances, tasks and decisions"),
    Acl("Read", "group", GROUPS, "shares partitions among processes with the same target", prefixed=True),
)
