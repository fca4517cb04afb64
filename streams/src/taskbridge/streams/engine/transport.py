"""Faust's transport, which delivers chunks of records to agents instead of single records.

Faust spends about 230 µs on a record (fetch, wrap, queue, resume the agent, ack). Here this is spent once per poll and
topic. Faust finds this module by the scheme ``chunks://`` of the broker's URL, an entry point in the group
``faust.transports``. It delivers only ``chunk_topics``; ``streams.tables.changelog_reader`` reads the changelogs.

It never commits: ``streams.transactions.group_commit`` commits positions in the transaction with the results.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import ConsumerMessage

from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS
from taskbridge.streams.engine.consumer_thread import ConsumerThread, RebalanceListener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator, Sequence

    from faust.types import TP, Message

    from taskbridge.streams.records import Chunk
    from taskbridge.streams.transactions.bulk_producer import Membership

_BYTES = 4 << 20
"""Of values in a chunk. What comes of it waits in the producer, and some chunks more wait for the agent."""


class ChunkMessage(ConsumerMessage):
    """Its value is the list of records."""

    era: int
    """Of the consumer, when they were fetched: after a seek they come again."""
    more_follow: bool = False
    """Other chunks came by the same poll, and are behind this one."""
    others: Sequence[ChunkMessage] = ()
    """The topic's other chunks of the poll. Faust knows nothing of them: it has one message of each topic in a poll."""


def chunks(tp: TP, records: list[Any], generation: int, era: int) -> Iterator[ChunkMessage]:
    """The records in their order, in chunks of at most ``_BYTES``, or of one record where that alone is more."""
    begin, size = 0, 0
    for at, record in enumerate(records):
        size += record.serialized_value_size
        if size > _BYTES and at > begin:
            yield _message(tp, records[begin:at], generation, era)
            begin, size = at, record.serialized_value_size
    yield _message(tp, records[begin:], generation, era)


def _message(tp: TP, records: list[Any], generation: int, era: int) -> ChunkMessage:
    last = records[-1]
    message = ChunkMessage(
        topic=tp.topic,
        partition=tp.partition,
        offset=last.offset,
        timestamp=last.timestamp / 1000.0,
        timestamp_type=last.timestamp_type,
        headers=[],
        key=None,
        value=cast("Any", records),
        checksum=None,
        tp=tp,
        # Without it Faust takes the message for one of an earlier assignment and drops it.
        generation_id=generation,
    )
    message.era = era
    return message


_POLL_S = 1.0
_LAST_CHUNK_S = 20.0
"""How long a rebalance waits for the chunk in work. Afterwards it is left to the partition's new owner."""


class Position(NamedTuple):
    """Where the next record stands, and the time of the last one that was processed, or of the first that waits."""

    offset: int
    timestamp: float | None


class _Polled(NamedTuple):
    """What one poll gave, and what was true when it began."""

    records: dict[TP, list[Any]]
    active: set[TP] | None
    generation: int
    era: int


