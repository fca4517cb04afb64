"""The changelogs of the tables: what the topics are, and how they are read in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.schemas.topics import MAX_MESSAGE_BYTES, Topic
from taskbridge.streams.positions.version import FIRST_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

TOMBSTONES_KEPT_MS = 7 * 24 * 60 * 60 * 1000
"""A store that was away for longer may have missed that a key was deleted."""

_SETTINGS = {
    "cleanup.policy": "compact",
    "delete.retention.ms": str(TOMBSTONES_KEPT_MS),
    "max.message.bytes": str(MAX_MESSAGE_BYTES),
}

# The names are Faust's: app, table, "changelog".
INBOX_CHANGELOG = Topic("taskbridge-streams-inbox-changelog", None, _SETTINGS)


REBUILD = "taskbridge streams --rebuild"
REPUBLISH = "taskbridge streams --republish"


def mend(changelog: str) -> str:
    """The command that rebuilds what this changelog has lost, as a sentence without its full stop."""
    if changelog == INBOX_CHANGELOG.name:
        return f"Rebuild the inboxes: {REPUBLISH}"
    return f"Rebuild the states: {REBUILD}"


def instances_table_name(version: int) -> str:
    return "instances" if version == FIRST_VERSION else f"instances-v{version}"


def instances_changelog(version: int) -> Topic:
    """The changelog topic of that version of the instances."""
    return Topic(f"taskbridge-streams-{instances_table_name(version)}-changelog", None, _SETTINGS)


def reader_config(consumer: Mapping[str, object], *, buffer_bytes: int) -> dict[str, object]:
    """A consumer's properties turned to reading in bulk, with at most about ``buffer_bytes`` waiting to be applied."""
    return {
        **consumer,
        # The end is told by an event, and soon. A position that Kafka no longer has is an error, never a jump.
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 100,
        "auto.offset.reset": "error",
        # What a killed worker left half written is no state.
        "isolation.level": "read_committed",
        "queued.max.messages.kbytes": buffer_bytes >> 10,
        # The default of a second would make up most of a restoration.
        "fetch.queue.backoff.ms": 5,
    }
