"""What waits goes into one transaction, with its positions; and after a failure nothing is begun.

What one poll brought is passed on together and in order, and nothing waits longer than it may.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import KafkaException
from faust.types import TP

from taskbridge.streams.positions import POSITION_KEY, Ground, KeptPosition, Mark, write_metadata, write_position
from taskbridge.streams.transactions.bulk_producer import Fenced, Membership, OffsetsNotTaken, Sent, group_metadata
from taskbridge.streams.transactions.group_commit import Batch, Delivery, Gathering, GroupCommit, Overtaken

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from confluent_kafka import TopicPartition

    from taskbridge.streams.records import RecordWithHeaders
    from taskbridge.streams.transactions.bulk_producer import BulkProducer

FIRST, SECOND = TP("events", 0), TP("events", 1)
MEMBER = Membership(5, "member-1", "instance-1")


class FakeProducers:
    """Remembers what each transaction had; its commit ends when it may."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.claimed: list[str] = []
        self.claiming = threading.Lock()
        """Holds up who claims."""
        self.transactions: list[dict[str, Any]] = []
        self.aborted = 0
        self.closed: list[str] = []
        self.may_commit = threading.Semaphore(0)
        self.failure: Exception | None = None
        self.claim_failure: Exception | None = None
        self.last_value: bytes | None = None
        self.ended_in: list[tuple[str, bool]] = []
        """The threads in which producers that nobody needs came to their end, which may take long, and whether the
        process waits for them."""

    def make(self, _config: Mapping[str, object], transactional_id: str) -> BulkProducer:
        self.made.append(transactional_id)
        return cast("BulkProducer", FakeProducer(self, transactional_id))


class FakeProducer:
    def __init__(self, all_of_them: FakeProducers, transactional_id: str) -> None:
        self._all = all_of_them
        self._id = transactional_id
        self._sent: list[Any] = []
        self._reports: list[tuple[Sent, int]] = []

    def __del__(self) -> None:
        thread = threading.current_thread()
        self._all.ended_in.append((thread.name, thread.daemon))

    def claim(self) -> None:
        if self._all.claim_failure is not None:
            raise self._all.claim_failure
        assert self._all.claiming.acquire(timeout=10)
        self._all.claiming.release()
        self._all.claimed.append(self._id)

    def begin(self) -> None:
        self._sent, self._reports = [], []

    def send(self, topic: str, records: Sequence[RecordWithHeaders], *, partition: int) -> Sent:
        self._sent += [(topic, partition, record[0], record[2]) for record in records]
        self._all.last_value = records[-1][1]
        return self._reported(records[-1][0])

    def _reported(self, key: bytes | None) -> Sent:
        """Its record's offset is its key's first byte, once it is committed."""
        sent = Sent()
        self._reports.append((sent, (key or b"")[0]))
        return sent

    def commit(self, offsets: Sequence[TopicPartition], group: bytes) -> None:
        assert self._all.may_commit.acquire(timeout=10)
        if self._all.failure is not None:
            raise type(self._all.failure)(*self._all.failure.args)  # each its own, as it holds what it came from
        for sent, offset in self._reports:
            sent.last_offset = offset
        positions = {(each.topic, each.partition): (each.offset, each.metadata) for each in offsets}
        self._all.transactions.append({"id": self._id, "sent": self._sent, "positions": positions, "group": group})

    def abort(self) -> None:
        self._all.aborted += 1

    def close(self) -> None:
        self._all.closed.append(self._id)


def rounds_of(producers: FakeProducers, grounds: Mapping[str, Ground] | None = None) -> GroupCommit:
    return GroupCommit(
        {}, group="group", name="worker", membership=lambda: MEMBER, grounds=grounds or {}, make=producers.make
    )


def told(
    producers: FakeProducers,
    story: Callable[[GroupCommit], Coroutine[Any, Any, None]],
    grounds: Mapping[str, Ground] | None = None,
) -> None:
    async def main() -> None:
        group_commit = rounds_of(producers, grounds)
        group_commit.claim()
        await story(group_commit)
        await group_commit.close()

    asyncio.run(main())


def one(key: bytes) -> list[Batch]:
    return [Batch("states", [(key, b"v", [])])]


