"""Submissions share a transaction with their positions; after a failure nothing begins."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import KafkaException
from faust.types import TP

from taskbridge.streams.engine.joint_producer import Fenced
from taskbridge.streams.engine.transaction_requests import Membership, Sent
from taskbridge.streams.transactions.group_commit import Batch, GroupCommit, Overtaken
from taskbridge.streams.transactions.positions import (
    POSITION_KEY,
    Lineage,
    RecordedPosition,
    SourceTopic,
    write_metadata,
    write_position,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping, Sequence

    from confluent_kafka import TopicPartition

    from taskbridge.streams.engine.joint_producer import JointProducer
    from taskbridge.streams.records import RecordWithHeaders

FIRST, SECOND = TP("events", 0), TP("events", 1)
SOURCE_TOPIC = SourceTopic("source", "changelog", Lineage(1, 2, "changelog-id", "version-id"))
METADATA = write_metadata("worker", SOURCE_TOPIC.lineage)
MEMBER = Membership("group", 5, "member-1", "instance-1")


class FakeProducers:
    """Remembers what each transaction had; its commit ends when it may."""

    def __init__(self) -> None:
        self.claimed: list[str] = []
        self.transactions: list[dict[str, Any]] = []
        self.aborted = 0
        self.closed: list[str] = []
        self.may_commit = threading.Semaphore(0)
        self.failure: Exception | None = None
        self.claim_failure: Exception | None = None
        self.last_value: bytes | None = None
        self.recorded: list[tuple[str, int, bytes | None]] = []
        """The positions for the changelog, which came after the records that they follow."""

    def make(self, _config: Mapping[str, object], transactional_id: str) -> JointProducer:
        return cast("JointProducer", FakeProducer(self, transactional_id))

    async def begun(self) -> None:
        """The first transaction has its records, so that later ones belong to the next."""
        while self.last_value is None:  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0)


class FakeProducer:
    def __init__(self, all_of_them: FakeProducers, transactional_id: str) -> None:
        self._all = all_of_them
        self._id = transactional_id
        self._sent: list[Any] = []
        self._reports: list[tuple[Sent, int]] = []

    def claim(self) -> None:
        if self._all.claim_failure is not None:
            raise self._all.claim_failure
        self._all.claimed.append(self._id)

    @contextmanager
    def transaction(self) -> Generator[None]:
        self._sent, self._reports, self._all.recorded = [], [], []
        try:
            yield
            self._commit()
        except BaseException:
            self._all.aborted += 1
            raise

    def send(self, topic: str, records: Sequence[RecordWithHeaders], *, partition: int) -> Sent:
        if records[0][0] == POSITION_KEY:
            self._all.recorded.append((topic, partition, records[0][1]))
            return Sent()
        assert not self._all.recorded, "records come first"
        self._sent += [(topic, partition, record[0], record[2]) for record in records]
        self._all.last_value = records[-1][1]
        return self._reported(records[-1][0])

    def _reported(self, key: bytes | None) -> Sent:
        """Its record's offset is its key's first byte, once it is committed."""
        sent = Sent()
        self._reports.append((sent, (key or b"")[0]))
        return sent

    def add_offsets(self, offsets: Sequence[TopicPartition], member: Membership) -> None:
        self._offsets, self._member = offsets, member

    def _commit(self) -> None:
        assert self._all.may_commit.acquire(timeout=60)
        if self._all.failure is not None:
            raise type(self._all.failure)(*self._all.failure.args)  # each its own, as it holds what it came from
        for sent, offset in self._reports:
            sent.last_offset = offset
        positions = {(each.topic, each.partition): (each.offset, each.metadata) for each in self._offsets}
        recorded = self._all.recorded
        assert [partition for _, partition, _ in recorded] == [partition for _, partition in positions]
        self._all.transactions.append(
            {"id": self._id, "sent": self._sent, "positions": positions, "member": self._member, "recorded": recorded}
        )

    def close(self) -> None:
        self._all.closed.append(self._id)


@pytest.fixture
def producers(monkeypatch: pytest.MonkeyPatch) -> FakeProducers:
    fake = FakeProducers()
    monkeypatch.setattr("taskbridge.streams.transactions.group_commit.JointProducer", fake.make)
    return fake


def rounds_of() -> GroupCommit:
    return GroupCommit(
        {},
        name="worker",
        membership=lambda: MEMBER,
        source_topic=SOURCE_TOPIC,
    )


@asynccontextmanager
async def running() -> AsyncGenerator[GroupCommit]:
    group_commit = rounds_of()
    group_commit.claim()
    yield group_commit
    await group_commit.close()


def one(key: bytes) -> list[Batch]:
    return [Batch("states", [(key, b"v", [])])]


async def test_submissions_during_a_transaction_share_the_next_and_producers_alternate(
    producers: FakeProducers,
) -> None:
    async with running() as group_commit:
        first = group_commit.submit(FIRST, 10, one(b"a"), generation=5)
        await producers.begun()
        others = [
            group_commit.submit(FIRST, 20, one(b"b"), generation=5),
            group_commit.submit(SECOND, 7, one(b"c"), generation=5),
        ]
        producers.may_commit.release()
        await first
        assert not any(each.done() for each in others)
        producers.may_commit.release()
        assert await asyncio.gather(*others) == [[ord("b")], [ord("c")]]
    assert producers.claimed == ["worker-0", "worker-1"]
    assert [each["id"] for each in producers.transactions] == ["worker-0", "worker-1"]
    assert [[key for _, _, key, _ in each["sent"]] for each in producers.transactions] == [[b"a"], [b"b", b"c"]]
    assert [each["positions"] for each in producers.transactions] == [
        {("events", 0): (10, METADATA)},
        {("events", 0): (20, METADATA), ("events", 1): (7, METADATA)},
    ]
    assert {each["member"] for each in producers.transactions} == {MEMBER}


async def test_submissions_of_one_poll_share_a_transaction(
    producers: FakeProducers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.streams.transactions.group_commit._LINGER_S", 60.0)

    async with running() as group_commit:
        producers.may_commit.release(2)
        await group_commit.submit(FIRST, 5, one(b"-"), generation=5)
        while group_commit._is_under_way:  # noqa: ASYNC110 # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0)
        first = group_commit.submit(FIRST, 10, one(b"a"), generation=5, more_follow=True)
        await asyncio.sleep(0.1)
        await asyncio.gather(first, group_commit.submit(SECOND, 7, one(b"b"), generation=5))
    assert [[key for _, _, key, _ in each["sent"]] for each in producers.transactions] == [[b"-"], [b"a", b"b"]]


async def test_nothing_lingers_during_a_transaction(producers: FakeProducers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.streams.transactions.group_commit._LINGER_S", 60.0)

    async with running() as group_commit:
        first = group_commit.submit(FIRST, 10, one(b"a"), generation=5)
        await producers.begun()
        second = group_commit.submit(SECOND, 7, one(b"b"), generation=5, more_follow=True)
        producers.may_commit.release(2)
        async with asyncio.timeout(60):
            await asyncio.gather(first, second)


async def test_a_few_records_linger_no_longer_than_others_may_take(producers: FakeProducers) -> None:
    async with running() as group_commit:
        producers.may_commit.release()
        async with asyncio.timeout(60):
            await group_commit.submit(FIRST, 10, one(b"a"), generation=5, more_follow=True)


async def test_more_than_a_hundred_records_do_not_linger(
    producers: FakeProducers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.streams.transactions.group_commit._LINGER_S", 60.0)

    async with running() as group_commit:
        producers.may_commit.release()
        first = group_commit.submit(FIRST, 10, one(b"a") * 60, generation=5, more_follow=True)
        assert group_commit.submit(SECOND, 7, one(b"b") * 41, generation=5, more_follow=True)
        async with asyncio.timeout(60):
            await first
    [transaction] = producers.transactions
    assert len(transaction["sent"]) == 101


async def test_each_batch_has_its_topic_its_partition_and_the_offset_of_its_last_record(
    producers: FakeProducers,
) -> None:
    batches = [
        Batch("changelog", [(b"a", b"v", []), (b"b", None, [])], 3),
        Batch("dead-letters", []),
        Batch("notifications", [(b"u", b"v", {"h": b"1"})]),
    ]

    async with running() as group_commit:
        producers.may_commit.release()
        assert await group_commit.submit(FIRST, 1, batches, generation=5) == [ord("b"), -1, ord("u")]
    [transaction] = producers.transactions
    assert transaction["sent"] == [
        ("changelog", 3, b"a", []),
        ("changelog", 3, b"b", []),
        ("notifications", -1, b"u", {"h": b"1"}),
    ]


async def test_a_submission_of_an_earlier_generation_is_refused(producers: FakeProducers) -> None:
    async with running() as group_commit:
        with pytest.raises(Overtaken):
            await group_commit.submit(FIRST, 1, one(b"a"), generation=4)
    assert producers.transactions == []


async def test_generations_never_share_a_transaction(producers: FakeProducers) -> None:
    async with running() as group_commit:
        first = group_commit.submit(FIRST, 1, one(b"-"), generation=5)
        await producers.begun()
        second = group_commit.submit(FIRST, 2, one(b"a"), generation=5)
        group_commit.membership = lambda: MEMBER._replace(generation=6)
        third = group_commit.submit(SECOND, 1, one(b"b"), generation=6)
        producers.may_commit.release(3)
        await asyncio.gather(first, second, third)
    assert [each["member"].generation for each in producers.transactions] == [5, 5, 6]


async def test_a_refused_transaction_is_aborted_and_nothing_follows(producers: FakeProducers) -> None:
    producers.failure = Fenced("gone")

    async with running() as group_commit:
        first = group_commit.submit(FIRST, 1, one(b"a"), generation=5)
        await producers.begun()
        waiting = group_commit.submit(FIRST, 2, one(b"b"), generation=5)
        producers.may_commit.release()
        for each in (first, waiting):
            with pytest.raises(Fenced):
                await each
        with pytest.raises(Fenced):
            await group_commit.submit(FIRST, 3, one(b"c"), generation=5)
    assert producers.aborted == 1
    assert producers.transactions == []


async def test_any_failure_of_a_transaction_is_raised(producers: FakeProducers) -> None:
    class Panic(BaseException):
        """As the native core's is."""

    producers.failure = cast("Exception", Panic())

    async with running() as group_commit:
        producers.may_commit.release()
        async with asyncio.timeout(60):
            with pytest.raises(Panic):
                await group_commit.submit(FIRST, 1, one(b"a"), generation=5)


