"""A position is what was reported done: not what was fetched, not what Faust acknowledged by itself."""

from __future__ import annotations

import asyncio
import gc
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiokafka.errors import ConsumerStoppedError, IllegalStateError
from faust.types import TP

from support.streams.api_context import faust_app
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS
from taskbridge.streams.engine.transport import ChunkConsumer, Position

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from taskbridge.streams.engine.transport import ChunkMessage

FIRST, SECOND = TP(TASK_EVENTS.name, 0), TP(TASK_EVENTS.name, 1)
TOLD, CHANGELOG = TP(TASK_NOTIFICATIONS.name, 0), TP("changelog", 0)


@dataclass
class FakeRecord:
    offset: int
    topic: str = TASK_EVENTS.name
    partition: int = 0
    timestamp: int = 0
    timestamp_type: int = 0
    headers: Any = ()
    key: bytes | None = None
    value: bytes | None = None
    checksum: None = None
    serialized_key_size: int = 0
    serialized_value_size: int = 0


class FakeProducer:
    """Has nothing to flush."""

    async def flush(self) -> None:
        pass


class FakeBroker(ChunkConsumer):
    """The consumer with a broker that gives what it is told, and remembers what is committed and sought."""

    def on_init(self) -> None:
        super().on_init()
        self.fetched: dict[TP, list[FakeRecord]] = {}
        """What the next poll gives; the ones after that have nothing."""
        self.polls = 0
        self.while_polling: Callable[[], object] = int
        self.active: set[TP] | None = {FIRST, SECOND, TOLD, CHANGELOG}
        self.committed: dict[TP, int] = {}
        self.sought = 0

    def close(self) -> None:
        self._thread.thread_loop.close()

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ARG002, ASYNC109 - overridden
        self.polls += 1
        fetched, self.fetched = self.fetched, {}
        self.while_polling()
        return OrderedDict(fetched), self.active

    async def _commit(self, offsets: Any) -> bool:
        self.committed |= offsets
        return True

    async def seek_to_committed(self) -> dict[TP, int]:
        self.sought += 1
        return {}

    def assignment(self) -> set[TP]:
        return {FIRST, SECOND}


@pytest.fixture
def with_consumer(tmp_path: Path) -> Callable[[Callable[[FakeBroker], Awaitable[None]]], None]:
    """Runs a check in a loop, with a consumer of generation 1."""

    async def main(check: Callable[[FakeBroker], Awaitable[None]]) -> None:
        async def nothing(*_: Any) -> None:
            pass

        app = faust_app(tmp_path, partitions=2)
        app.producer = cast("Any", FakeProducer())
        consumer = FakeBroker(
            app.transport, callback=nothing, on_partitions_revoked=nothing, on_partitions_assigned=nothing
        )
        app.consumer_generation_id = 1
        await check(consumer)
        consumer.close()

    return lambda check: asyncio.run(main(check))


async def chunks_of(consumer: FakeBroker) -> list[tuple[TP, Any]]:
    polled = [cast("ChunkMessage", first) async for _, first in consumer.getmany(1.0)]
    return [(message.tp, message) for first in polled for message in (first, *first.others)]


