"""Follows topics: a thread that reads records in batches, and writes rows and positions in one transaction each.

Replicas share the partitions of a consumer group. Kafka's positions are not used: those in the database decide where
reading goes on, and whether what was read may be written.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import structlog
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import OffsetSpec

from taskbridge.runtime.database import DatabaseUnavailable, now_ms
from taskbridge.runtime.follow.batch import Assigned, PositionLost, Record, write_batch
from taskbridge.runtime.follow.positions import Position, add_positions, drop_position, read_positions
from taskbridge.runtime.kafka import LIBRDKAFKA, admin_client, consumer_config, is_denied, not_allowed
from taskbridge.schemas.errors import OperatorError, RecordError
from taskbridge.schemas.registry import RegistryUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from confluent_kafka import Message
    from sqlalchemy import Connection

    from taskbridge.runtime.database import Database
    from taskbridge.runtime.follow.batch import FollowedTopic
    from taskbridge.runtime.follow.positions import Place

log = structlog.get_logger(__name__)

T = TypeVar("T")

_BATCH, _BATCH_BYTES = 1000, 4 << 20
"""A batch ends with the record that reaches one of these: its rows are written in seconds."""
_POLL_S = 0.5
_ANSWER_S = 10.0
_EVERY_S = {"health": 1.0, "topics": 5.0, "renewal": 600.0, "purge": 3600.0}
"""How often health is updated and positions are read, topics are compared with those that were read, positions at rest
are renewed, and old rows deleted."""
_BACKOFF_S = (0.05, 0.2, 0.5, 1.0, 2.0)
_STALE_MS = 18 * 60 * 60 * 1000
"""Three quarters of ``delete.retention.ms``: tombstones after an older position may be gone."""

_OUT_OF_RANGE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)  # noqa: SLF001 - the library's names
_HARMLESS = (
    KafkaError._MAX_POLL_EXCEEDED,  # noqa: SLF001 - the group assigns partitions again
    # People and forms need not be there. Without states, lists are never complete, and readiness says so.
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


class PartitionHealth(NamedTuple):
    topic: str
    partition: int
    next_offset: int
    end: int
    complete: bool


class FollowerHealth(NamedTuple):
    """What a follower of this replica does at the moment."""

    group: str
    problem: str | None
    """Why it does not read and write, such as that Kafka, the registry or the database is away."""
    partitions: tuple[PartitionHealth, ...]
    records: Mapping[str, int]
    skipped: Mapping[str, int]
    retries: int
    last_commit_at: int | None

    @property
    def lag(self) -> int:
        return sum(max(0, each.end - each.next_offset) for each in self.partitions)


class _Stopped(Exception):
    """The follower stops."""


class Follower:
    """One thread and one consumer. ``on_change`` is called in this thread, after the commit."""

    def __init__(
        self,
        database: Database,
        name: str,
        topics: Sequence[FollowedTopic],
        *,
        service: str,
        servers: str,
        kafka: Mapping[str, str],
        on_change: Callable[[Collection[Any]], None],
    ) -> None:
        """``kafka``: further properties of clients, which win over ours."""
        self._database, self._name, self._on_change = database, name, on_change
        self._group = f"taskbridge-{service}-{name}"
        self._topics = {each.topic.name: each for each in topics}
        self._servers, self._kafka = servers, kafka
        ours = {
            "session.timeout.ms": 10_000,
            "partition.assignment.strategy": "cooperative-sticky",
            "topic.metadata.refresh.interval.ms": 10_000,
            "queued.max.messages.kbytes": 32 << 10,
        }
        self._config: dict[str, Any] = {
            **ours,
            **consumer_config(servers, self._group, kafka),
            # A position that Kafka does not have is reported: rows may have to go.
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
        self._thread = threading.Thread(target=self._run, name=f"follow-{name}", daemon=True)
        self._stopping = threading.Event()
        self._assigned: dict[Place, Assigned] = {}
        self._described: dict[str, Any] = {}
        self._records: Counter[str] = Counter(dict.fromkeys(self._topics, 0))
        self._skipped: Counter[str] = Counter(dict.fromkeys(self._topics, 0))
        self._retries = 0
        self._problem: str | None = "is starting"
        self._partition_health: tuple[PartitionHealth, ...] = ()
        self._last_commit_at: int | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish the batch that is being written, and leave the group. Blocks; a second call does nothing."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def health(self) -> FollowerHealth:
        problem = self._problem if self._thread.is_alive() else self._problem or "has stopped"
        return FollowerHealth(
            self._name,
            problem,
            self._partition_health,
            dict(self._records),
            dict(self._skipped),
            self._retries,
            self._last_commit_at,
        )

    # The thread.

    def _run(self) -> None:
        self._admin = admin_client(self._servers, self._kafka)
        while not self._stopping.is_set():
            try:
                self._follow()
            except _Stopped:
                break
            except (KafkaException, OperatorError) as error:
                self._report(str(error))
            except Exception as error:
                # For any error: a new consumer begins with the positions in the database.
                log.exception("follower_failed", group=self._group)
                self._report(f"{type(error).__name__}: {error}")
            self._stopping.wait(_BACKOFF_S[-1])

    def _follow(self) -> None:
        consumer = self._consumer = Consumer(self._config, logger=LIBRDKAFKA)
        self._due = dict.fromkeys(_EVERY_S, time.monotonic())
        try:
            consumer.subscribe(
                list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )
            while not self._stopping.is_set():
                try:
                    self._read_and_store()
                    self._upkeep()
                except PositionLost:
                    log.warning("positions_lost", group=self._group)
                    for each in self._begin(list(self._assigned)):
                        consumer.seek(each)
        finally:
            self._assigned.clear()
            self._partition_health = ()
            consumer.close()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if partitions:
            consumer.incremental_assign(self._begin([(each.topic, each.partition) for each in partitions]))
        log.info("partitions_assigned", group=self._group, partitions=len(self._assigned))
        self._report(None)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            self._assigned.pop((each.topic, each.partition), None)
        with suppress(KafkaException):  # lost ones are unassigned already
            consumer.incremental_unassign(partitions)

    def _begin(self, places: Collection[Place]) -> list[TopicPartition]:
        found = self._retried(lambda: self._positions({topic for topic, _ in places}))
        self._assigned |= {place: Assigned(place, found[place]) for place in places}
        return [TopicPartition(*place, found[place].next_offset) for place in places]

    def _positions(self, topics: Collection[str]) -> dict[Place, Position]:
        """The positions of all partitions. Rows that cannot be continued are dropped.

        Also of those that other replicas read: only with all of them it is known whether lists are complete.
        """
        ids = self._topic_ids(topics)
        with self._database.read() as connection:
            found = read_positions(connection, topics)
        dropped = {place for place, position in found.items() if self._is_over(place, position, *ids[place[0]])}
        missing = {(topic, each) for topic in topics for each in range(ids[topic][1])} - (found.keys() - dropped)
        if missing or dropped:
            known = {topic for topic, _ in found}
            added = {
                place: self._first_position(place, ids[place[0]][0], is_new=place[0] not in known) for place in missing
            }
            with self._database.write() as connection:
                for place in sorted(dropped):
                    self._drop(connection, place)
                add_positions(self._database, connection, added)
                for topic in topics:
                    self._topics[topic].adapt(connection)
                found = read_positions(connection, topics)
        return found

    def _is_over(self, place: Place, position: Position, topic_id: str, partitions: int) -> bool:
        """Whether rows cannot be continued: the topic was created again, or tombstones may be gone."""
        is_stale = self._topics[place[0]].is_compacted and now_ms() - position.at > _STALE_MS
        return position.topic_id != topic_id or place[1] >= partitions or is_stale

    def _drop(self, connection: Connection, place: Place) -> None:
        log.warning("rows_dropped", topic=place[0], partition=place[1])
        self._topics[place[0]].lock(connection)
        drop_position(connection, place)
        self._topics[place[0]].drop(connection, place[1])

    def _topic_ids(self, topics: Collection[str]) -> dict[str, tuple[str, int]]:
        found = self._answered(self._describe(topics))
        return {name: (str(each.topic_id), len(each.partitions)) for name, each in found.items()}

    def _describe(self, topics: Collection[str]) -> dict[str, Any]:
        # Answered in this time in any case: the client says what did not answer, our own wait would not.
        return cast("Any", self._admin).describe_topics(TopicCollection(list(topics)), request_timeout=_ANSWER_S)

    def _answered(self, asked: Mapping[T, Any]) -> dict[T, Any]:
        try:
            return {about: answer.result() for about, answer in asked.items()}
        except KafkaException:
            # The client looks for the broker that was the controller until that is back, and uses a core meanwhile.
            self._admin = admin_client(self._servers, self._kafka)
            raise

    def _first_position(self, place: Place, topic_id: str, *, is_new: bool) -> Position:
        # With read_committed, the end is before the first open transaction.
        first, end = self._consumer.get_watermark_offsets(TopicPartition(*place), _ANSWER_S)
        return Position(topic_id, end if is_new and self._topics[place[0]].begins_at_end else first, end, now_ms())

    def _read_and_store(self) -> None:
        # One first: a larger number would wait for all of them, or for the whole time.
        first = self._consumer.poll(_POLL_S)
        if first is not None:
            records, size = [*self._read(first)], len(first.value() or b"")
            for message in self._consumer.consume(_BATCH - 1, 0):
                records += self._read(message)
                size += len(message.value() or b"")
                if size >= _BATCH_BYTES:
                    self._store_assigned(records)
                    records, size = [], 0
            self._store_assigned(records)
        # The end of a filling may be offsets without records.
        ended = [each for each in self._assigned.values() if not each.is_complete]
        self._move([each for each in ended if each.reached >= each.stored.fill_end])

    def _read(self, message: Message) -> list[Record]:
        """The record of a message, if it is one and was not read before."""
        place, offset, error = (message.topic() or "", message.partition() or 0), message.offset() or 0, message.error()
        assigned = self._assigned.get(place)
        if error is None:
            if assigned is None or offset < assigned.reached:
                return []
            assigned.reached = offset + 1
            topic = self._topics[place[0]]
            try:
                return [Record(assigned, message, *self._retried(lambda: topic.read(message)))]
            except RecordError as problem:
                return [Record(assigned, message, "", None, str(problem))]
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            if assigned is not None:
                # Offsets before it may have no records: compacted, aborted, the ends of transactions.
                assigned.reached = max(assigned.reached, offset)
        elif error.code() in _OUT_OF_RANGE and assigned is not None:
            log.warning("position_out_of_range", topic=place[0], partition=place[1], offset=assigned.reached)
            self._retried(lambda: self._restart(place))
            raise PositionLost
        elif error.code() not in _HARMLESS:
            denied = not_allowed(f"Read on topic {place[0]} and on group {self._group}")
            self._report(denied if is_denied(error) else f"Kafka: {error.str()}")
        return []

    def _restart(self, place: Place) -> None:
        with self._database.write() as connection:
            self._drop(connection, place)

    def _store_assigned(self, records: Sequence[Record]) -> None:
        """The first one of a batch is read again where its partition was assigned again in between."""
        self._store([each for each in records if self._assigned.get(each.assigned.place) is each.assigned])

    def _store(self, records: Sequence[Record]) -> None:
        """Write a batch. A record that the database refuses is found by writing halves, and skipped."""
        if not records:
            return
        try:
            self._write(records, {each.assigned: each.offset + 1 for each in records})
        except (PositionLost, _Stopped):
            raise
        except Exception as error:  # noqa: BLE001 - no record may stop the others
            if len(records) == 1:
                # Not the statement, which would show the record's contents.
                line = str(getattr(error, "orig", None) or error).partition("\n")[0]
                self._store([records[0]._replace(problem=f"the database refuses it: {line}")])
            else:
                middle = len(records) // 2
                self._store(records[:middle])
                self._store(records[middle:])

    def _move(self, partitions: Iterable[Assigned]) -> None:
        if ends := {each: each.reached for each in partitions}:
            self._write([], ends)

    def _write(self, records: Sequence[Record], ends: Mapping[Assigned, int]) -> None:
        people = self._retried(lambda: write_batch(self._database, self._topics, records, ends))
        self._records.update(each.assigned.place[0] for each in records)
        self._skipped.update(each.assigned.place[0] for each in records if each.problem is not None)
        self._last_commit_at = now_ms()
        self._report(None)
        if people:
            self._on_change(people)

    def _upkeep(self) -> None:
        if self._is_due("health"):
            self._retried(self._check_positions)
            self._partition_health = tuple(self._health_of(self._assigned[place]) for place in sorted(self._assigned))
        try:
            self._check_topics()
            if self._assigned and self._is_due("renewal"):
                self._renew()
        except KafkaException as error:
            self._report(f"Kafka: {error}")
        if self._is_due("purge"):
            try:
                log.info("old_rows_deleted", rows=sum(each.purge(now_ms()) for each in self._topics.values()))
            except DatabaseUnavailable as error:
                log.warning("old_rows_not_deleted", problem=str(error))

    def _is_due(self, what: str) -> bool:
        now = time.monotonic()
        if now < self._due[what]:
            return False
        self._due[what] = now + _EVERY_S[what]
        return True

    def _check_positions(self) -> None:
        """Notice that rows were dropped, although there is nothing to write: they are read again at once."""
        if self._assigned:
            with self._database.read() as connection:
                found = read_positions(connection, self._topics)
            if any(found.get(place) != each.stored for place, each in self._assigned.items()):
                raise PositionLost

    def _health_of(self, assigned: Assigned) -> PartitionHealth:
        end = assigned.reached
        with suppress(KafkaException):
            end = max(end, self._consumer.get_watermark_offsets(TopicPartition(*assigned.place), cached=True)[1])
        return PartitionHealth(*assigned.place, assigned.reached, end, assigned.is_complete)

    def _check_topics(self) -> None:
        """Notice that Kafka is back, and that a topic was created again, with the same name and other offsets.

        Records are read while the answer is awaited.
        """
        if self._assigned and not self._described and self._is_due("topics"):
            self._described = self._describe({topic for topic, _ in self._assigned})
        if self._described and all(each.done() for each in self._described.values()):
            described, self._described = self._described, {}
            ids = {name: str(each.topic_id) for name, each in self._answered(described).items()}
            if any(ids.get(place[0], at.stored.topic_id) != at.stored.topic_id for place, at in self._assigned.items()):
                raise PositionLost
            self._report(None)

    def _renew(self) -> None:
        """Record that positions at the end of their partitions are current."""
        # To know the ends, brokers must answer. They answer the consumer only after the fetch that waits for records.
        listed = cast("Any", self._admin).list_offsets(
            {TopicPartition(*place): OffsetSpec.latest() for place in self._assigned},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=_ANSWER_S,
        )
        for at, end in self._answered(listed).items():
            each = self._assigned[at.topic, at.partition]
            each.seen_end, each.seen_at = end.offset, now_ms()
        self._move(self._assigned.values())

    def _retried(self, action: Callable[[], T]) -> T:
        """Until it succeeds, or the follower stops: what was read is not lost while the database is away."""
        for attempt in count():
            try:
                return action()
            except (DatabaseUnavailable, RegistryUnavailable, KafkaException) as error:
                self._retries += 1
                if attempt == 0 and isinstance(error, DatabaseUnavailable) and error.is_conflict:
                    # Readiness names it when it happens again at once.
                    log.warning("follower_conflict", group=self._group, problem=str(error))
                else:
                    self._report(str(error))
            if self._stopping.wait(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)]):
                break
        raise _Stopped

    def _report(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            if problem is not None:
                log.warning("follower_waits", group=self._group, problem=problem)
            else:
                log.info("follower_goes_on", group=self._group)