class ChunkConsumer(driver.Consumer):
    """Yields one message for each topic of a poll: the first of its chunks, which has the others.

    Faust commits nothing. The topics are declared without its acks: those also count a message that a stream skipped
    around a rebalance, and fill up the offsets of a whole fetched chunk as a gap, so that a commit could pass records
    that nobody had processed.
    """

    RebalanceListener = RebalanceListener
    chunk_topics: ClassVar[frozenset[str]] = frozenset({TASK_EVENTS.name, TASK_NOTIFICATIONS.name})

    def on_init(self) -> None:
        self.membership: Membership | None = None
        """What the group knows this worker by since the last rebalance."""
        self._taken: dict[TP, tuple[int, int]] = {}
        self._done: dict[TP, int] = {}
        self._reached_at: dict[TP, float] = {}
        """The time of the last record that is done; until one is, of the first that was fetched."""
        self.is_leaving = False
        """A rebalance has begun: what is in work now is waited for, and nothing else."""
        self._era = 0
        """Grows with every stop of the flow and every seek: what was polled before may not be what comes next."""
        self._ahead: asyncio.Task[_Polled | None] | None = None
        """The next poll, under way while the chunks of the last one are folded."""
        self._at_work = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def joined(self, membership: Membership) -> None:
        """A rebalance has come: so the group knows this worker from now on."""
        self.membership = membership

    @contextmanager
    def working(self) -> Generator[None]:
        """While a chunk is in work; a rebalance waits for the end of all of them."""
        self._at_work += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._idle.set()

    def done(self, message: Message) -> None:
        """The chunk is committed and stored."""
        if message.generation_id == self.app.consumer_generation_id:
            self._done[message.tp] = message.offset + 1
            self._reached_at[message.tp] = message.timestamp

    @property
    def positions(self) -> dict[TP, Position]:
        """How far each partition of chunks is processed."""
        return {
            tp: Position(self._reached(tp), self._reached_at.get(tp))
            for tp in self.assignment()
            if tp.topic in self.chunk_topics
        }

    def _reached(self, tp: TP) -> int:
        position = self.position_of(tp)
        thread = cast("ConsumerThread", self._thread)
        # Asked first: a poll that ends in the meantime in the other thread moves it, and tells what it polled.
        fetched = thread.fetch_position(tp)
        if position < thread.polled.get(tp, 0):
            return position
        # Behind the last record there may be the ends of transactions, which are no records and never come as such.
        return max(position, fetched)

    def position_of(self, tp: TP) -> int:
        """Of the first record that is not done yet."""
        return self._done.get(tp) or self._committed_offset[tp] or 0

    def is_current(self, message: ChunkMessage) -> bool:
        """Whether nothing has begun since the chunk was fetched that makes it come again.

        What a rebalance does not wait for must not begin: it would be refused, and its store may be closed by then. Nor
        what was fetched before one that has left the generation as it was: chunks in front of it were left out, and
        come again behind it.
        """
        return self._is_current(message.era, message.generation_id)

    def _is_current(self, era: int, generation: int | None) -> bool:
        return self.flow_active and (era, generation) == (self._era, self.app.consumer_generation_id)

    def take(self, message: ChunkMessage, records: Chunk) -> Chunk:
        """Those records of a chunk that were not taken before; none where it comes again.

        A rebalance that changes nothing makes records come again that are done, or under way, already.
        """
        if not self.is_current(message):
            return []
        tp, generation = message.tp, message.generation_id
        assert generation is not None
        taken_in, taken = self._taken.get(tp, (generation, 0))
        if taken_in != generation:
            taken = 0
        self._taken[tp] = (generation, max(taken, message.offset + 1))
        position = max(self.position_of(tp), taken)
        return records if records[0].offset >= position else [each for each in records if each.offset >= position]

    async def wait_empty(self) -> None:
        await super().wait_empty()
        if cast("Any", self.app).crashed:
            return
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), _LAST_CHUNK_S)

    async def on_stop(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
        await super().on_stop()

    def stop_flow(self) -> None:
        self._era += 1
        super().stop_flow()

    async def perform_seek(self) -> None:
        """Back to what is committed. Where a rebalance overtakes it, the next assignment begins there by itself."""
        try:
            with suppress(IllegalStateError):
                await super().perform_seek()
        finally:
            self._era += 1

    def skip_nothing(self) -> None:
        """From here on, what the topic no longer has is an error: a restart says what is missing."""
        cast("ConsumerThread", self._thread).let_skip(may=False)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.is_leaving = False
        # What was still in work when the partition was revoked may have ended since.
        self._forget(assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.is_leaving = True
        await super().on_partitions_revoked(revoked)
        self._forget(revoked)

    def _forget(self, partitions: set[TP]) -> None:
        for tp in partitions:
            self._done.pop(tp, None)
            self._reached_at.pop(tp, None)
            cast("ConsumerThread", self._thread).polled.pop(tp, None)

    async def verify_all_partitions_active(self) -> None:
        """Nothing: it would miss fetches of changelogs. Whether there is progress is the watchdog's business."""

    def _new_consumer_thread(self) -> Any:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:  # noqa: ARG002 - overridden
        """Nothing is left to Faust to commit."""
        return iter(())

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - overridden
        ahead, self._ahead = self._ahead, None
        polled = await (ahead or self._poll(timeout))
        if polled is None or self.should_stop:
            return
        if not self._is_current(polled.era, polled.generation):
            # A rebalance has begun, or went by: what was fetched is dropped, so that the position must go back to what
            # was committed. What comes again although it is done, or under way, is known by its offset (``take``).
            await self.perform_seek()
            return
        self._ahead = asyncio.create_task(self._poll(timeout))
        # Where nobody comes for it any more, there is nothing to complain of.
        self._ahead.add_done_callback(lambda task: task.cancelled() or task.exception())
        messages = list(self._messages(polled))
        for message in messages[:-1]:
            message.more_follow = True
        by_topic: dict[str, list[ChunkMessage]] = {}
        for message in messages:
            by_topic.setdefault(message.topic, []).append(message)
        for first, *others in by_topic.values():
            if not self._is_current(polled.era, polled.generation):
                return
            first.others = others
            yield first.tp, first

    async def _drain_messages(self, fetcher: Any) -> None:
        """Hands on what is polled, until the consumer or this fetcher of Faust's stops.

        Faust's own looks each message's offset up first, which ``take`` does, and makes four tasks for each.
        """
        try:
            while not (self.should_stop or fetcher.should_stop):
                async for _, message in self.getmany(_POLL_S):
                    await self._hand_on(message)
        except (asyncio.CancelledError, *self.consumer_stopped_errors):
            if not self.transport.app.should_stop:
                raise

    async def _hand_on(self, message: Message) -> None:
        """To its agent. Where that has no room, it is waited for, unless the flow is suspended meanwhile."""
        handing: asyncio.Future[None] = asyncio.ensure_future(cast("Any", self.callback(message)))
        try:
            await asyncio.sleep(0)
            if handing.done():
                handing.result()
            else:
                await self.wait_first(handing, self.suspend_flow.wait())
        finally:
            handing.cancel()

    def _messages(self, polled: _Polled) -> Iterator[ChunkMessage]:
        for tp, records in polled.records.items():
            is_ours = polled.active is None or tp in polled.active or tp in self._buffered_partitions
            if records and is_ours and tp.topic in self.chunk_topics:
                self._reached_at.setdefault(tp, records[0].timestamp / 1000)
                yield from chunks(tp, records, polled.generation, polled.era)

    async def _poll(self, timeout: float) -> _Polled | None:  # noqa: ASYNC109 - as Faust has it
        """The records that come next; None where there are none, or none yet."""
        if not self.flow_active:
            await self.wait(cast("Any", self.can_resume_flow))
        generation, era = self.app.consumer_generation_id, self._era
        fetched, active = await self._wait_next_records(timeout)
        return _Polled(cast("Any", fetched), active, generation, era) if fetched else None


class Transport(driver.Transport):
    Consumer = ChunkConsumer