MIB = 1 << 20


SIZES: list[tuple[list[Any], list[Any], int]] = [
    ([(b"a", b"", [])] * 19_999, [(b"b", b"", [])], 1),
    ([(b"a", b"", [])] * 20_000, [(b"b", b"", [])], 2),
    ([(b"a", bytes(16 * MIB), [])], [(b"b", bytes(16 * MIB), [])], 1),
    ([(b"a", bytes(16 * MIB), [])], [(b"b", bytes(16 * MIB + 1), [])], 2),
    ([(b"a", bytes(32 * MIB), [])], [(b"b", None, [])], 1),
    ([(b"a", bytes(32 * MIB), {})], [(b"b", b"", {})], 1),
    ([(b"a", bytes(32 * MIB), {})], [(b"b", b"1", {})], 2),
]


@pytest.mark.parametrize("earlier", [0, 1], ids=["the first", "a later one"])
@pytest.mark.parametrize(("first", "second", "transactions"), SIZES)
async def test_a_transaction_has_up_to_20000_records_and_32_mib(
    producers: FakeProducers, first: list[Any], second: list[Any], transactions: int, earlier: int
) -> None:

    group_commit = rounds_of()
    waiting: list[asyncio.Future[list[int]]] = []
    if earlier:
        group_commit.claim()
        waiting.append(group_commit.submit(FIRST, 0, one(b"-"), generation=5))
        await producers.begun()
    waiting += [group_commit.submit(FIRST, 1, [Batch("states", each)], generation=5) for each in (first, second)]
    group_commit.claim()
    producers.may_commit.release(3)
    await asyncio.gather(*waiting)
    await group_commit.close()
    assert len(producers.transactions) == earlier + transactions


