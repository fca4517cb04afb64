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
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition

from taskbridge.center.database import DatabaseUnavailable
from taskbridge.center.follow.batch import Assigned, Item, PositionLost, write_batch
from taskbridge.center.follow.lists import Forms, People, States
from taskbridge.center.follow.positions import (
    Position,
    adapt_page_index,
    add_positions,
    drop_position,
    read_positions,
)
from taskbridge.center.follow.records import DeadLetters, Events, Quarantine, purge
from taskbridge.center.tables import now_ms
from taskbridge.runtime.kafka import LIBRDKAFKA, admin_client, consumer_config, is_denied, not_allowed
from taskbridge.schemas.errors import OperatorError, RecordError
from taskbridge.schemas.registry import RegistryUnavailable
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from confluent_kafka import Message

    from taskbridge.center.database import Database
    from taskbridge.center.follow.batch import FollowedTopic
    from taskbridge.center.follow.positions import Place
    from taskbridge.center.tables import Person
    from taskbridge.schemas.registry import Registry

log = structlog.get_logger(__name__)

T = TypeVar("T")

GROUP_PREFIX = "taskbridge-center-"

_BATCH = 1000
_POLL_S = 0.2
_ANSWER_S = 10.0
_EVERY_S = {"health": 1.0, "retry": 5.0, "look": 30.0, "renew": 600.0, "purge": 3600.0}
"""How often health is updated, topics are compared with those that were read (sooner while there is a problem),
positions at rest are renewed, and old rows deleted."""
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
    running: bool
    """Whether it reads and writes: false while Kafka, the registry or the database is away."""
    problem: str | None
    partitions: tuple[PartitionHealth, ...]
    """Those that this replica reads."""
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
        group: str,
        topics: Sequence[FollowedTopic],
        *,
        servers: str,
        kafka: Mapping[str, str],
        on_change: Callable[[Collection[Person]], None],
    ) -> None:
        """``kafka``: further properties of clients, which win over ours."""
        self._database, self._group, self._on_change = database, group, on_change
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
            **consumer_config(servers, GROUP_PREFIX + group, kafka),
            # A position that Kafka does not have is reported: rows may have to go.
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
        self._thread = threading.Thread(target=self._run, name=f"follow-{group}", daemon=True)
        self._stopping = threading.Event()
        self._assigned: dict[Place, Assigned] = {}
        self._assignments = 0
        self._partitions: dict[str, int] = {}
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
        """From any thread."""
        problem = self._problem if self._thread.is_alive() else self._problem or "has stopped"
        return FollowerHealth(
            self._group,
            problem is None,
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
        """Until it is stopped, with one consumer."""
        consumer = self._consumer = Consumer(self._config, logger=LIBRDKAFKA)
        self._due = dict.fromkeys(_EVERY_S, time.monotonic())
        try:
            consumer.subscribe(
                list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )
            while not self._stopping.is_set():
                # One first: a larger number would wait for all of them, or for the whole time.
                first = consumer.poll(_POLL_S)
                assignments = self._assignments
                messages = [] if first is None else [first, *consumer.consume(_BATCH - 1, 0)]
                if assignments == self._assignments:
                    self._apply(messages)
                else:  # some are of positions before the assignment
                    self._read_again(list(self._assigned))
                self._upkeep()
        finally:
            self._assigned.clear()
            self._partition_health = ()
            consumer.close()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = [(each.topic, each.partition) for each in partitions]
        self._assignments += 1
        if places:
            found = self._retried(lambda: self._begin(places))
            consumer.incremental_assign([TopicPartition(*place, found[place].next_offset) for place in places])
        log.info("partitions_assigned", group=self._group, partitions=len(self._assigned))
        self._report(None)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            self._assigned.pop((each.topic, each.partition), None)
        with suppress(KafkaException):  # lost ones are unassigned already
            consumer.incremental_unassign(partitions)

    def _begin(self, places: Collection[Place]) -> dict[Place, Position]:
        """Where to go on with these partitions. Rows that cannot be continued are dropped."""
        topics = sorted({topic for topic, _ in places})
        ids = self._topic_ids(topics)
        with self._database.read() as connection:
            found = read_positions(connection, topics)
        dropped = {place for place in places if place in found and self._is_over(place, found[place], ids[place[0]][0])}
        for topic in topics:
            _, partitions = ids[topic]
            self._partitions[topic] = partitions
            dropped |= {place for place in found if place[0] == topic and place[1] >= partitions}
        # Also those that other replicas read: only with all of them it is known whether lists are complete.
        missing = {(topic, each) for topic in topics for each in range(ids[topic][1])} - (found.keys() - dropped)
        if missing or dropped:
            added = {place: self._first_position(place, ids[place[0]][0]) for place in missing}
            with self._database.write(durable=False) as connection:
                for topic, partition in sorted(dropped):
                    log.warning("rows_dropped", topic=topic, partition=partition)
                    self._topics[topic].drop(connection, partition)
                    drop_position(connection, (topic, partition))
                add_positions(self._database, connection, added)
                if TASK_STATES.name in topics:
                    adapt_page_index(self._database, connection)
                found = read_positions(connection, topics)
        self._assigned |= {place: Assigned(found[place]) for place in places}
        return found

    def _is_over(self, place: Place, position: Position, topic_id: str) -> bool:
        """Whether rows cannot be continued: the topic was created again, or tombstones may be gone."""
        return position.topic_id != topic_id or (
            self._topics[place[0]].is_compacted and now_ms() - position.at > _STALE_MS
        )

    def _topic_ids(self, topics: Collection[str]) -> dict[str, tuple[str, int]]:
        """Kafka's id of each topic, and the number of its partitions."""
        described = cast("Any", self._admin).describe_topics(TopicCollection(list(topics)), request_timeout=_ANSWER_S)
        found = {name: answer.result(_ANSWER_S) for name, answer in described.items()}
        return {name: (str(each.topic_id), len(each.partitions)) for name, each in found.items()}

    def _first_position(self, place: Place, topic_id: str) -> Position:
        # With read_committed, the end is before the first open transaction.
        first, end = self._consumer.get_watermark_offsets(TopicPartition(*place), _ANSWER_S)
        return Position(topic_id, first, end, now_ms())

    def _read_again(self, places: Collection[Place]) -> None:
        """From the positions in the database, which may have changed."""
        found = self._retried(lambda: self._begin(places))
        for place in places:
            self._consumer.seek(TopicPartition(*place, found[place].next_offset))

    def _restart(self, place: Place) -> None:
        """Read a partition from its beginning: it does not have its position."""
        topic = self._topics[place[0]]
        log.warning("position_out_of_range", topic=place[0], partition=place[1], offset=self._assigned[place].reached)

        def drop() -> None:
            with self._database.write(durable=False) as connection:
                if topic.is_compacted:
                    topic.drop(connection, place[1])
                drop_position(connection, place)

        self._retried(drop)
        self._read_again([place])

    def _apply(self, messages: Sequence[Message]) -> None:
        batch = self._batch(messages)
        try:
            if batch:
                self._store(self._retried(lambda: [self._read(each) for each in batch]))
            elif any(not each.is_complete and each.reached >= each.stored.fill_end for each in self._assigned.values()):
                self._store([])
        except PositionLost:
            log.warning("positions_lost", group=self._group)
            self._read_again(list(self._assigned))

    def _batch(self, messages: Sequence[Message]) -> list[Message]:
        """Those that are records, and were not read before."""
        batch: list[Message] = []
        for message in messages:
            error, place = message.error(), (cast("str", message.topic()), cast("int", message.partition()))
            assigned, offset = self._assigned.get(place), message.offset() or 0
            if error is None:
                if assigned is not None and offset >= assigned.reached:
                    assigned.reached, assigned.at_end = offset + 1, False
                    batch.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                if assigned is not None:
                    # Offsets before it may have no records: compacted, aborted, the ends of transactions.
                    assigned.reached, assigned.at_end = max(assigned.reached, offset), True
            elif error.code() in _OUT_OF_RANGE and assigned is not None:
                batch = [each for each in batch if (each.topic(), each.partition()) != place]
                self._restart(place)
            elif error.code() not in _HARMLESS:
                denied = not_allowed(f"Read on topic {place[0]} and on group {GROUP_PREFIX}{self._group}")
                self._report(denied if is_denied(error) else f"Kafka: {error.str()}")
        return batch

    def _read(self, message: Message) -> Item:
        topic = self._topics[cast("str", message.topic())]
        try:
            return Item(message, topic, topic.read(message), None)
        except RecordError as error:
            return Item(message, topic, None, str(error))

    def _store(self, items: Sequence[Item]) -> None:
        """Write a batch. A record that the database refuses is found by writing halves, and skipped."""
        try:
            people = self._retried(lambda: write_batch(self._database, items, self._assigned))
        except (PositionLost, _Stopped):
            raise
        except Exception as error:
            if not items:
                raise
            if len(items) == 1:
                # Not the statement, which would show the record's contents.
                line = str(getattr(error, "orig", None) or error).partition("\n")[0]
                self._store([items[0]._replace(record=None, problem=f"the database refuses it: {line}")])
            else:
                middle = len(items) // 2
                self._store(items[:middle])
                self._store(items[middle:])
            return
        self._records.update(each.place[0] for each in items)
        self._skipped.update(each.place[0] for each in items if each.problem is not None)
        self._last_commit_at = now_ms()
        self._report(None)
        if people:
            self._on_change(people)

    def _upkeep(self) -> None:
        if self._is_due("health"):
            self._partition_health = tuple(self._health_of(place) for place in sorted(self._assigned))
        try:
            if self._is_due("look") or (self._problem is not None and self._is_due("retry")):
                self._look()
            if self._is_due("renew") and self._assigned:
                self._renew()
        except (KafkaException, TimeoutError) as error:
            self._report(f"Kafka: {error}")
        if TASK_EVENTS.name in self._topics and self._is_due("purge"):
            try:
                log.info("old_rows_deleted", rows=purge(self._database, now_ms=now_ms()))
            except DatabaseUnavailable as error:
                log.warning("old_rows_not_deleted", problem=str(error))

    def _is_due(self, what: str) -> bool:
        now = time.monotonic()
        if now < self._due[what]:
            return False
        self._due[what] = now + _EVERY_S[what]
        return True

    def _health_of(self, place: Place) -> PartitionHealth:
        assigned = self._assigned[place]
        end = assigned.reached
        if not assigned.at_end:
            with suppress(KafkaException):
                end = max(end, self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)[1])
        return PartitionHealth(*place, assigned.reached, end, assigned.is_complete)

    def _look(self) -> None:
        """Notice that Kafka is back, and that a topic was created again, with the same name and other offsets."""
        topics = {topic for topic, _ in self._assigned}
        ids = self._topic_ids(topics) if topics else {}
        for topic, (topic_id, partitions) in ids.items():
            places = [place for place in self._assigned if place[0] == topic]
            known = {self._assigned[place].stored.topic_id for place in places}
            if known != {topic_id} or partitions != self._partitions[topic]:
                self._read_again(places)
        if topics:
            self._report(None)

    def _renew(self) -> None:
        """Record that positions at the end of their partitions are current."""
        for place, each in self._assigned.items():
            # From the broker: to know the end, it must answer.
            end = self._consumer.get_watermark_offsets(TopicPartition(*place), _ANSWER_S)[1]
            each.at_end = each.reached >= end
        try:
            self._store([])
        except PositionLost:
            self._read_again(list(self._assigned))

    def _retried(self, action: Callable[[], T]) -> T:
        """Until it succeeds, or the follower stops: what was read is not lost while the database is away.

        Raises:
            _Stopped: The follower stops.
        """
        for attempt in count():
            try:
                return action()
            except (DatabaseUnavailable, RegistryUnavailable, KafkaException, TimeoutError) as error:
                self._retries += 1
                if not (isinstance(error, DatabaseUnavailable) and error.is_conflict):
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


def make_followers(
    database: Database,
    registry: Registry,
    *,
    servers: str,
    kafka: Mapping[str, str],
    on_change: Callable[[Collection[Person]], None],
) -> list[Follower]:
    """The followers of all topics, not started. Lists do not wait for histories."""
    groups = {"lists": (States, People, Forms), "records": (Events, Quarantine, DeadLetters)}
    return [
        Follower(
            database,
            group,
            [topic(database, registry) for topic in topics],
            servers=servers,
            kafka=kafka,
            on_change=on_change,
        )
        for group, topics in groups.items()
    ]