def test_what_waits_while_a_round_is_under_way_is_the_next_one_and_the_producers_take_turns() -> None:
    producers = FakeProducers()

    async def story(group_commit: GroupCommit) -> None:
        first = group_commit.hand_over(FIRST, 10, one(b"a"), generation=5)
        await asyncio.sleep(0.1)
        others = [
            group_commit.hand_over(FIRST, 20, one(b"b"), generation=5),
            group_commit.hand_over(SECOND, 7, one(b"c"), generation=5),
        ]
        producers.may_commit.release()
        await first
        assert not any(each.done() for each in others)
        producers.may_commit.release()
        assert await asyncio.gather(*others) == [[ord("b")], [ord("c")]]

    told(producers, story)
    assert producers.claimed == ["worker-0", "worker-1"]
    assert [each["id"] for each in producers.transactions] == ["worker-0", "worker-1"]
    assert [[key for _, _, key, _ in each["sent"]] for each in producers.transactions] == [[b"a"], [b"b", b"c"]]
    assert [each["positions"] for each in producers.transactions] == [
        {("events", 0): (10, "worker ")},
        {("events", 0): (20, "worker "), ("events", 1): (7, "worker ")},
    ]
    assert {each["group"] for each in producers.transactions} == {group_metadata("group", MEMBER)}


def test_what_came_by_the_same_poll_shares_a_round_once_none_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.streams.transactions.group_commit._FOLLOWS_WITHIN_S", 60.0)
    producers = FakeProducers()

    async def story(group_commit: GroupCommit) -> None:
        producers.may_commit.release(2)
        await group_commit.hand_over(FIRST, 5, one(b"-"), generation=5)
        while group_commit._is_under_way:  # noqa: ASYNC110 # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0)
        first = group_commit.hand_over(FIRST, 10, one(b"a"), generation=5, more_follow=True)
        await asyncio.sleep(0.1)
        await asyncio.gather(first, group_commit.hand_over(SECOND, 7, one(b"b"), generation=5))

    told(producers, story)
    assert [[key for _, _, key, _ in each["sent"]] for each in producers.transactions] == [[b"-"], [b"a", b"b"]]


def test_while_a_round_is_under_way_nothing_waits_in_front_of_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.streams.transactions.group_commit._FOLLOWS_WITHIN_S", 60.0)
    producers = FakeProducers()

    async def story(group_commit: GroupCommit) -> None:
        first = group_commit.hand_over(FIRST, 10, one(b"a"), generation=5)
        while producers.last_value is None:  # noqa: ASYNC110 - it is another thread that sets it
            await asyncio.sleep(0)
        second = group_commit.hand_over(SECOND, 7, one(b"b"), generation=5, more_follow=True)
        producers.may_commit.release(2)
        async with asyncio.timeout(20):
            await asyncio.gather(first, second)

    told(producers, story)


def test_each_batch_has_its_topic_its_partition_and_the_offset_of_its_last_record() -> None:
    producers = FakeProducers()
    batches = [
        Batch("changelog", [(b"a", b"v", []), (b"b", None, [])], 3),
        Batch("dead-letters", []),
        Batch("told", [(b"u", b"v", {"h": b"1"})]),
    ]

    async def story(group_commit: GroupCommit) -> None:
        producers.may_commit.release()
        assert await group_commit.hand_over(FIRST, 1, batches, generation=5) == [ord("b"), -1, ord("u")]

    told(producers, story)
    [transaction] = producers.transactions
    assert transaction["sent"] == [
        ("changelog", 3, b"a", []),
        ("changelog", 3, b"b", []),
        ("told", -1, b"u", {"h": b"1"}),
    ]


def test_a_round_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.streams.transactions.group_commit._RECORDS", 2)
    producers = FakeProducers()

    async def story(group_commit: GroupCommit) -> None:
        first = group_commit.hand_over(FIRST, 0, one(b"-"), generation=5)
        await asyncio.sleep(0.1)
        waiting = [group_commit.hand_over(FIRST, at, one(b"%d" % at), generation=5) for at in range(1, 6)]
        for _ in range(4):
            producers.may_commit.release()
        await asyncio.gather(first, *waiting)

    told(producers, story)
    sent = [[key for _, _, key, _ in each["sent"]] for each in producers.transactions]
    assert sent == [[b"-"], [b"1", b"2"], [b"3", b"4"], [b"5"]]


def test_what_comes_of_an_earlier_generation_is_not_begun() -> None:
    producers = FakeProducers()

    async def story(group_commit: GroupCommit) -> None:
        with pytest.raises(Overtaken):
            await group_commit.hand_over(FIRST, 1, one(b"a"), generation=4)

    told(producers, story)
    assert producers.transactions == []