async def test_a_cancelled_submission_does_not_affect_others(producers: FakeProducers) -> None:
    async with running() as group_commit:
        first = group_commit.submit(FIRST, 1, one(b"a"), generation=5)
        given_up = group_commit.submit(FIRST, 2, one(b"b"), generation=5)
        other = group_commit.submit(SECOND, 1, one(b"c"), generation=5)
        given_up.cancel()
        producers.may_commit.release()
        producers.may_commit.release()
        await first
        async with asyncio.timeout(60):
            assert await other == [ord("c")]


async def test_close_waits_for_the_current_transaction(producers: FakeProducers) -> None:
    async with running() as group_commit:
        first = group_commit.submit(FIRST, 1, one(b"a"), generation=5)
        closing = asyncio.create_task(group_commit.close())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not closing.done()
        producers.may_commit.release()
        await closing
        await first
        assert not group_commit._thread.is_alive()  # pyright: ignore[reportPrivateUsage]
    assert len(producers.transactions) == 1


async def test_waiting_submissions_are_committed_on_close(producers: FakeProducers) -> None:
    async with running() as group_commit:
        first = group_commit.submit(FIRST, 1, one(b"a"), generation=5)
        await producers.begun()
        second = group_commit.submit(FIRST, 2, one(b"b"), generation=5)
        closing = asyncio.create_task(group_commit.close())
        await asyncio.sleep(0)
        producers.may_commit.release(2)
        await asyncio.gather(first, second, closing)
    assert [[key for _, _, key, _ in each["sent"]] for each in producers.transactions] == [[b"a"], [b"b"]]


@pytest.mark.parametrize("after_loss", [None, False, True], ids=["not given", "no", "yes"])
async def test_positions_are_recorded_in_the_changelog_after_their_records(
    producers: FakeProducers, *, after_loss: bool | None
) -> None:
    async with running() as group_commit:
        producers.may_commit.release()
        if after_loss is not None:
            group_commit.after_loss[SECOND] = after_loss
        await group_commit.submit(SECOND, 7, one(b"a"), generation=5)
    [transaction] = producers.transactions
    assert transaction["sent"] == [("states", -1, b"a", [])]
    position = write_position(RecordedPosition("source", 7, bool(after_loss)))
    assert transaction["recorded"] == [("changelog", 1, position)]
    assert transaction["positions"] == {("events", 1): (7, METADATA)}


async def test_producers_are_closed_at_the_end_and_after_a_failed_claim(producers: FakeProducers) -> None:
    async with running():
        pass
    assert sorted(producers.closed) == ["worker-0", "worker-1"]
    producers.claim_failure = KafkaException("not allowed")
    with pytest.raises(KafkaException, match="not allowed"):
        rounds_of().claim()
    assert sorted(producers.closed) == ["worker-0", "worker-0", "worker-1", "worker-1"]
