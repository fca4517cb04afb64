"""What the worker's Kafka user may do: no more, and no less."""

from __future__ import annotations

from taskbridge.runtime.acls import Acl
from taskbridge.schemas import topics
from taskbridge.streams.contract.live_version import REBUILD_ID
from taskbridge.streams.engine.app import APP_ID

INTERNAL = f"{APP_ID}-"
"""So all names begin that are the worker's own: changelogs, the live version, transactional ids."""

WORK = (
    Acl("Read", "topic", topics.TASK_EVENTS.name, "the events that states come of"),
    Acl("Write", "topic", topics.TASK_STATES.name, "the states"),
    Acl("Write", "topic", topics.TASK_NOTIFICATIONS.name, "the notifications"),
    Acl("Write", "topic", topics.TASK_EVENTS_DLQ.name, "events that cannot be folded are parked there"),
    Acl("Create", "topic", INTERNAL, "a worker makes its own changelogs", prefixed=True),
    Acl("Read", "topic", INTERNAL, "a worker's tables are restored from its changelogs", prefixed=True),
    Acl("Write", "topic", INTERNAL, "each change of a table goes into its changelog", prefixed=True),
    Acl("Read", "group", APP_ID, "workers share the partitions, and commit how far they are"),
    Acl("Describe", "group", REBUILD_ID, "a worker waits while a rebuild makes its version live"),
    Acl("Write", "transactional-id", INTERNAL, "a chunk's states, notifications and position are one", prefixed=True),
)
"""Without one of these no worker works."""

TASK_CENTER = (Acl("Read", "topic", topics.TASK_NOTIFICATIONS.name, "the inboxes come of the notifications"),)
"""The same, where ``STREAMS_TASK_CENTER`` is not switched off."""

EXTRAS = (
    Acl("Write", "topic", topics.TASK_EVENTS.name, "after a move to more partitions events are sent on"),
    Acl("Read", "topic", topics.PEOPLE.name, "people are shown by their names"),
    Acl("Read", "topic", topics.FORMS.name, "fields of forms are shown by their labels"),
    Acl("Read", "topic", topics.TASK_EVENTS_DLQ.name, "the operator's page shows what is parked"),
    Acl("Read", "topic", topics.CALLBACKS_QUARANTINE.name, "the operator's page shows what was rejected"),
    Acl("DescribeConfigs", "topic", "taskbridge.", "changed settings of topics are told", prefixed=True),
    Acl("DescribeConfigs", "topic", INTERNAL, "changed settings of topics are told", prefixed=True),
)
"""Without one of these workers work, and tell what they go without."""


def needed(*, task_center: bool) -> tuple[Acl, ...]:
    """Without one of these a worker with these settings does not work."""
    return (*WORK, *(TASK_CENTER if task_center else ()))


def wished(*, task_center: bool) -> tuple[Acl, ...]:
    """Without one of these it works, and tells what it goes without; what only the task center reads, only with it."""
    return tuple(acl for acl in EXTRAS if task_center or acl.operation == "Write")