def test_a_round_that_is_refused_is_undone_and_nothing_is_begun_after_it() -> None:
    producers = FakeProducers()
    producers.failure = Fenced("gone")

    async def story(group_commit: GroupCommit) -> None:
        first = group_commit.hand_over(FIRST, 1, one(b"a"), generation=5)
        await asyncio.sleep(0.1)
        waiting = group_commit.hand_over(FIRST, 2, one(b"b"), generation=5)
        producers.may_commit.release()
        for each in (first, waiting):
            with pytest.raises(Fenced):
                await each
        with pytest.raises(Fenced):
            await group_commit.hand_over(FIRST, 3, one(b"c"), generation=5)

    told(producers, story)
    assert producers.aborted == 1
    assert producers.transactions == []


def test_a_round_whose_offsets_no_coordinator_took_is_done_again_by_new_producers() -> None:
    producers = FakeProducers()
    producers.failure = OffsetsNotTaken("not reached")

    async def story(group_commit: GroupCommit) -> None:
        first = group_commit.hand_over(FIRST, 1, one(b"a"), generation=5)
        before = len(producers.claimed)
        producers.may_commit.release()
        while len(producers.claimed) < 2 * before:  # noqa: ASYNC110 - it is counted by another thread
            await asyncio.sleep(0.01)
        producers.failure = None
        producers.may_commit.release()
        await first

    told(producers, story)
    assert producers.claimed[:2] == producers.claimed[2:]
    assert producers.aborted == 0
    assert [each["positions"] for each in producers.transactions] == [{("events", 0): (1, "worker ")}]


def test_where_new_producers_cannot_be_claimed_the_round_fails_with_that_and_so_does_all_that_follows() -> None:
    producers = FakeProducers()
    producers.failure = OffsetsNotTaken("not reached")

    async def story(group_commit: GroupCommit) -> None:
        producers.claim_failure = KafkaException("not allowed")
        first = group_commit.hand_over(FIRST, 1, one(b"a"), generation=5)
        waiting = group_commit.hand_over(SECOND, 1, one(b"b"), generation=5)
        producers.may_commit.release()
        async with asyncio.timeout(10):
            for each in (first, waiting):
                with pytest.raises(KafkaException, match="not allowed"):
                    await each
        with pytest.raises(KafkaException, match="not allowed"):
            group_commit.hand_over(FIRST, 2, one(b"c"), generation=5)

    told(producers, story)
    assert producers.transactions == []


def test_a_rebalance_while_producers_are_renewed_claims_nothing_of_its_own() -> None:
    producers = FakeProducers()
    producers.failure = OffsetsNotTaken("not reached")

    async def story(group_commit: GroupCommit) -> None:
        first = group_commit.hand_over(FIRST, 1, one(b"a"), generation=5)
        with producers.claiming:
            producers.may_commit.release()
            while len(producers.made) < 4:  # noqa: ASYNC110 - they are made by another thread
                await asyncio.sleep(0)
            group_commit.claim()
        producers.failure = None
        producers.may_commit.release()
        await first

    told(producers, story)
    assert len(producers.made) == 4


def test_whatever_a_round_fails_with_is_told() -> None:
    class Panic(BaseException):
        """As the native core's is."""

    producers = FakeProducers()
    producers.failure = cast("Exception", Panic())

    async def story(group_commit: GroupCommit) -> None:
        producers.may_commit.release()
        async with asyncio.timeout(10):
            with pytest.raises(Panic):
                await group_commit.hand_over(FIRST, 1, one(b"a"), generation=5)

    told(producers, story)


def test_records_that_cannot_be_counted_are_refused_to_who_hands_them_over() -> None:
    producers = FakeProducers()
    strange: Any = [Batch("states", [(b"a", 5, [])])]  # type: ignore[list-item]

    async def story(group_commit: GroupCommit) -> None:
        with pytest.raises(TypeError):
            group_commit.hand_over(FIRST, 1, strange, generation=5)
        producers.may_commit.release()
        async with asyncio.timeout(10):
            await group_commit.hand_over(FIRST, 1, one(b"a"), generation=5)

    told(producers, story)


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
def test_a_transaction_takes_twenty_thousand_records_and_32_mib(
    first: list[Any], second: list[Any], transactions: int, earlier: int
) -> None:
    producers = FakeProducers()

    async def main() -> None:
        running = rounds_of(producers)
        waiting: list[asyncio.Future[list[int]]] = []
        if earlier:
            running.claim()
            waiting.append(running.hand_over(FIRST, 0, one(b"-"), generation=5))
            while producers.last_value is None:  # noqa: ASYNC110 - it is another thread that sets it
                await asyncio.sleep(0)
        waiting += [running.hand_over(FIRST, 1, [Batch("states", each)], generation=5) for each in (first, second)]
        running.claim()
        producers.may_commit.release(3)
        await asyncio.gather(*waiting)
        await running.close()

    asyncio.run(main())
    assert len(producers.transactions) == earlier + transactions


