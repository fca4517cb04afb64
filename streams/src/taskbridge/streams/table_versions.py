"""The versions of the table of instances: their topics, and the record that names the live version. Pure.

Each version is a table with its own changelog and stores. The group and its positions in the events are shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES, Topic

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_VERSION = 1

VERSION_TOPIC = Topic("taskbridge-streams-version", None, {"cleanup.policy": "compact"})
VERSION_KEY = b"instances"


class VersionUnreadable(OperatorError):
    """The record that names the live version was not written by this program."""


class Versions(Struct, frozen=True):
    """Without a record, the first version is live."""

    live: int = FIRST_VERSION
    next: int | None = None
    """A rebuild is about to make this version live. No worker may work until it is, or the rebuild is given up.

    If it is the live one, all notifications are being republished.
    """
    partitions: int | None = None
    """All topics are being moved to this number of partitions, irrevocably. No worker may work until they have it."""


write_versions = msgspec.json.encode


def read_versions(written: bytes) -> Versions:
    try:
        return msgspec.json.decode(written, type=Versions)
    except msgspec.DecodeError as error:
        raise VersionUnreadable(f"{VERSION_TOPIC.name} contains {written[:100]!r}, which is no version") from error


TOMBSTONE_RETENTION_MS = 7 * 24 * 60 * 60 * 1000
"""A store that was not updated for longer may have missed that a key was deleted."""

_SETTINGS = {
    "cleanup.policy": "compact",
    "delete.retention.ms": str(TOMBSTONE_RETENTION_MS),
    "max.message.bytes": str(MAX_MESSAGE_BYTES),
}

UNUSED_TOPICS = ("taskbridge-streams-inbox-changelog",)

REBUILD = "taskbridge streams --rebuild"
REBUILD_HINT = f"Rebuild the states: {REBUILD}"


def instances_table_name(version: int) -> str:
    return "instances" if version == FIRST_VERSION else f"instances-v{version}"


def instances_changelog(version: int) -> Topic:
    """The changelog topic of a version of the instances. The name is Faust's: app, table, "changelog"."""
    return Topic(f"taskbridge-streams-{instances_table_name(version)}-changelog", None, _SETTINGS)


def reader_config(consumer: Mapping[str, object], *, buffer_bytes: int) -> dict[str, object]:
    """A consumer's properties for bulk reading, with about ``buffer_bytes`` at most waiting in memory."""
    return {
        **consumer,
        # An event reports the end of a partition. An offset that Kafka no longer has is an error, never a jump.
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 100,
        "auto.offset.reset": "error",
        # Records of a killed worker's unfinished transaction are not state.
        "isolation.level": "read_committed",
        "queued.max.messages.kbytes": buffer_bytes >> 10,
        # The default of one second would be most of a restoration's time.
        "fetch.queue.backoff.ms": 5,
    }
