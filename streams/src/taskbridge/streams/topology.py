"""What the streams service reads, keeps and writes, declared once for Faust.

Reads ``taskbridge.task-events.v1`` (a chunk at a time). Keeps the table ``instances``, partitioned like the events,
with a compacted changelog. Writes states, notifications and dead letters: see
``streams.processing.task_agent``. With the task center, reads ``taskbridge.task-notifications.v1`` too, and keeps the
table ``inbox``: see ``streams.inbox.agent``.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import structlog

from taskbridge.streams.engine.parts import declare_table
from taskbridge.streams.positions.changelog_topic import INBOX_CHANGELOG, instances_changelog, instances_table_name
from taskbridge.streams.positions.version import FIRST_VERSION
from taskbridge.streams.tables.store import Store

if TYPE_CHECKING:
    import faust

    from taskbridge.schemas.topics import Topic

log = structlog.get_logger(__name__)


def instances_table(app: faust.App, *, partitions: int, version: int = FIRST_VERSION) -> tuple[Store, str]:
    """Declare that version of the table of instances; returns its store and the name of its changelog topic."""
    return _table(app, instances_table_name(version), instances_changelog(version), partitions)


def inbox_table(app: faust.App, *, partitions: int) -> tuple[Store, str]:
    """Declare the table of inboxes, with the same partitions; returns its store and the name of its changelog topic.

    Topics and changelogs with as many partitions go to the same workers: Faust's assignor sees to it.
    """
    return _table(app, "inbox", INBOX_CHANGELOG, partitions)


def _table(app: faust.App, name: str, changelog: Topic, partitions: int) -> tuple[Store, str]:
    table = declare_table(app, name, partitions=partitions)
    # The topic is made by us before Faust could: its replication is then what the cluster prescribes.
    assert table.changelog_topic.get_topic_name() == changelog.name
    store = table.data
    assert isinstance(store, Store)
    return store, changelog.name


def remove_other_versions(app: faust.App, *, version: int) -> None:
    """Take the stores of versions that are not live off the disk. Blocks."""
    live = instances_table_name(version)
    others = [path for path in app.conf.tabledir.glob("instances*-*.db") if path.name.rpartition("-")[0] != live]
    for path in others:
        shutil.rmtree(path, ignore_errors=True)
    if others:
        log.info("stores_removed", stores=len(others), live=version)


def chunks_of(app: faust.App, topic: Topic) -> Any:
    """The topic's records as raw bytes: they are decoded in the agent's own reach, so that a bad one can be parked.

    Without Faust's acks: ``streams.engine.transport`` keeps the positions.
    """
    return app.topic(
        topic.name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=False
    )
