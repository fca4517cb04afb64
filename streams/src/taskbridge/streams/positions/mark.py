"""What a worker stands upon, as each of its positions says in its metadata. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Mark(NamedTuple):
    """Written with every position; compared with what Kafka has at each start: ``streams.contract.start``."""

    version: int
    """Of the instances."""
    partitions: int
    """That the topics have."""
    changelog_id: str
    """Kafka's id of the changelog that goes with the position: another one once it was made anew."""
    version_topic_id: str
    """The same, of the topic that says which version is live."""


class Ground(NamedTuple):
    """Of one topic that is read: where its positions are kept too, and what they say."""

    source_id: str
    """Kafka's id of the topic."""
    changelog: str
    mark: Mark


def write_metadata(owner: str, mark: Mark | None) -> str:
    """What stands beside a position: who committed it, and upon what.

    The space at its end tells where that is: librdkafka puts no zero byte behind a copy of metadata (in its
    ``rd_kafka_topic_partition_list_update``), so that what happens to lie there in memory is read as part of them.
    """
    return " ".join((owner, *map(str, mark or ()), ""))


def read_metadata(written: str | None) -> tuple[str | None, Mark | None]:
    """What ``write_metadata`` wrote; no mark where an earlier program did, or another one."""
    owner, *parts = (written or "").split(" ")
    try:
        version, partitions, changelog_id, version_topic_id, *_ = parts
        return owner or None, Mark(int(version), int(partitions), changelog_id, version_topic_id)
    except ValueError:
        return owner or None, None