def test_after_a_failure_nothing_is_even_handed_over() -> None:
    producers = FakeProducers()
    producers.failure = Fenced("gone")

    async def story(group_commit: GroupCommit) -> None:
        producers.may_commit.release()
        with pytest.raises(Fenced):
            await group_commit.hand_over(FIRST, 1, one(b"a"), generation=5)
        with pytest.raises(Fenced):
            group_commit.hand_over(FIRST, 2, one(b"b"), generation=5)

    told(producers, story)


def test_who_waits_no_longer_keeps_nobody_else_from_being_told() -> None:
    producers = FakeProducers()

    async def story(group_commit: GroupCommit) -> None:
        first = group_commit.hand_over(FIRST, 1, one(b"a"), generation=5)
        given_up = group_commit.hand_over(FIRST, 2, one(b"b"), generation=5)
        other = group_commit.hand_over(SECOND, 1, one(b"c"), generation=5)
        given_up.cancel()
        producers.may_commit.release()
        producers.may_commit.release()
        await first
        async with asyncio.timeout(5):
            assert await other == [ord("c")]

    told(producers, story)


def test_the_end_waits_for_the_round_under_way() -> None:
    producers = FakeProducers()

    async def story(group_commit: GroupCommit) -> None:
        first = group_commit.hand_over(FIRST, 1, one(b"a"), generation=5)
        closing = asyncio.create_task(group_commit.close())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not closing.done()
        producers.may_commit.release()
        await closing
        await first
        assert not group_commit._thread.is_alive()  # pyright: ignore[reportPrivateUsage]

    told(producers, story)
    assert len(producers.transactions) == 1


def test_what_waits_at_the_end_goes_into_a_last_transaction() -> None:
    producers = FakeProducers()

    async def story(group_commit: GroupCommit) -> None:
        first = group_commit.hand_over(FIRST, 1, one(b"a"), generation=5)
        while producers.last_value is None:  # noqa: ASYNC110 - it is another thread that sets it
            await asyncio.sleep(0)
        second = group_commit.hand_over(FIRST, 2, one(b"b"), generation=5)
        closing = asyncio.create_task(group_commit.close())
        await asyncio.sleep(0)
        producers.may_commit.release(2)
        await asyncio.gather(first, second, closing)

    told(producers, story)
    assert [[key for _, _, key, _ in each["sent"]] for each in producers.transactions] == [[b"a"], [b"b"]]


def test_what_was_never_begun_needs_no_end_and_no_thread_keeps_the_process_from_ending() -> None:
    group_commit = rounds_of(FakeProducers())
    asyncio.run(group_commit.close())
    assert group_commit._thread.daemon  # pyright: ignore[reportPrivateUsage]


def test_a_claim_that_kafka_does_not_allow_is_told() -> None:
    producers = FakeProducers()
    producers.claim_failure = KafkaException("not allowed")
    with pytest.raises(KafkaException, match="not allowed"):
        rounds_of(producers).claim()


@pytest.mark.parametrize("after_loss", [None, False, True], ids=["not said", "no", "yes"])
def test_positions_are_kept_in_the_changelog_too_behind_what_they_stand_for(*, after_loss: bool | None) -> None:
    producers = FakeProducers()
    ground = Ground("source", "changelog", Mark(1, 2, "changelog-id", "version-id"))

    async def story(group_commit: GroupCommit) -> None:
        producers.may_commit.release()
        if after_loss is not None:
            group_commit.after_loss[SECOND] = after_loss
        await group_commit.hand_over(SECOND, 7, one(b"a"), generation=5)

    told(producers, story, {"events": ground})
    [transaction] = producers.transactions
    assert transaction["sent"] == [("states", -1, b"a", []), ("changelog", 1, POSITION_KEY, [])]
    assert producers.last_value == write_position(KeptPosition("source", 7, bool(after_loss)))
    assert transaction["positions"] == {("events", 1): (7, write_metadata("worker", ground.mark))}


