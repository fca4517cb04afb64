"""A position follows the records that are reported done, not those that were fetched or that Faust acknowledged."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiokafka.errors import ConsumerStoppedError
from faust.types import TP

from support.streams.faust_app import faust_app
from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.engine.transport import ChunkConsumer, Position

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from taskbridge.streams.engine.transport import ChunkMessage

FIRST, SECOND = TP(TASK_EVENTS.name, 0), TP(TASK_EVENTS.name, 1)
THIRD, CHANGELOG = TP(TASK_EVENTS.name, 2), TP("changelog", 0)


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
    """The consumer with a broker that returns what it is given, and remembers what is committed and sought."""

    def on_init(self) -> None:
        super().on_init()
        self.fetched: dict[TP, list[FakeRecord]] = {}
        """What the next poll gives; the ones after that have nothing."""
        self.polls = 0
        self.while_polling: Callable[[], object] = int
        self.active: set[TP] | None = {FIRST, SECOND, THIRD, CHANGELOG}
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


def with_consumer(check: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a test of a coroutine, which gets a consumer of generation 1."""

    async def nothing(*_: Any) -> None:
        pass

    async def main(folder: Path, given: dict[str, Any]) -> None:
        app = faust_app(folder, partitions=2)
        app.producer = cast("Any", FakeProducer())
        consumer = FakeBroker(
            app.transport, callback=nothing, on_partitions_revoked=nothing, on_partitions_assigned=nothing
        )
        app.consumer_generation_id = 1
        await check(consumer, **given)
        consumer.close()

    @functools.wraps(check)
    def test(tmp_path: Path, **given: Any) -> None:
        asyncio.run(main(tmp_path, given))

    own = inspect.signature(check)
    _, *others = own.parameters.values()
    folder = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    cast("Any", test).__signature__ = own.replace(parameters=[folder, *others])
    return test


async def chunks_of(consumer: FakeBroker) -> list[tuple[TP, Any]]:
    polled = [cast("ChunkMessage", first) async for _, first in consumer.getmany(1.0)]
    return [(message.tp, message) for first in polled for message in (first, *first.others)]


@with_consumer
async def test_a_poll_gives_one_message_with_one_chunk_per_partition(consumer: FakeBroker) -> None:
    consumer.fetched = {
        FIRST: [FakeRecord(offset) for offset in range(100, 200)],
        SECOND: [FakeRecord(7, partition=1)],
        CHANGELOG: [FakeRecord(1, topic="changelog")],  # nobody's here
    }
    [(first_tp, first)] = [each async for each in consumer.getmany(1.0)]
    assert (first_tp, first.offset) == (FIRST, 199)
    assert [record.offset for record in cast("Any", first.value)] == list(range(100, 200))
    assert [(each.tp, each.offset) for each in cast("Any", first).others] == [(SECOND, 7)]
    assert [each.more_follow for each in cast("Any", (first, *cast("Any", first).others))] == [True, False]


@pytest.mark.parametrize(
    ("sizes", "chunks"),
    [((2 << 20, 2 << 20, 1, 5 << 20, 1, 1), [[0, 1], [2], [3], [4, 5]]), ((5 << 20, 1), [[0], [1]])],
)
@with_consumer
async def test_a_chunk_is_limited_in_bytes_and_a_larger_record_is_alone(
    consumer: FakeBroker, sizes: tuple[int, ...], chunks: list[list[int]]
) -> None:
    consumer.fetched = {FIRST: [FakeRecord(at, serialized_value_size=size) for at, size in enumerate(sizes)]}
    got = await chunks_of(consumer)
    assert [[record.offset for record in message.value] for _, message in got] == chunks
    assert [message.offset for _, message in got] == [offsets[-1] for offsets in chunks]


