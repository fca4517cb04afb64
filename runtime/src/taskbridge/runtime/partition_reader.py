"""Reads partitions of a topic, each from an offset to an end, within time limits.

``streams.tables.changelog_reader`` does not use it: its partitions change while it reads, and continue as standbys.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from taskbridge.runtime.kafka import LIBRDKAFKA, is_denied, no_answer, not_allowed
from taskbridge.schemas.errors import ConfigurationError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping


_BATCH = 1000
_WAIT_S = 0.2
_SILENT_S = 10.0
"""A consumer that returned nothing for this long is replaced. When all brokers were fenced for a moment, librdkafka may
have forgotten all of them for good (its issue 5301)."""
_METADATA_S = 5
_LEADERLESS_S = 10.0
"""A new topic gets its leaders a moment after its creation."""
_LEADERLESS = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
_POLL_S = 0.1
_TRANSIENT = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT)  # noqa: SLF001 - how the library names its codes
_OUT_OF_RANGE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)  # noqa: SLF001


class Unreadable(OperatorError):
    """Kafka does not return the records."""


class OutOfRange(Unreadable):
    """The partition does not have the offset: it was deleted, or the topic was recreated."""


class TimeLimit(Unreadable):
    """Kafka did not return all records in time. Those that it returned are valid."""


class PartitionReader:
    """One consumer, made at its first use, that joins no group and commits nothing. Every method blocks.

    It reads one range at a time: a generator that is left early has to be closed before the next ``read``. When Kafka
    has returned nothing for long, the next ``read`` makes another consumer.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        self.config: dict[str, Any] = {
            # A caller that waits for a few records waits for the end of the partition too.
            "fetch.wait.max.ms": 20,
            "queued.max.messages.kbytes": 16 << 10,
            **config,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
        self._consumer: Consumer | None = None
        self._silent_s = 0.0
        self.reached: dict[int, int] = {}
        """Partition → offset before which every record was returned."""

    @property
    def consumer(self) -> Consumer:
        self._consumer = self._consumer or Consumer(self.config, logger=LIBRDKAFKA)
        return self._consumer

    def partitions(self, topic: str) -> list[int]:
        """The partitions of the topic; ConfigurationError if it does not exist, OperatorError without an answer."""
        try:
            found = self.consumer.list_topics(topic, timeout=_METADATA_S).topics[topic]
        except KafkaException as error:
            raise self.no_answer(error) from error
        if found.error is not None and is_denied(found.error):
            raise OperatorError(not_allowed(f"Read on topic {topic}"))
        if found.error is not None:
            raise ConfigurationError(
                f"topic {topic} does not exist: create the topics of the contract with 'taskbridge topics apply'"
            )
        return sorted(found.partitions)

    def bounds(self, topic: str, *, since_ms: int | None = None) -> dict[int, tuple[int, int]]:
        """The first offset, of all records or of those since a time, and the end of each partition.

        Raises as ``partitions``.
        """
        try:
            found = {each: self._bounds_of(TopicPartition(topic, each)) for each in self.partitions(topic)}
            if since_ms is not None:
                times = [TopicPartition(topic, each, max(0, since_ms)) for each in found]
                for at in self.consumer.offsets_for_times(times, timeout=_METADATA_S):
                    end = found[at.partition][1]
                    found[at.partition] = (at.offset if at.offset >= 0 else end), end
        except KafkaException as error:
            raise self.no_answer(error) from error
        return found

    def no_answer(self, error: KafkaException) -> OperatorError:
        return OperatorError(no_answer(self.consumer, str(self.config["bootstrap.servers"]), error))

    def read(
        self,
        topic: str,
        starts: Mapping[int, int],
        ends: Mapping[int, float] | None = None,
        *,
        batch: int = _BATCH,
        within_s: float = inf,
        quiet_s: float = inf,
    ) -> Generator[list[Message]]:
        """The records from each partition's start to before its end, in batches as they arrive.

        A batch is empty while none arrive. Without ``ends``, reading stops at the present end. An end beyond that is
        waited for, because a transaction is open or the leader has just changed; with ``inf`` the topic is followed.

        Raises:
            OutOfRange: The partition has no such offset, and ``auto.offset.reset`` does not allow the first one.
            TimeLimit: It takes longer than ``within_s``, or no record arrives for ``quiet_s``.
            Unreadable: Kafka rejects the request.
        """
        self.reached = dict(starts)
        left = {each: inf if ends is None else ends[each] for each in starts}
        left = {each: end for each, end in left.items() if starts[each] < end}
        if not left:
            return
        consumer = self.consumer
        consumer.assign([TopicPartition(topic, each, starts[each]) for each in left])
        began = heard = time.monotonic()
        try:
            while left:
                now = time.monotonic()
                if now - began >= within_s or now - heard >= quiet_s:
                    raise TimeLimit(f"reading {topic}: Kafka returns no more records")
                # One first: a larger number would wait for all of them, or for the whole time.
                messages = consumer.consume(1, _WAIT_S)
                if messages:
                    messages += consumer.consume(batch - 1, 0)
                before = set(left)
                records = self._filter(topic, messages, left, to_eof=ends is None)
                if left and (done := before - left.keys()):
                    consumer.incremental_unassign([TopicPartition(topic, each) for each in done])
                yield records
                if messages:
                    heard = time.monotonic()
        finally:
            consumer.unassign()
            self._silent_s = self._silent_s + time.monotonic() - began if self.reached == starts else 0.0
            if self._silent_s >= _SILENT_S:
                self.close()

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
            self._silent_s = 0.0

    def _bounds_of(self, place: TopicPartition) -> tuple[int, int]:
        deadline = time.monotonic() + _LEADERLESS_S
        while True:
            try:
                return self.consumer.get_watermark_offsets(place, timeout=_METADATA_S)
            except KafkaException as error:
                if error.args[0].code() not in _LEADERLESS or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_S)

    def _why(self, topic: str, error: KafkaError) -> str:
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return not_allowed(f"Describe on group {self.config['group.id']}")
        return not_allowed(f"Read on topic {topic}") if is_denied(error) else error.str()

    def _filter(self, topic: str, messages: list[Message], left: dict[int, float], *, to_eof: bool) -> list[Message]:
        """The records of the range; a partition that has reached its end is removed from ``left``."""
        reached = self.reached
        records: list[Message] = []
        for message in messages:
            partition, offset, error = cast("int", message.partition()), cast("int", message.offset()), message.error()
            is_eof = error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001
            if error is not None and not is_eof:
                if error.code() not in _TRANSIENT:
                    kind = OutOfRange if error.code() in _OUT_OF_RANGE else Unreadable
                    raise kind(f"reading {topic}: {self._why(topic, error)}") from KafkaException(error)
            elif partition in left:  # otherwise it was fetched before the partition was unassigned
                if offset < reached[partition]:
                    raise OutOfRange(f"reading {topic}: partition {partition} ends before offset {reached[partition]}")
                end = offset if is_eof and to_eof else left[partition]
                if not is_eof and offset < end:
                    records.append(message)
                    offset += 1
                # Offsets before it may have no records: compacted, aborted, the ends of transactions.
                reached[partition] = cast("int", min(offset, end))
                if offset >= end:
                    del left[partition]
        return records
