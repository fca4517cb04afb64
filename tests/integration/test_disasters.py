"""Every kind of loss is recognised as one: docs/explanation/what-is-lost.md, on a Kafka of its own.

What a worker leaves on Kafka is laid there as it would: its positions with their marks, and its changelogs.
"""

from __future__ import annotations

import asyncio
import queue
import time
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions
from faust.types import TP

from support.streams.lives import delete_all_topics, read_topic
from taskbridge.runtime.kafka import admin_client, consumer_config, producer_config
from taskbridge.runtime.topic_admin import TopicsUnavailable, apply_topics
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.contract.live_version import REBUILD_ID, LiveVersion, announce
from taskbridge.streams.contract.start import Contract, StartRefused
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.engine.joint_producer import JointProducer
from taskbridge.streams.engine.transaction_requests import Membership
from taskbridge.streams.table_versions import (
    REBUILD,
    VERSION_KEY,
    VERSION_TOPIC,
    Versions,
    instances_changelog,
    reader_config,
    write_versions,
)
from taskbridge.streams.tables.changelog_reader import ChangelogReader
from taskbridge.streams.transactions.group_commit import Batch, GroupCommit, fence, write_positions
from taskbridge.streams.transactions.offsets import Offsets
from taskbridge.streams.transactions.positions import (
    RECREATED,
    Lineage,
    RecordedPosition,
    SourceTopic,
    read_position,
)
from taskbridge.streams.transactions.takeover import Takeover

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.cli.connection import Connection
    from taskbridge.schemas import topics
    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.contract.start import Prepared

pytestmark = [pytest.mark.integration, pytest.mark.disasters]

PARTITIONS = 2
SOURCES = [TP(TASK_EVENTS.name, each) for each in range(PARTITIONS)]
INSTANCES = instances_changelog(1)
NOBODY = Membership(APP_ID)


class _Known:
    """A registry that has all of it."""

    def knows(self, _required: object) -> bool:
        return True


