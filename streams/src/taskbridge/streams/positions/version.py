"""The version of the instances that is live, as one record on Kafka says it for workers on any machine. Pure.

A version is a table with its own changelog and its own stores: see ``streams.positions.changelog_topic``. The group,
its positions in the events and everything else that workers keep is the same for all versions.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import Topic

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
