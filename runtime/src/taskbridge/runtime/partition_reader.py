"""Reads parts of a topic, each partition from an offset to its end and no further, within bounds.

``streams.tables.changelog`` stands by itself: its partitions come and go while it reads, and go on as standbys.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from taskbridge.runtime.acls import is_refusal, not_allowed
from taskbridge.runtime.kafka import LIBRDKAFKA
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from confluent_kafka import Message

_BATCH = 1000
_WAIT_S = 0.2
_SILENT_S = 10.0
"""Which has given nothing in so many seconds of reading is not used again. librdkafka may know no broker any more, for
ever, when all were fenced for a moment (its issue 5301)."""
_TRANSIENT = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT)  # noqa: SLF001 - how the library names its codes
_OUT_OF_RANGE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)  # noqa: SLF001


class Unreadable(OperatorError):
    """Kafka does not give what is asked for."""


class OutOfRange(Unreadable):
    """The partition does not have the offset: no longer, or it is another one of this name."""


class TimeLimit(Unreadable):
    """Kafka did not give all of it in time. What it gave stands."""


class PartitionReader:
    """One consumer, made when it is needed, that joins no group and commits nothing. Every method blocks.

    Where Kafka gave nothing for long, the next reading makes another.

    For one reading at a time: one that is left before it ends has to be closed first.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        self._config: dict[str, Any] = {
            # Whoever waits for a few records waits for their end too.
            "fetch.wait.max.ms": 20,
            "queued.max.messages.kbytes": 16 << 10,
            **config,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
        self._consumer: Consumer | None = None
        self._silent_s = 0.0
        self.reached: dict[int, int] = {}
        """Of each partition, the offset before which everything was given, or is no record."""

    @property
    def consumer(self) -> Consumer:
        """For whoever asks for more than records: what partitions there are, where they begin and end."""
        self._consumer = self._consumer or Consumer(self._config, logger=LIBRDKAFKA)
        return self._consumer

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
        """The records from each partition's start to before its end, in batches as they come; empty ones while none do.

        Without ``ends``, to where there is nothing more now. An end behind that is waited for: a transaction is open,
        or the partition's leader has just changed; or it is ``inf``, and the topic is followed.

        Raises:
            OutOfRange: an offset is not there, and ``auto.offset.reset`` does not say that the first will do; or only
                earlier ones are.
            TimeLimit: it takes longer than ``within_s``, or nothing comes for ``quiet_s``.
            Unreadable: Kafka refuses.
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
                # Not all at once: that would wait for as many, or for all of the time.
                messages = consumer.consume(1, _WAIT_S)
                if messages:
                    messages += consumer.consume(batch - 1, 0)
                before = set(left)
                wanted = self._sifted(topic, messages, left, to_eof=ends is None)
                if left and (done := before - left.keys()):
                    consumer.incremental_unassign([TopicPartition(topic, each) for each in done])
                yield wanted
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

    def _why(self, topic: str, error: KafkaError) -> str:
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return not_allowed(f"Describe on group {self._config['group.id']}")
        return not_allowed(f"Read on topic {topic}") if is_refusal(error) else error.str()

    def _sifted(self, topic: str, messages: list[Message], left: dict[int, float], *, to_eof: bool) -> list[Message]:
        """Those that are wanted; a partition that has come to its end is ``left`` no more."""
        reached = self.reached
        wanted: list[Message] = []
        for message in messages:
            partition, offset, error = cast("int", message.partition()), cast("int", message.offset()), message.error()
            is_eof = error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001
            if error is not None and not is_eof:
                if error.code() not in _TRANSIENT:
                    kind = OutOfRange if error.code() in _OUT_OF_RANGE else Unreadable
                    raise kind(f"reading {topic}: {self._why(topic, error)}") from KafkaException(error)
            elif partition in left:  # else on its way before the partition was given up
                if offset < reached[partition]:
                    raise OutOfRange(f"reading {topic}: partition {partition} ends before offset {reached[partition]}")
                end = offset if is_eof and to_eof else left[partition]
                if not is_eof and offset < end:
                    wanted.append(message)
                    offset += 1
                # Offsets before it may be no records: compacted, aborted, the ends of transactions.
                reached[partition] = cast("int", min(offset, end))
                if offset >= end:
                    del left[partition]
        return wanted