class Place:
    """Kafka as a worker leaves it that has folded ten events of each partition."""

    def __init__(self, connection: Connection) -> None:
        delete_all_topics(connection)
        self.servers = connection.bootstrap_servers
        self.admin = admin_client(self.servers, {})
        self.offsets = Offsets(consumer_config(self.servers, APP_ID))
        self.prepared = self.start()
        self.write(TASK_EVENTS.name, [b"event"] * 10)
        self.work(self.prepared)

    def start(self) -> Prepared:
        """What comes before a worker is put together."""
        return prepared(self._contract())

    def _contract(self) -> Contract:
        live_version = LiveVersion(self.servers, {}, self.offsets)
        return Contract(self.admin, cast("Registry", _Known()), PARTITIONS, live_version, self.offsets)

    def check(self) -> None:
        """What comes at each rebalance."""
        self._contract().check(self.prepared)

    def work(self, prepared: Prepared, *, name: str = "worker") -> None:
        """Fold the next ten of each partition."""

        async def fold(group_commit: GroupCommit, _takeover: Takeover) -> None:
            for source in SOURCES:
                records: list[Any] = [(b"k%d" % at, b"v", []) for at in range(5)]
                batch = Batch(prepared.source_topic.changelog, records, source.partition)
                await group_commit.submit(source, 10, [batch], generation=NOBODY.generation)

        self._at_work(prepared, fold, name=name)

    def leave(self, changelog: topics.Topic, *, version: int) -> None:
        """What a rebuild does at its end, which has made that changelog."""
        source = TASK_EVENTS.name
        apply_topics(self.admin, [changelog], partitions=PARTITIONS)
        names = [source, changelog.name, VERSION_TOPIC.name]
        source_id, changelog_id, version_id = (self.offsets.topics(names)[name].topic_id for name in names)
        source_topic = SourceTopic(source_id, changelog.name, Lineage(version, PARTITIONS, changelog_id, version_id))
        positions = dict.fromkeys(SOURCES, RecordedPosition(source_id, 10))
        with closing(JointProducer(producer_config(self.servers), REBUILD_ID)) as writer:
            writer.claim()
            with writer.transaction():
                announce(writer, Versions(version))
                write_positions(writer, positions, source_topic, owner="", member=NOBODY)

    def take_over(
        self,
        prepared: Prepared,
        positions: Mapping[TP, RecordedPosition | None],
        notes: list[str] | None = None,
        *,
        name: str = "next",
    ) -> dict[TP, int]:
        """Take over the partitions whose changelogs have these ``positions``; return the group's positions then."""

        async def claim(_group_commit: GroupCommit, takeover: Takeover) -> None:
            await takeover.commit_positions(
                await takeover.claim_partitions(SOURCES), positions, generation=NOBODY.generation
            )

        self._at_work(prepared, claim, name=name, note=lambda reason: None if notes is None else notes.append(reason))
        return {tp: at.offset for tp, at in self.offsets.committed(APP_ID, SOURCES).items()}

    def _at_work(
        self, prepared: Prepared, do: Any, *, name: str, note: Callable[[str], None] = lambda _reason: None
    ) -> None:
        async def main() -> None:
            producing = producer_config(self.servers)
            group_commit = GroupCommit(
                producing,
                name=name,
                membership=lambda: NOBODY,
                source_topic=prepared.source_topic,
            )
            group_commit.claim()
            claim = partial(fence, producing)
            takeover = Takeover(
                self.offsets, group_commit, group=APP_ID, topic=TASK_EVENTS.name, claim=claim, note=note
            )
            try:
                await do(group_commit, takeover)
            finally:
                await group_commit.close()

        asyncio.run(main())

    def write(self, topic: str, values: list[bytes], *, key: bytes | None = None) -> None:
        config: dict[str, Any] = producer_config(self.servers)
        producer = Producer(config)
        for partition in range(self.offsets.topics([topic])[topic].partitions):
            for value in values:
                producer.produce(topic, key=key, value=value, partition=partition)
        assert producer.flush(30) == 0

    def lose(self, topic: str) -> None:
        for answer in cast("dict[str, Any]", self.admin.delete_topics([topic], operation_timeout=30)).values():
            answer.result(30)
        while self.offsets.topics([topic]):
            pass

    def recreate(self, topic: topics.Topic, *, partitions: int = PARTITIONS) -> None:
        self.lose(topic.name)
        apply_topics(self.admin, [topic], partitions=partitions)
        while not self.offsets.topics([topic.name]):
            pass

    def cut(self, topic: str, *, to: int) -> None:
        """As an operator does it: Kafka deletes no records of a topic that is only compacted."""
        self._clean_up(topic, "delete")
        partitions = range(self.offsets.topics([topic])[topic].partitions)
        below = [TopicPartition(topic, each, to) for each in partitions]
        deadline = time.monotonic() + 60
        while not self._deleted(below):
            assert time.monotonic() < deadline, "the topic's policy is not known to the broker"
        self._clean_up(topic, "delete" if topic == TASK_EVENTS.name else "compact")

    def _deleted(self, below: list[TopicPartition]) -> bool:
        try:
            for answer in cast("Any", self.admin).delete_records(below).values():
                answer.result(30)
        except KafkaException as error:
            # A topic's settings reach the broker a moment after they were accepted.
            if error.args[0].code() != KafkaError.POLICY_VIOLATION:
                raise
            return False
        return True

    def _clean_up(self, topic: str, policy: str) -> None:
        entry = ConfigEntry("cleanup.policy", policy, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        for answer in cast("Any", self.admin).incremental_alter_configs([resource]).values():
            answer.result(30)

    def forget_positions(self) -> None:
        for answer in cast("Any", self.admin).delete_consumer_groups([APP_ID]).values():
            answer.result(30)

    def widen(self, topic: str, partitions: int) -> None:
        for answer in cast("Any", self.admin).create_partitions([NewPartitions(topic, partitions)]).values():
            answer.result(30)
        while self.offsets.topics([topic])[topic].partitions != partitions:
            pass  # the broker knows it a moment later


@pytest.fixture
def place(own_kafka: Connection) -> Place:
    return Place(own_kafka)


def prepared(contract: Contract) -> Prepared:
    """As ``until_connected`` does it: topics that were just made have no leaders yet."""
    while True:
        with suppress(TopicsUnavailable):
            return contract.apply()
        time.sleep(0.05)


def positions(prepared: Prepared, *, offset: int = 10) -> dict[TP, RecordedPosition]:
    """What the changelog says of itself."""
    return dict.fromkeys(SOURCES, RecordedPosition(prepared.source_topic.source_id, offset))


def refused(place: Place, *texts: str) -> None:
    """Every start of a worker is refused, creates nothing, and says what is wrong and what to do."""
    before = place.offsets.topics([INSTANCES.name, VERSION_TOPIC.name])
    for _ in range(2):
        with pytest.raises(StartRefused) as refusal:
            place.start()
        for each in texts:
            assert each in str(refusal.value)
    assert place.offsets.topics([INSTANCES.name, VERSION_TOPIC.name]) == before


def test_where_nothing_is_lost_workers_start_and_go_on_where_they_were(place: Place) -> None:
    again = place.start()
    assert again == place.prepared
    place.check()
    notes: list[str] = []
    assert set(place.take_over(again, positions(again), notes).values()) == {10}
    assert notes == []


def test_the_changelog_of_the_states_is_lost_recreated_or_cut(place: Place) -> None:
    place.cut(INSTANCES.name, to=3)
    refused(place, f"{INSTANCES.name} was truncated", REBUILD)
    place.recreate(INSTANCES)
    refused(place, f"{INSTANCES.name} was deleted and recreated", REBUILD)
    with pytest.raises(StartRefused):
        place.check()
    place.lose(INSTANCES.name)
    refused(place, f"{INSTANCES.name} is missing", REBUILD)
    with pytest.raises(StartRefused):
        place.check()
    place.leave(instances_changelog(2), version=2)
    assert place.start().version == 2
    place.recreate(instances_changelog(2))
    refused(place, f"{instances_changelog(2).name} was deleted and recreated", REBUILD)


def test_the_end_of_a_changelog_is_lost_before_any_worker_takes_it_over(place: Place) -> None:
    place.leave(instances_changelog(2), version=2)
    rebuilt = place.start()
    for source, whole in positions(rebuilt).items():
        with pytest.raises(OperatorError):
            place.take_over(rebuilt, {**positions(rebuilt), source: whole._replace(offset=9)})
    assert set(place.take_over(rebuilt, positions(rebuilt)).values()) == {10}


def test_the_record_of_the_live_version_is_lost_recreated_cut_or_damaged(place: Place) -> None:
    apply_topics(place.admin, [instances_changelog(2)], partitions=PARTITIONS)
    place.write(VERSION_TOPIC.name, [write_versions(Versions(2))], key=VERSION_KEY)
    second = place.start()
    place.work(second)
    place.write(VERSION_TOPIC.name, [write_versions(Versions(1))], key=VERSION_KEY)
    refused(place, f"{VERSION_TOPIC.name} has lost records", "states of version 2", REBUILD)
    place.write(VERSION_TOPIC.name, [b"nonsense"], key=VERSION_KEY)
    refused(place, f"{VERSION_TOPIC.name} contains b'nonsense'", REBUILD)
    place.cut(VERSION_TOPIC.name, to=place.offsets.ends(VERSION_TOPIC.name, [0])[0])
    assert LiveVersion(place.servers, {}, place.offsets).read() == Versions(2), "for a rebuild, the positions name it"
    refused(place, f"{VERSION_TOPIC.name} has lost records", REBUILD)
    place.lose(VERSION_TOPIC.name)
    refused(place, f"{VERSION_TOPIC.name} is missing", REBUILD)
    apply_topics(place.admin, [VERSION_TOPIC], partitions=1)
    refused(place, f"{VERSION_TOPIC.name} was deleted and recreated", REBUILD)
    place.leave(instances_changelog(3), version=3)
    assert place.start().version == 3
    place.recreate(VERSION_TOPIC, partitions=1)
    refused(place, f"{VERSION_TOPIC.name} was deleted and recreated", REBUILD)


def test_other_numbers_of_partitions_refuse_start_and_are_named(place: Place) -> None:
    place.widen(TASK_EVENTS.name, 4)
    refused(place, f"{TASK_EVENTS.name} has 4", f"{TASK_STATES.name} has 2", f"{REBUILD} --partitions")
    for topic in (TASK_STATES, TASK_NOTIFICATIONS, INSTANCES):
        place.widen(topic.name, 4)
    refused(place, f"{TASK_EVENTS.name} has 4", "built with 2", f"{REBUILD} --partitions")


def test_topics_that_are_not_there_yet_get_as_many_partitions_as_the_events_have(own_kafka: Connection) -> None:
    delete_all_topics(own_kafka)
    apply_topics(own_kafka.admin(), [TASK_EVENTS], partitions=3)
    offsets = Offsets(consumer_config(own_kafka.bootstrap_servers, APP_ID))
    live_version = LiveVersion(own_kafka.bootstrap_servers, {}, offsets)
    registry = cast("Registry", _Known())
    found = prepared(Contract(own_kafka.admin(), registry, PARTITIONS, live_version, offsets))
    together = [TASK_EVENTS, TASK_STATES, TASK_NOTIFICATIONS, INSTANCES]
    assert found.partitions == 3
    assert {each.partitions for each in offsets.topics([topic.name for topic in together]).values()} == {3}


def test_the_end_of_a_changelog_is_lost(place: Place) -> None:
    """Its own position is behind the group's, or gone: what came of the last events is not there."""
    again = place.start()
    for source, whole in positions(again).items():
        changelog = again.source_topic.changelog
        for left in (None, whole._replace(offset=9), whole._replace(topic_id="another")):
            with pytest.raises(OperatorError) as refusal:
                place.take_over(again, {**positions(again), source: left})
            for each in (changelog, f"partition {source.partition}", "taskbridge streams --re"):
                assert each in str(refusal.value)


def test_a_group_without_positions_goes_on_from_those_of_its_changelogs(place: Place) -> None:
    """As after ``offsets.retention.minutes`` without a worker."""
    place.forget_positions()
    again = place.start()
    notes: list[str] = []
    assert set(place.take_over(again, positions(again, offset=7), notes).values()) == {7}
    assert notes == ["expired"] * 2


def test_positions_that_the_topic_does_not_have_are_reported_and_nothing_is_missed(
    place: Place, own_kafka: Connection
) -> None:
    def stored() -> dict[TP, RecordedPosition | None]:
        """By the changelog of the states."""
        found = {each.partition(): each.value() for each in read_topic(own_kafka, INSTANCES.name)}
        return {TP(TASK_EVENTS.name, each or 0): read_position(value) for each, value in found.items()}

    again = place.start()
    whole = positions(again)
    place.write(TASK_EVENTS.name, [b"event"] * 5)
    place.cut(TASK_EVENTS.name, to=12)
    notes: list[str] = []
    found = place.take_over(again, whole, notes)
    assert {found[TP(TASK_EVENTS.name, each)] for each in (0, 1)} == {12}
    assert notes == ["out-of-range"] * 2
    assert {each and each.after_loss for each in stored().values()} == {False}, "offsets are what they were"
    place.recreate(TASK_EVENTS)
    place.write(TASK_EVENTS.name, [b"event"] * 20)
    notes.clear()
    found = place.take_over(place.start(), whole, notes)
    assert {found[TP(TASK_EVENTS.name, each)] for each in (0, 1)} == {0}, "none of these was ever read"
    assert notes == [RECREATED] * 2
    again = place.start()
    for _ in range(2):
        assert {each and each[1:] for each in stored().values()} == {(0, True)}, "for a rebuild, however late"
        place.take_over(again, {**positions(again), **stored()}, name="another")


def test_a_restoration_that_finds_its_records_gone_ends_the_worker_and_the_next_start_is_refused(place: Place) -> None:
    failed: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    config = reader_config(consumer_config(place.servers, APP_ID), buffer_bytes=1 << 20)
    of_nothing = cast("Any", None)
    reader = ChangelogReader(config, INSTANCES.name, of_nothing, on_failure=failed.put)
    try:
        # Between the look at where it begins and the first fetch.
        place.cut(INSTANCES.name, to=3)
        reader.follow(0, start=0, end=place.offsets.ends(INSTANCES.name, [0])[0], standby=False)
        with pytest.raises(OperatorError, match=f"{INSTANCES.name}, partition 0"):
            raise failed.get(timeout=60)
    finally:
        reader.close()
    refused(place, f"{INSTANCES.name} was truncated", REBUILD)
