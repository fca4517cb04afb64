"""The versions of the table of instances: their topics, and the record that names the live version. Pure.

Each version is a table with its own changelog and stores. The group and its positions in the events are shared.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES, Topic

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_VERSION = 1

VERSION_TOPIC = Topic("taskbridge-streams-version", None, {"cleanup.policy": "compact"})
"""One partition, and few keys."""
VERSION_KEY = b"instances"
TOLD_KEY = b"told"
"""Its value is how far notifications went when everybody had been told again: before that, inboxes are not whole."""


class Republished(NamedTuple):
    """The offset after the last notification of a republication, by partition."""

    topic_id: str
    """Kafka's id of the notifications: in a topic made anew, offsets begin again."""
    ends: Mapping[int, int]


class VersionUnreadable(OperatorError):
    """The record that says which version is live says none: this program did not write it."""


class Versions(NamedTuple):
    """Where no record says otherwise, the first version is live."""

    live: int = FIRST_VERSION
    next: int | None = None
    """A rebuild is about to make this one live, and no worker may work until it has, or is given up.

    Where it is the live one, everybody is being told again what they see.
    """
    partitions: int | None = None
    """All topics are being brought to this number, and there is no way back: no worker may work until they have it."""


def write_versions(versions: Versions) -> bytes:
    return json.dumps(versions._asdict()).encode()


def read_versions(written: bytes | None) -> Versions:
    """What ``write_versions`` wrote.

    Raises:
        VersionUnreadable: something else did.
    """
    if written is None:
        return Versions()
    try:
        found = json.loads(written)
        following, partitions = found["next"], found.get("partitions")
        return Versions(
            int(found["live"]),
            None if following is None else int(following),
            None if partitions is None else int(partitions),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise VersionUnreadable(f"{VERSION_TOPIC.name} contains {written[:100]!r}, which is no version") from error


def write_told(told: Republished) -> bytes:
    return json.dumps({"topic_id": told.topic_id, "ends": {str(each): end for each, end in told.ends.items()}}).encode()


def read_told(written: bytes | None) -> Republished | None:
    """What ``write_told`` wrote; None where nothing was, or something else: then nobody waits for anything."""
    try:
        found = json.loads(written or b"")
        return Republished(str(found["topic_id"]), {int(each): int(end) for each, end in found["ends"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


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