def test_nothing_waits_for_the_end_of_producers_that_others_took_over_from() -> None:
    producers = FakeProducers()
    producers.failure = OffsetsNotTaken("not reached")

    async def story(group_commit: GroupCommit) -> None:
        first = group_commit.hand_over(FIRST, 1, one(b"a"), generation=5)
        producers.may_commit.release()
        while len(producers.claimed) < 4:  # noqa: ASYNC110 - it is counted by another thread
            await asyncio.sleep(0.001)
        producers.failure = None
        producers.may_commit.release()
        await first
        while len(producers.ended_in) < 2:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)

    told(producers, story)
    assert producers.ended_in[:2] == [("former-producers", True)] * 2


def test_at_the_end_and_where_one_cannot_be_claimed_the_producers_are_closed() -> None:
    producers = FakeProducers()

    async def story(_group_commit: GroupCommit) -> None: ...

    told(producers, story)
    assert sorted(producers.closed) == ["worker-0", "worker-1"]
    producers.claim_failure = KafkaException("not allowed")
    with pytest.raises(KafkaException):
        told(producers, story)
    assert sorted(producers.closed) == ["worker-0", "worker-0", "worker-1", "worker-1"]


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._now_ms = 0.0

    def time(self) -> float:
        return self._now_ms / 1000

    async def passes(self, milliseconds: float) -> None:
        self._now_ms += milliseconds
        for _ in range(2):  # a turn to begin what is due, and one to see it done
            await asyncio.sleep(0)


class Gathered:
    """What is gathered, and what was passed on; both by the offset behind it."""

    def __init__(self) -> None:
        self.passed: list[list[int]] = []
        self.is_under_way = False
        self._gathering = Gathering(
            lambda together: self.passed.append([each.next_offset for each in together]),
            is_under_way=lambda: self.is_under_way,
        )

    def add(self, offset: int, *, more_follow: bool = True, records: int = 1) -> None:
        batches = [Batch("states", [(b"key", b"value", [])] * records)]
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._gathering.add(Delivery(TP("events", 0), offset, batches, b"group", done), more_follow=more_follow)


def run(story: Callable[[Clock, Gathered], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=Clock) as runner:
        clock = runner.get_loop()
        assert isinstance(clock, Clock)
        runner.run(story(clock, Gathered()))


def test_what_follows_goes_with_what_was_there_in_order() -> None:
    async def story(_: Clock, gathered: Gathered) -> None:
        gathered.add(1)
        gathered.add(2)
        assert gathered.passed == []
        gathered.add(3, more_follow=False)
        assert gathered.passed == [[1, 2, 3]]

    run(story)


def test_what_does_not_follow_within_two_milliseconds_is_not_waited_for_as_often_as_that_is() -> None:
    async def story(clock: Clock, gathered: Gathered) -> None:
        for offset in (1, 2):
            gathered.add(offset)
            await clock.passes(1.9)
            assert gathered.passed == [[each] for each in range(1, offset)]
            await clock.passes(0.2)
            assert gathered.passed == [[each] for each in range(1, offset + 1)]

    run(story)


def test_the_two_milliseconds_begin_with_the_first_that_waits() -> None:
    async def story(clock: Clock, gathered: Gathered) -> None:
        gathered.add(1)
        await clock.passes(1)
        gathered.add(2, more_follow=False)
        gathered.add(3)
        await clock.passes(1.5)
        assert gathered.passed == [[1, 2]], "the time of what is gone is over"
        gathered.add(4)
        await clock.passes(0.6)
        assert gathered.passed == [[1, 2], [3, 4]]

    run(story)


@pytest.mark.parametrize(("first", "second", "passed"), [(50, 50, []), (50, 51, [[1, 2]]), (101, 1, [[1]])])
def test_a_hundred_records_wait_and_more_do_not(first: int, second: int, passed: list[list[int]]) -> None:
    async def story(_: Clock, gathered: Gathered) -> None:
        gathered.add(1, records=first)
        gathered.add(2, records=second)
        assert gathered.passed == passed

    run(story)


def test_while_a_transaction_is_under_way_nothing_waits_here() -> None:
    async def story(_: Clock, gathered: Gathered) -> None:
        gathered.add(1)
        gathered.is_under_way = True
        gathered.add(2)
        gathered.add(3)
        assert gathered.passed == [[1, 2], [3]]

    run(story)