@with_consumer
async def test_faust_commits_nothing_by_itself(consumer: FakeBroker) -> None:
    consumer.fetched = {FIRST: [FakeRecord(0), FakeRecord(1)]}
    [(_, message)] = await chunks_of(consumer)
    # What Faust does with a message that a stream skips around a rebalance.
    message.incref()
    message.ack(consumer)
    consumer.done(message)
    await consumer.commit()
    assert consumer.committed == {}


@with_consumer
async def test_the_position_follows_done_records_and_earlier_ones_are_dropped(consumer: FakeBroker) -> None:
    consumer.fetched = {FIRST: [FakeRecord(0), FakeRecord(1)], SECOND: [FakeRecord(5, partition=1)]}
    (_, first), (_, second) = await chunks_of(consumer)
    assert consumer.new_records(first, first.value) == first.value
    assert consumer.new_records(first, first.value) == [], "it is under way"
    consumer.done(first)
    assert consumer.position_of(FIRST) == 2
    consumer.app.consumer_generation_id = first.generation_id = second.generation_id = 2
    again: Any = [FakeRecord(1), FakeRecord(2)]
    assert [record.offset for record in consumer.new_records(first, again)] == [2]
    assert consumer.new_records(second, second.value) == second.value


@with_consumer
async def test_records_in_progress_are_dropped_when_fetched_again_in_other_chunks(consumer: FakeBroker) -> None:
    """As after a rebalance that changes nothing: it is under way, and would be processed twice."""

    accepted: list[int] = []
    for first, behind in ((0, 10), (10, 20), (0, 5), (5, 25), (25, 26)):
        consumer.fetched = {FIRST: [FakeRecord(offset) for offset in range(first, behind)]}
        [(_, message)] = await chunks_of(consumer)
        accepted += [each.offset for each in consumer.new_records(message, message.value)]
    assert accepted == list(range(26))


@with_consumer
async def test_records_from_before_a_rebalance_are_dropped_in_the_same_generation(consumer: FakeBroker) -> None:
    """As when a follower joins again and nothing changes. Taken, it would hide the chunks in front of it.

    Those were left out while the flow was stopped, and come again; this one waited on its way to the agent.
    """

    consumer.fetched = {FIRST: [FakeRecord(0)]}
    [(_, left_out)] = await chunks_of(consumer)
    consumer.fetched = {FIRST: [FakeRecord(1)]}
    [(_, waited)] = await chunks_of(consumer)
    consumer.stop_flow()
    assert consumer.new_records(left_out, left_out.value) == []
    consumer.resume_flow()
    assert not consumer.is_current(waited), "for the inboxes"
    assert consumer.new_records(waited, waited.value) == []
    await chunks_of(consumer)
    consumer.fetched = {FIRST: [FakeRecord(0), FakeRecord(1)]}
    [(_, again)] = await chunks_of(consumer)
    assert [each.offset for each in consumer.new_records(again, again.value)] == [0, 1]


@with_consumer
async def test_a_chunk_of_an_earlier_generation_moves_no_position(consumer: FakeBroker) -> None:
    consumer.fetched = {FIRST: [FakeRecord(0)]}
    [(_, message)] = await chunks_of(consumer)
    consumer.app.consumer_generation_id = 2
    assert consumer.new_records(message, message.value) == []
    consumer.done(message)
    assert consumer.position_of(FIRST) == 0


@with_consumer
async def test_a_position_is_forgotten_with_its_partition(consumer: FakeBroker) -> None:
    consumer.fetched = {FIRST: [FakeRecord(0)], SECOND: [FakeRecord(0, partition=1)]}
    for _, message in await chunks_of(consumer):
        consumer.done(message)
    await consumer.on_partitions_revoked({FIRST})
    assert (consumer.position_of(FIRST), consumer.position_of(SECOND)) == (0, 1)


@with_consumer
async def test_a_chunk_that_ends_after_a_revocation_moves_no_position(consumer: FakeBroker) -> None:
    """The rebalance waits for it no longer, and another worker was further meanwhile."""

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


