"""The reference job without a framework: a loop over confluent-kafka, with RocksDB and a changelog of its own.

In a batch: fold → changelog, states and notifications to Kafka and delivered → local store → commit. An instance that a
batch meets more than once is written once. What else a framework offers (standbys, many workers, metrics) is
missing here, so this is about the least that the job costs in Python.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from rocksdict import AccessType, Options, Rdict, WriteBatch, WriteOptions
from tests.bench.streams.peers.given import Given

if TYPE_CHECKING:
    from confluent_kafka import Message

    from taskbridge.streams.fold.instance import Instance

_BATCH = 5000
_RESTORE_BATCH = 20_000
_WAIT_S = 0.2
_REQUEST_S = 30.0
_OFFSET_KEY = b"\x00changelog-offset"


class Store:
    """One RocksDB a partition; a batch and the changelog offset that it reaches are written together."""

    def __init__(self, given: Given) -> None:
        self._folder = given.state_dir
        self._folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[int, Rdict] = {}
        self._options: Any = WriteOptions()
        # The changelog is the log: after a crash the store is at an earlier offset, and reads on from there.
        self._options.disable_wal = True

    def get(self, partition: int, key: bytes) -> bytes | None:
        return self._db(partition).get(key)

    def offset(self, partition: int) -> int:
        found = self._db(partition).get(_OFFSET_KEY)
        return -1 if found is None else int(found)

    def write(self, partition: int, values: dict[bytes, bytes], offset: int) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in values.items():
            batch.put(key, value)
        batch.put(_OFFSET_KEY, str(offset).encode())
        self._db(partition).write(batch, self._options)

    def close(self) -> None:
        for each in self._open.values():
            each.close()

    def _db(self, partition: int) -> Any:
        if partition not in self._open:
            options = Options(raw_mode=True)
            options.create_if_missing(True)  # noqa: FBT003 - RocksDB's own call
            path = str(self._folder / str(partition))
            self._open[partition] = Rdict(path, options, access_type=AccessType.read_write())
        return self._open[partition]


class Loop:
    def __init__(self, given: Given) -> None:
        self._given = given
        self._store = Store(given)
        self._stopping = False
        self._changelog_offsets: dict[int, int] = {}
        self._failed: KafkaError | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": given.bootstrap_servers,
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": given.linger_ms,
                "batch.size": 256 << 10,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self._consumer = Consumer(
            {
                "bootstrap.servers": given.bootstrap_servers,
                "group.id": given.group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )

    def run(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)
        self._consumer.subscribe([self._given.events_topic], on_assign=self._restore)
        while not self._stopping:
            # Without waiting: a batch has the events that came during the last one.
            found = self._consumer.consume(1, _WAIT_S)
            if found:
                found += self._consumer.consume(_BATCH - 1, 0)
                self._process([each for each in found if each.error() is None])
        self._consumer.close()
        self._store.close()

    def _stop(self, _signum: int, _frame: object) -> None:
        self._stopping = True

    def _process(self, batch: list[Message]) -> None:
        job, given = self._given.job, self._given
        instances: dict[tuple[int, bytes], Instance] = {}
        for message in batch:
            place: Any = (message.partition(), message.key())
            before = instances.get(place)
            if before is None:
                stored = self._store.get(*place)
                before = None if stored is None else job.unpack(stored)
            value: Any = message.value()
            instances[place], found = job.apply(before, job.event(value))
            for notified in job.notified(found):
                self._send(given.notifications_topic, notified.key, notified.value, headers=notified.headers)
        written: dict[int, dict[bytes, bytes]] = {}
        for (partition, key), instance in instances.items():
            state = job.state(instance)
            stored = written.setdefault(partition, {})[key] = job.pack(state, instance)
            self._send(given.changelog_topic, key, stored, partition=partition)
            self._send(given.states_topic, key, job.published(instance, state))
        self._producer.flush()
        if self._failed is not None:
            raise SystemExit(f"not delivered: {self._failed}")
        for partition, values in written.items():
            self._store.write(partition, values, self._changelog_offsets[partition])
        self._consumer.commit(asynchronous=True)

    def _send(self, topic: str, key: bytes, value: bytes | None, **more: Any) -> None:
        while True:
            try:
                self._producer.produce(topic, key=key, value=value, on_delivery=self._delivered, **more)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed = error
        elif message.topic() == self._given.changelog_topic:
            partition: Any = message.partition()
            offset: Any = message.offset()
            self._changelog_offsets[partition] = offset

    def _restore(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        """Bring the stores of these partitions to the ends of their changelogs, before the first event is processed."""
        topic = self._given.changelog_topic
        reader = Consumer(
            {"bootstrap.servers": self._given.bootstrap_servers, "group.id": f"{self._given.group}-restore"}
        )
        left: dict[int, int] = {}
        positions: list[TopicPartition] = []
        for each in assigned:
            begin = self._store.offset(each.partition) + 1
            _, end = reader.get_watermark_offsets(TopicPartition(topic, each.partition), timeout=_REQUEST_S)
            if begin < end:
                left[each.partition] = end
                positions.append(TopicPartition(topic, each.partition, begin))
        reader.assign(positions)
        while left:
            values: dict[int, dict[bytes, bytes]] = {}
            offsets: dict[int, int] = {}
            for message in reader.consume(_RESTORE_BATCH, 0.2):
                if message.error() is None:
                    place: Any = (message.partition(), message.offset(), message.key())
                    partition, offset, key = place
                    value: Any = message.value()
                    values.setdefault(partition, {})[key] = value
                    offsets[partition] = offset
            for partition, found in values.items():
                self._store.write(partition, found, offsets[partition])
                if offsets[partition] + 1 >= left.get(partition, 0):
                    left.pop(partition, None)
        reader.close()
        consumer.assign(assigned)
        self._given.report_ready()


if __name__ == "__main__":
    Loop(Given.read()).run()
