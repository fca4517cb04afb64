"""Where partitions begin and end, asked with a time limit that holds.

``Consumer.get_watermark_offsets`` may wait for ever, whatever its timeout, for a broker that was killed meanwhile.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from confluent_kafka import TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ANSWER_S = 10.0
_CONSUMERS_ONLY = ("group.", "auto.", "enable.", "fetch.", "queued.", "isolation.")


class Bounds(NamedTuple):
    """The first offset that a partition still has, and the one behind its last."""

    first: int
    end: int


class Offsets:
    """Every method blocks, and may be called from any thread.

    Raises:
        KafkaException: Kafka refuses, or cannot be reached.
        TimeoutError: it does not answer.
    """

    def __init__(self, consumer: Mapping[str, object]) -> None:
        config = {name: value for name, value in consumer.items() if not name.startswith(_CONSUMERS_ONLY)}
        self._admin = AdminClient(cast("dict[str, Any]", config), logger=logging.getLogger("librdkafka"))

    def topic_id(self, topic: str) -> str:
        """Kafka's id of the topic: another one when it was deleted and made anew."""
        described = cast("dict[str, Any]", self._admin.describe_topics(TopicCollection([topic])))
        return str(described[topic].result(_ANSWER_S).topic_id)

    def bounds(self, topic: str, partitions: Iterable[int]) -> dict[int, Bounds]:
        """What each partition has now."""
        wanted = list(partitions)
        first = self._ask(topic, wanted, OffsetSpec.earliest())
        return {partition: Bounds(first[partition], end) for partition, end in self.ends(topic, wanted).items()}

    def ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The offset behind the last of each partition."""
        return self._ask(topic, list(partitions), OffsetSpec.latest())

    def _ask(self, topic: str, partitions: list[int], spec: Any) -> dict[int, int]:
        if not partitions:
            return {}
        wanted = {TopicPartition(topic, partition): spec for partition in partitions}
        asked = cast("dict[TopicPartition, Any]", self._admin.list_offsets(wanted, request_timeout=_ANSWER_S))
        return {at.partition: answer.result(_ANSWER_S).offset for at, answer in asked.items()}