def test_a_poll_gives_one_message_a_topic_which_has_one_chunk_a_partition(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {
            FIRST: [FakeRecord(offset) for offset in range(100, 200)],
            TOLD: [FakeRecord(1, topic=TOLD.topic)],
            SECOND: [FakeRecord(7, partition=1)],
            CHANGELOG: [FakeRecord(1, topic="changelog")],  # nobody's here
        }
        (first_tp, first), (told_tp, told) = [each async for each in consumer.getmany(1.0)]
        assert (first_tp, first.offset) == (FIRST, 199)
        assert [record.offset for record in cast("Any", first.value)] == list(range(100, 200))
        assert [(each.tp, each.offset) for each in cast("Any", first).others] == [(SECOND, 7)]
        assert (told_tp, told.offset, list(cast("Any", told).others)) == (TOLD, 1, [])

    with_consumer(check)


def test_a_chunk_is_bounded_in_bytes_and_a_record_that_is_larger_comes_alone(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        sizes = [2 << 20, 2 << 20, 1, 5 << 20, 1, 1]
        consumer.fetched = {FIRST: [FakeRecord(at, serialized_value_size=size) for at, size in enumerate(sizes)]}
        got = await chunks_of(consumer)
        assert [[record.offset for record in message.value] for _, message in got] == [[0, 1], [2], [3], [4, 5]]
        assert [message.offset for _, message in got] == [1, 2, 3, 5]

    with_consumer(check)


def test_faust_commits_nothing_by_itself(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {FIRST: [FakeRecord(0), FakeRecord(1)]}
        [(_, message)] = await chunks_of(consumer)
        # What Faust does with a message that a stream skips around a rebalance.
        message.incref()
        message.ack(consumer)
        consumer.done(message)
        await consumer.commit()
        assert consumer.committed == {}

    with_consumer(check)


def test_the_position_is_behind_what_is_done_and_what_comes_again_from_before_it_is_left_out(
    with_consumer: Any,
) -> None:
    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {FIRST: [FakeRecord(0), FakeRecord(1)], SECOND: [FakeRecord(5, partition=1)]}
        (_, first), (_, second) = await chunks_of(consumer)
        assert consumer.take(first, first.value) == first.value
        assert consumer.take(first, first.value) == [], "it is under way"
        consumer.done(first)
        assert consumer.position_of(FIRST) == 2
        consumer.app.consumer_generation_id = first.generation_id = second.generation_id = 2
        again: Any = [FakeRecord(1), FakeRecord(2)]
        assert [record.offset for record in consumer.take(first, again)] == [2]
        assert consumer.take(second, second.value) == second.value

    with_consumer(check)


def test_what_comes_again_in_other_pieces_is_left_out_as_far_as_it_was_taken(with_consumer: Any) -> None:
    """As after a rebalance that changes nothing: it is under way, and would be told twice."""

    async def check(consumer: FakeBroker) -> None:
        taken: list[int] = []
        for first, behind in ((0, 10), (10, 20), (0, 5), (5, 25), (25, 26)):
            consumer.fetched = {FIRST: [FakeRecord(offset) for offset in range(first, behind)]}
            [(_, message)] = await chunks_of(consumer)
            taken += [each.offset for each in consumer.take(message, message.value)]
        assert taken == list(range(26))

    with_consumer(check)


def test_what_was_fetched_before_a_rebalance_is_left_out_though_the_generation_is_the_same(with_consumer: Any) -> None:
    """As when a follower joins again and nothing changes. Taken, it would hide the chunks in front of it.

    Those were left out while the flow was stopped, and come again; this one waited on its way to the agent.
    """

    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {FIRST: [FakeRecord(0)]}
        [(_, left_out)] = await chunks_of(consumer)
        consumer.fetched = {FIRST: [FakeRecord(1)]}
        [(_, waited)] = await chunks_of(consumer)
        consumer.stop_flow()
        assert consumer.take(left_out, left_out.value) == []
        consumer.resume_flow()
        assert not consumer.is_current(waited), "for the inboxes"
        assert consumer.take(waited, waited.value) == []
        await chunks_of(consumer)
        consumer.fetched = {FIRST: [FakeRecord(0), FakeRecord(1)]}
        [(_, again)] = await chunks_of(consumer)
        assert [each.offset for each in consumer.take(again, again.value)] == [0, 1]

    with_consumer(check)


def test_a_chunk_of_an_earlier_generation_moves_no_position(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {FIRST: [FakeRecord(0)]}
        [(_, message)] = await chunks_of(consumer)
        consumer.app.consumer_generation_id = 2
        assert consumer.take(message, message.value) == []
        consumer.done(message)
        assert consumer.position_of(FIRST) == 0

    with_consumer(check)


def test_a_position_is_forgotten_with_its_partition(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {FIRST: [FakeRecord(0)], SECOND: [FakeRecord(0, partition=1)]}
        for _, message in await chunks_of(consumer):
            consumer.done(message)
        await consumer.on_partitions_revoked({FIRST})
        assert (consumer.position_of(FIRST), consumer.position_of(SECOND)) == (0, 1)

    with_consumer(check)


def test_a_chunk_that_ends_behind_a_revocation_moves_no_position_once_the_partition_comes_back(
    with_consumer: Any,
) -> None:
    """The rebalance waits for it no longer, and another worker was further meanwhile."""

    async def check(consumer: FakeBroker) -> None:
        loose = cast("Any", consumer)
        loose._thread.fetch_position = lambda _: 0  # pyright: ignore[reportUnknownLambdaType]
        consumer.fetched = {FIRST: [FakeRecord(0, timestamp=1000)]}
        [(_, message)] = await chunks_of(consumer)
        await consumer.on_partitions_revoked({FIRST})
        consumer.done(message)
        for generation, assigned in ((2, set[TP]()), (3, {FIRST})):
            consumer.app.consumer_generation_id = generation
            await consumer.on_partitions_assigned(assigned, generation)
        loose._committed_offset[FIRST] = 7  # as the seek says
        assert consumer.position_of(FIRST) == 7
        assert consumer.positions[FIRST] == Position(7, None)

    with_consumer(check)


def test_what_is_fetched_while_a_rebalance_begins_is_dropped_and_sought_again(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {FIRST: [FakeRecord(0)]}
        consumer.while_polling = consumer.stop_flow
        assert await chunks_of(consumer) == []
        assert consumer.sought == 1

    with_consumer(check)


def test_the_next_poll_is_under_way_while_the_chunks_of_the_last_one_are_handed_over(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {FIRST: [FakeRecord(0)]}
        got: list[int] = []
        async for _, message in consumer.getmany(1.0):
            consumer.fetched = {FIRST: [FakeRecord(1)]}
            await asyncio.sleep(0)
            assert consumer.polls == 2
            got.append(message.offset)
        got += [message.offset for _, message in await chunks_of(consumer)]
        assert got == [0, 1]
        assert await chunks_of(consumer) == []

    with_consumer(check)


def test_a_chunk_knows_whether_others_of_its_poll_follow(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {FIRST: [FakeRecord(0)], SECOND: [FakeRecord(0)], TOLD: [FakeRecord(0)]}
        assert [message.more_follow for _, message in await chunks_of(consumer)] == [True, True, False]

    with_consumer(check)


def _rebalance(consumer: FakeBroker) -> None:
    consumer.stop_flow()
    consumer.resume_flow()


def _generation(consumer: FakeBroker) -> None:
    consumer.app.consumer_generation_id += 1


@pytest.mark.parametrize("overtake", [_rebalance, _generation, ChunkConsumer.perform_seek])
def test_what_was_polled_ahead_of_a_rebalance_or_a_seek_is_dropped_and_sought_again(
    with_consumer: Any, overtake: Callable[[FakeBroker], Any]
) -> None:
    """It may stand behind what comes first now, which would be taken for something that is under way already."""

    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {FIRST: [FakeRecord(0)]}
        async for _ in consumer.getmany(1.0):
            consumer.fetched = {FIRST: [FakeRecord(1)]}
            await asyncio.sleep(0)
        done = overtake(consumer)
        if done is not None:
            await done
        sought = consumer.sought
        assert await chunks_of(consumer) == []
        assert consumer.sought == sought + 1
        consumer.fetched = {FIRST: [FakeRecord(1)]}
        assert [message.offset for _, message in await chunks_of(consumer)] == [1]

    with_consumer(check)


def test_an_error_of_a_poll_ahead_is_told_to_who_polls_next(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        def fails() -> None:
            raise ConsumerStoppedError

        consumer.fetched = {FIRST: [FakeRecord(0)]}
        async for _ in consumer.getmany(1.0):
            consumer.while_polling = fails
        with pytest.raises(ConsumerStoppedError):
            await chunks_of(consumer)

    with_consumer(check)


def test_partitions_that_have_more_take_turns(with_consumer: Any) -> None:
    """aiokafka's fetcher gives records of the first partition that has some, up to a bound."""
    records = {
        FIRST: [FakeRecord(1), FakeRecord(2), FakeRecord(3)],
        SECOND: [FakeRecord(4), FakeRecord(5)],
        CHANGELOG: [FakeRecord(6)],
    }

    class Fetcher:
        _records = records
        _closed = False
        _subscriptions = SimpleNamespace(fetch_context=nullcontext)

        async def fetched_records(self, *_: Any, **__: Any) -> dict[TP, list[FakeRecord]]:
            tp = next(iter(records))
            record = records[tp].pop(0)
            if not records[tp]:
                del records[tp]
            return {tp: [record]}

    class Client:
        _fetcher = Fetcher()
        _closed = False

    async def check(consumer: FakeBroker) -> None:
        thread = cast("Any", consumer)._thread
        polled = [await thread._fetch_records(Client(), {FIRST, SECOND}) for _ in range(6)]
        assert [record.offset for poll in polled for [record] in poll.values()] == [1, 4, 6, 2, 5, 3]
        assert thread.polled == {FIRST: 4, SECOND: 6, CHANGELOG: 7}

    with_consumer(check)


def test_what_is_polled_and_not_done_is_not_reached_however_far_the_next_fetch_begins(with_consumer: Any) -> None:
    """It may wait behind the chunk in work; who asks whether all is done must not be told so."""

    async def check(consumer: FakeBroker) -> None:
        loose = cast("Any", consumer)
        loose._committed_offset |= {FIRST: 0, SECOND: 0}
        thread = loose._thread
        thread.fetch_position = {FIRST: 12, SECOND: 12}.get
        thread.polled[FIRST] = 10
        consumer.fetched = {FIRST: [FakeRecord(at) for at in range(10)]}
        [(_, message)] = await chunks_of(consumer)
        assert consumer.positions[FIRST].offset == 0
        consumer.done(message)
        assert consumer.positions[FIRST].offset == 12, "behind the last record there is the end of a transaction"
        assert consumer.positions[SECOND].offset == 12
        thread.polled[SECOND] = 10
        assert consumer.positions[SECOND].offset == 0
        await consumer.perform_seek()
        assert consumer.positions[SECOND].offset == 0, (
            "a poll may have ended behind the seek: it is dropped, and sought again"
        )

    with_consumer(check)


def test_a_poll_that_ends_while_one_asks_is_not_reached_either(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        loose = cast("Any", consumer)
        loose._committed_offset |= {FIRST: 0, SECOND: 0}
        thread = loose._thread

        def fetch_position(tp: TP) -> int:
            thread.polled[tp] = 10
            return 12

        thread.fetch_position = fetch_position
        assert consumer.positions[FIRST].offset == 0

    with_consumer(check)


def test_a_chunk_that_was_not_begun_before_a_rebalance_is_not_begun_during_it(with_consumer: Any) -> None:
    """It would be waited for by nobody: the group refuses what it writes, and the worker would end for that."""

    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {FIRST: [FakeRecord(0)]}
        [(_, message)] = await chunks_of(consumer)
        consumer.stop_flow()
        assert consumer.take(message, message.value) == []

    with_consumer(check)


def test_an_assignment_that_changes_while_it_is_sought_does_no_harm(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        async def overtaken() -> dict[TP, int]:
            raise IllegalStateError("No current assignment for partition")

        consumer.seek_to_committed = overtaken
        await consumer.perform_seek()

    with_consumer(check)


def test_from_its_beginning_to_its_end_a_rebalance_is_known(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        assert not consumer.is_leaving
        await consumer.on_partitions_revoked({FIRST})
        assert consumer.is_leaving
        await consumer.on_partitions_assigned({FIRST}, 2)
        assert not consumer.is_leaving

    with_consumer(check)


def test_a_rebalance_waits_for_the_chunk_in_work(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {FIRST: [FakeRecord(0)]}
        [(_, message)] = await chunks_of(consumer)

        async def work() -> None:
            with consumer.working():
                await asyncio.sleep(0.05)
                consumer.done(message)

        working = asyncio.create_task(work())
        await asyncio.sleep(0)
        await consumer.wait_empty()
        assert working.done()
        assert consumer.position_of(FIRST) == 1

    with_consumer(check)


def test_a_rebalance_with_nothing_in_work_waits_for_nothing_of_ours_and_for_what_faust_waits_for(
    with_consumer: Any,
) -> None:
    async def check(consumer: FakeBroker) -> None:
        ended: list[str] = []

        async def end() -> None:
            ended.append("Faust's own")

        consumer.commit_and_end_transactions = end
        async with asyncio.timeout(1):
            await consumer.wait_empty()
        assert ended == ["Faust's own"]

    with_consumer(check)


def test_the_time_of_the_last_record_that_is_done_goes_with_its_position(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        cast("Any", consumer)._thread.fetch_position = {}.get
        cast("Any", consumer)._thread.polled |= {FIRST: 2, SECOND: 1}
        consumer.fetched = {
            FIRST: [FakeRecord(0, timestamp=1000), FakeRecord(1, timestamp=2500)],
            SECOND: [FakeRecord(0, partition=1, timestamp=3000)],
        }
        (_, message), _ = await chunks_of(consumer)
        assert consumer.positions == {FIRST: Position(0, 1.0), SECOND: Position(0, 3.0)}, "the first that waits"
        consumer.done(message)
        cast("Any", consumer)._thread.polled[FIRST] = 3
        assert consumer.positions == {FIRST: Position(2, 2.5), SECOND: Position(0, 3.0)}
        await consumer.on_partitions_revoked({FIRST})
        assert cast("Any", consumer)._thread.polled == {SECOND: 1}
        cast("Any", consumer)._thread.polled[FIRST] = 1
        assert consumer.positions[FIRST] == Position(0, None)

    with_consumer(check)


def test_a_chunk_behind_the_last_one_is_taken_whole_and_not_even_copied(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        for offset in (0, 1):
            consumer.fetched = {FIRST: [FakeRecord(offset)]}
            [(_, message)] = await chunks_of(consumer)
            assert consumer.take(message, message.value) is message.value

    with_consumer(check)


@pytest.mark.parametrize("overtake", [ChunkConsumer.stop_flow, _generation])
def test_a_rebalance_between_two_topics_of_a_poll_keeps_the_second_one_back(
    with_consumer: Any, overtake: Callable[[FakeBroker], Any]
) -> None:
    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {FIRST: [FakeRecord(0)], TOLD: [FakeRecord(0, topic=TOLD.topic)]}
        got: list[TP] = []
        async for tp, _ in consumer.getmany(1.0):
            got.append(tp)
            overtake(consumer)
        assert got == [FIRST]

    with_consumer(check)


def test_of_a_poll_only_partitions_with_records_come_that_are_ours_now_or_were_buffered(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        def records() -> dict[TP, list[FakeRecord]]:
            return {CHANGELOG: [], FIRST: [FakeRecord(0)], SECOND: [FakeRecord(0, partition=1)]}

        for active, buffered, expected in (
            ({CHANGELOG, SECOND}, set[TP](), [SECOND]),
            ({CHANGELOG, SECOND}, {FIRST}, [FIRST, SECOND]),
            (None, set[TP](), [FIRST, SECOND]),
        ):
            consumer.fetched, consumer.active = records(), active
            cast("Any", consumer)._buffered_partitions = buffered
            assert [tp for tp, _ in await chunks_of(consumer)] == expected
            assert await chunks_of(consumer) == []  # the poll ahead

    with_consumer(check)


async def drained(consumer: FakeBroker, callback: Callable[[Any], Awaitable[object]]) -> None:
    """What the next poll gives is handed to ``callback``; then the fetcher stops."""
    fetcher, loose = SimpleNamespace(should_stop=False), cast("Any", consumer)

    async def hand_on(first: Any) -> None:
        fetcher.should_stop = True
        await callback(first)

    loose.callback = hand_on
    async with asyncio.timeout(5):
        await loose._drain_messages(fetcher)


def test_what_comes_again_of_one_partition_holds_nothing_back_of_the_others(with_consumer: Any) -> None:
    """Of a topic in a poll there is one message, for all partitions."""

    async def check(consumer: FakeBroker) -> None:
        got = list[TP]()

        async def hand_on(first: Any) -> None:
            got.extend(message.tp for message in (first, *first.others))

        cast("Any", consumer)._read_offset[FIRST] = 5
        consumer.fetched = {FIRST: [FakeRecord(3)], SECOND: [FakeRecord(9, partition=1)]}
        await drained(consumer, hand_on)
        assert got == [FIRST, SECOND]

    with_consumer(check)


@pytest.mark.parametrize("suspended", [False, True])
def test_a_message_that_finds_no_room_is_waited_for_until_the_flow_is_suspended(
    with_consumer: Any, *, suspended: bool
) -> None:
    async def check(consumer: FakeBroker) -> None:
        room, ends = asyncio.Event(), list[str]()
        frees = consumer.stop_flow if suspended else room.set

        async def hand_on(_: Any) -> None:
            asyncio.get_running_loop().call_later(0.01, frees)
            try:
                await room.wait()
            except asyncio.CancelledError:
                ends.append("given up")
                raise
            ends.append("handed on")

        consumer.fetched = {FIRST: [FakeRecord(3)]}
        await drained(consumer, hand_on)
        await asyncio.sleep(0)
        assert ends == ["given up" if suspended else "handed on"]

    with_consumer(check)


@pytest.mark.parametrize("turns", [0, 3])
def test_an_error_of_whoever_takes_a_message_is_told(with_consumer: Any, turns: int) -> None:
    async def check(consumer: FakeBroker) -> None:
        async def hand_on(_: Any) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            raise ValueError("not taken")

        consumer.fetched = {FIRST: [FakeRecord(3)]}
        with pytest.raises(ValueError, match="not taken"):
            await drained(consumer, hand_on)

    with_consumer(check)


@pytest.mark.parametrize("app_stops", [False, True])
def test_only_where_the_app_stops_is_the_end_of_the_loop_no_error(with_consumer: Any, *, app_stops: bool) -> None:
    async def check(consumer: FakeBroker) -> None:
        cast("Any", consumer).transport = SimpleNamespace(app=SimpleNamespace(should_stop=app_stops))
        consumer.fetched = {FIRST: [FakeRecord(3)]}
        draining = asyncio.create_task(drained(consumer, lambda _: asyncio.Event().wait()))
        await asyncio.sleep(0.01)
        draining.cancel()
        await asyncio.wait([draining])
        assert draining.cancelled() is not app_stops

    with_consumer(check)


def test_nothing_is_polled_while_a_rebalance_goes_on(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        consumer.stop_flow()
        consumer.fetched = {FIRST: [FakeRecord(0)]}
        getting = asyncio.create_task(chunks_of(consumer))
        for _ in range(5):
            await asyncio.sleep(0)
        assert (consumer.polls, getting.done()) == (0, False)
        consumer.resume_flow()
        [(_, message)] = await getting
        assert message.offset == 0

    with_consumer(check)


def test_a_record_that_is_larger_than_a_chunk_may_come_first(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        consumer.fetched = {FIRST: [FakeRecord(at, serialized_value_size=size) for at, size in enumerate((5 << 20, 1))]}
        got = await chunks_of(consumer)
        assert [[record.offset for record in message.value] for _, message in got] == [[0], [1]]

    with_consumer(check)


def test_from_the_start_on_what_a_topic_no_longer_has_is_an_error(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        said: list[bool] = []

        def let_skip(*, may: bool) -> None:
            said.append(may)

        cast("Any", consumer)._thread.let_skip = let_skip
        consumer.skip_nothing()
        assert said == [False]

    with_consumer(check)


def test_the_end_gives_the_poll_ahead_up(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        ended: list[str] = []

        async def end() -> None:
            ended.append("Faust's own")

        consumer.commit_and_end_transactions = end
        await consumer.on_stop()
        ahead = cast("Any", consumer)._ahead = asyncio.create_task(asyncio.Event().wait())
        await consumer.on_stop()
        await asyncio.wait([ahead])
        assert ahead.cancelled()
        assert len(ended) == 2

    with_consumer(check)


def test_of_a_poll_ahead_that_failed_when_nobody_comes_for_it_nothing_is_said(with_consumer: Any) -> None:
    async def check(consumer: FakeBroker) -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

        def fails() -> None:
            raise ConsumerStoppedError

        consumer.fetched = {FIRST: [FakeRecord(0)]}
        async for _ in consumer.getmany(1.0):
            consumer.while_polling = fails
        loose = cast("Any", consumer)
        await asyncio.wait([loose._ahead])
        await asyncio.sleep(0)
        loose._ahead = None
        gc.collect()
        assert complaints == []

    with_consumer(check)
