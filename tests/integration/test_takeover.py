"""On real Kafka: who is no member any more cannot commit, and what a dead owner left open is closed by the next one."""

from __future__ import annotations

import asyncio
import struct
import time
import uuid
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import NewTopic
from faust.types import TP

from taskbridge.runtime.kafka import consumer_config, producer_config
from taskbridge.streams.engine.joint_producer import Fenced, JointProducer
from taskbridge.streams.engine.transaction_requests import Membership
from taskbridge.streams.transactions.group_commit import Batch, GroupCommit, fence
from taskbridge.streams.transactions.offsets import Offsets
from taskbridge.streams.transactions.positions import Lineage, SourceTopic, write_metadata
from taskbridge.streams.transactions.takeover import Takeover

if TYPE_CHECKING:
    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration


class Place:
    """A topic of events, one of a changelog and a group of one test's own."""

    def __init__(self, connection: Connection) -> None:
        name = uuid.uuid4().hex[:8]
        self.servers = connection.bootstrap_servers
        self.events, self.changelog, self.group = f"events-{name}", f"changelog-{name}", f"group-{name}"
        new_topics = [NewTopic(topic, 2, 1) for topic in (self.events, self.changelog)]
        admin = connection.admin()
        for made in cast("Any", admin).create_topics(new_topics).values():
            made.result(30)
        self.offsets = Offsets(consumer_config(self.servers, self.group))

    @property
    def source(self) -> TP:
        return TP(self.events, 0)

    @property
    def nobody(self) -> Membership:
        """Of a group without members, as far as Kafka checks."""
        return Membership(self.group)

    def takeover(self, name: str) -> tuple[Takeover, GroupCommit]:
        producing = producer_config(self.servers)
        source_topic = SourceTopic("events-id", self.changelog, Lineage(1, 2, "changelog-id", "version-id"))
        group_commit = GroupCommit(
            producing,
            name=name,
            membership=lambda: self.nobody,
            source_topic=source_topic,
        )
        claim = partial(fence, producing)
        return Takeover(self.offsets, group_commit, group=self.group, topic=self.events, claim=claim), group_commit


@pytest.fixture
def place(connection: Connection) -> Place:
    return Place(connection)


def position(place: Place, offset: int, owner: str) -> list[TopicPartition]:
    return [TopicPartition(place.events, 0, offset, write_metadata(owner, None))]


def write_events(place: Place, count: int) -> None:
    config: dict[str, Any] = producer_config(place.servers)
    producer = Producer(config)
    for _ in range(count):
        producer.produce(place.events, b"event", partition=0)
    assert producer.flush(30) == 0


def joined(place: Place, consumer: Consumer, *others: Consumer, above: int = -1) -> Membership:
    """The consumer's membership, once its generation is above the given one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for each in (consumer, *others):
            each.poll(0.1)
        metadata = cast("bytes", cast("Any", consumer).consumer_group_metadata())
        [generation] = struct.unpack_from("=i", metadata, len(b"CGMDv2:"))
        if generation > above:
            *_, member_id, _, instance_id, _ = metadata.split(b"\0")
            return Membership(place.group, generation, member_id.decode(), instance_id.decode())
    pytest.fail("the group was not joined")


def test_a_member_of_an_earlier_generation_cannot_commit_nor_can_a_stranger(place: Place) -> None:
    def member(name: str) -> Consumer:
        config: dict[str, Any] = {**consumer_config(place.servers, place.group), "group.instance.id": name}
        consumer = Consumer(config)
        consumer.subscribe([place.events])
        return consumer

    first = member("first")
    membership = joined(place, first)
    producer = JointProducer(producer_config(place.servers), f"worker-{place.group}")
    producer.claim()

    def commit(membership: Membership, offset: int) -> None:
        with producer.transaction():
            producer.send(place.changelog, [(b"k", b"v", [])], partition=0)
            producer.add_offsets(position(place, offset, "worker"), membership)

    commit(membership, 1)
    second = member("second")
    now = joined(place, first, second, above=membership.generation)
    for stale in (
        membership,
        now._replace(member_id="stranger"),
        now._replace(generation=now.generation + 1),
        now._replace(instance_id="second"),
    ):
        with pytest.raises(Fenced):
            commit(stale, 2)
    commit(now, 3)
    assert place.offsets.committed(place.group, [place.source])[place.source].offset == 3
    first.close()
    second.close()
    producer.close()


@pytest.mark.parametrize("offsets_sent", [True, False])
def test_open_transactions_of_a_dead_owner_are_closed_by_the_next_and_replaced_by_its_own(
    place: Place, *, offsets_sent: bool
) -> None:
    write_events(place, 9)
    dead_name, next_name = f"dead-{place.group}", f"next-{place.group}"
    with closing(JointProducer(producer_config(place.servers), f"{dead_name}-0")) as producer:
        producer.claim()
        with producer.transaction():
            producer.add_offsets(position(place, 5, dead_name), place.nobody)
    config: dict[str, Any] = {**producer_config(place.servers), "transactional.id": f"{dead_name}-0"}
    # As a worker's, which sends nothing before its commit.
    dead: Any = Producer(config)
    dead.init_transactions(30)
    config = consumer_config(place.servers, place.group)
    group = cast("Any", Consumer(config)).consumer_group_metadata()
    dead.begin_transaction()
    dead.produce(place.changelog, b"never", b"k", 0)
    assert dead.flush(30) == 0
    if offsets_sent:
        dead.send_offsets_to_transaction(position(place, 9, dead_name), group, 30)
    assert place.offsets.committed(place.group, [place.source])[place.source].is_stable is not offsets_sent
    assert place.offsets.decided(place.changelog, [0])[0] < place.offsets.ends(place.changelog, [0])[0]

    async def take_over() -> None:
        takeover, group_commit = place.takeover(next_name)
        sources = [place.source, TP(place.events, 1)]
        for _ in range(20):
            try:
                await takeover.commit_positions(await takeover.claim_partitions(sources), {}, generation=-1)
                break
            except TimeoutError:
                continue
        while not all(at.is_stable for at in place.offsets.committed(place.group, sources).values()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # a commit is decided a moment before it can be read
        at = place.offsets.committed(place.group, sources)
        assert {each: (at[each].offset, at[each].owner) for each in sources} == {
            place.source: (5, next_name),
            TP(place.events, 1): (0, next_name),
        }
        assert place.offsets.decided(place.changelog, [0]) == place.offsets.ends(place.changelog, [0])
        await group_commit.submit(place.source, 6, [Batch(place.changelog, [(b"k", b"v", [])], 0)], generation=-1)
        await group_commit.close()

    asyncio.run(take_over())
    with pytest.raises(KafkaException, match="fenced"):
        dead.commit_transaction(30)