@with_consumer
async def test_records_fetched_while_a_rebalance_begins_are_dropped_and_sought(consumer: FakeBroker) -> None:
    consumer.fetched = {FIRST: [FakeRecord(0)]}
    consumer.while_polling = consumer.stop_flow
    assert await chunks_of(consumer) == []
    assert consumer.sought == 1


@with_consumer
async def test_the_next_poll_runs_while_chunks_are_passed_on(consumer: FakeBroker) -> None:
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


def _rebalance(consumer: FakeBroker) -> None:
    consumer.stop_flow()
    consumer.resume_flow()


def _generation(consumer: FakeBroker) -> None:
    consumer.app.consumer_generation_id += 1


@pytest.mark.parametrize("overtake", [_rebalance, _generation, ChunkConsumer.perform_seek])
@with_consumer
async def test_records_polled_before_a_rebalance_or_seek_are_dropped_and_sought(
    consumer: FakeBroker, overtake: Callable[[FakeBroker], Any]
) -> None:
    """It may be after the present position, whose records would then count as already under way."""

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


@with_consumer
async def test_an_error_of_the_poll_ahead_is_raised_by_the_next_poll(consumer: FakeBroker) -> None:
    def fails() -> None:
        raise ConsumerStoppedError

    consumer.fetched = {FIRST: [FakeRecord(0)]}
    async for _ in consumer.getmany(1.0):
        consumer.while_polling = fails
    with pytest.raises(ConsumerStoppedError):
        await chunks_of(consumer)


@with_consumer
async def test_polled_records_that_are_not_done_are_not_passed(consumer: FakeBroker) -> None:
    """It may wait after the chunk in progress, and must not count as done."""

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


@with_consumer
async def test_a_rebalance_waits_for_the_chunk_in_progress(consumer: FakeBroker) -> None:
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


@with_consumer
async def test_a_position_has_the_time_of_the_last_done_record(consumer: FakeBroker) -> None:
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


async def drained(consumer: FakeBroker, callback: Callable[[Any], Awaitable[object]]) -> None:
    """What the next poll gives is handed to ``callback``; then the fetcher stops."""
    fetcher, loose = SimpleNamespace(should_stop=False), cast("Any", consumer)

    async def hand_on(first: Any) -> None:
        fetcher.should_stop = True
        await callback(first)

    loose.callback = hand_on
    async with asyncio.timeout(60):
        await loose._drain_messages(fetcher)


@pytest.mark.parametrize("suspended", [False, True])
@with_consumer
async def test_a_message_waits_for_room_until_the_flow_is_suspended(consumer: FakeBroker, *, suspended: bool) -> None:
    room, ends = asyncio.Event(), list[str]()
    frees = consumer.stop_flow if suspended else room.set

    async def hand_on(_: Any) -> None:
        asyncio.get_running_loop().call_later(0.01, frees)
        try:
            await room.wait()
        except asyncio.CancelledError:
            ends.append("abandoned")
            raise
        ends.append("handed on")

    consumer.fetched = {FIRST: [FakeRecord(3)]}
    await drained(consumer, hand_on)
    await asyncio.sleep(0)
    assert ends == ["abandoned" if suspended else "handed on"]


@pytest.mark.parametrize("turns", [0, 3])
@with_consumer
async def test_an_error_of_a_message_callback_is_raised(consumer: FakeBroker, turns: int) -> None:
    async def hand_on(_: Any) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise ValueError("refused")

    consumer.fetched = {FIRST: [FakeRecord(3)]}
    with pytest.raises(ValueError, match="refused"):
        await drained(consumer, hand_on)


@with_consumer
async def test_nothing_is_polled_during_a_rebalance(consumer: FakeBroker) -> None:
    consumer.stop_flow()
    consumer.fetched = {FIRST: [FakeRecord(0)]}
    getting = asyncio.create_task(chunks_of(consumer))
    for _ in range(5):
        await asyncio.sleep(0)
    assert (consumer.polls, getting.done()) == (0, False)
    consumer.resume_flow()
    [(_, message)] = await getting
    assert message.offset == 0
