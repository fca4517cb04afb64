"""What the worker's Kafka user may do: no more, and no less."""

from __future__ import annotations

from taskbridge.runtime.acls import Acl
from taskbridge.schemas import topics
from taskbridge.streams.contract.live_version import REBUILD_ID
from taskbridge.streams.engine.app import APP_ID

INTERNAL = f"{APP_ID}-"
"""So all names begin that are the worker's own: changelogs, the live version, transactional ids."""

WORK = (
    Acl("Read", "topic", topics.TASK_EVENTS.name, "reads the events"),
    Acl("Write", "topic", topics.TASK_STATES.name, "the states"),
    Acl("Write", "topic", topics.TASK_NOTIFICATIONS.name, "the notifications"),
    Acl("Write", "topic", topics.TASK_EVENTS_DLQ.name, "stores events that cannot be processed"),
    Acl("Create", "topic", INTERNAL, "creates the changelogs", prefixed=True),
    Acl("Read", "topic", INTERNAL, "restores tables from changelogs", prefixed=True),
    Acl("Write", "topic", INTERNAL, "writes each change of a table to its changelog", prefixed=True),
    Acl("Read", "group", APP_ID, "shares partitions and commits positions"),
    Acl("Describe", "group", REBUILD_ID, "waits while a rebuild switches the live version"),
    Acl(
        "Write",
        "transactional-id",
        INTERNAL,
        "commits states, notifications and position of a chunk in one transaction",
        prefixed=True,
    ),
)
"""Without one of these no worker works."""

TASK_CENTER = (Acl("Read", "topic", topics.TASK_NOTIFICATIONS.name, "builds inboxes from notifications"),)
"""The same, where ``STREAMS_TASK_CENTER`` is not switched off."""

EXTRAS = (
    Acl("Write", "topic", topics.TASK_EVENTS.name, "forwards events after an increase of partitions"),
    Acl("Read", "topic", topics.PEOPLE.name, "shows people by name"),
    Acl("Read", "topic", topics.FORMS.name, "shows form fields by label"),
    Acl("Read", "topic", topics.TASK_EVENTS_DLQ.name, "shows dead letters on the operator page"),
    Acl("Read", "topic", topics.CALLBACKS_QUARANTINE.name, "shows rejected callbacks on the operator page"),
    Acl("DescribeConfigs", "topic", "taskbridge.", "reports changed topic settings", prefixed=True),
    Acl("DescribeConfigs", "topic", INTERNAL, "reports changed topic settings", prefixed=True),
)
"""Without one of these workers work, and tell what they go without."""


def needed(*, task_center: bool) -> tuple[Acl, ...]:
    """Without one of these a worker with these settings does not work."""
    return (*WORK, *(TASK_CENTER if task_center else ()))


def wished(*, task_center: bool) -> tuple[Acl, ...]:
    """Without one of these it works, and tells what it goes without; what only the task center reads, only with it."""
    return tuple(acl for acl in EXTRAS if task_center or acl.operation == "Write")
