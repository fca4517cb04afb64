"""Faust's transport, which delivers chunks of records to agents instead of single records.

Faust spends about 230 µs on a record (fetch, wrap, queue, resume the agent, ack). Here this is spent once per
poll. Faust finds this module by the scheme ``chunks://`` of the broker's URL, an entry point in the group
``faust.transports``. It delivers only events; ``streams.tables.changelog_reader`` reads the changelogs.

It never commits: ``streams.transactions.group_commit`` commits positions in the transaction with the results.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, Message

from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.engine.consumer_thread import ConsumerThread, RebalanceListener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator, Sequence

    from taskbridge.streams.engine.transaction_requests import Membership
    from taskbridge.streams.records import Chunk

_CHUNK_BYTES = 4 << 20
"""Maximum size of the values in a chunk. Its results wait in the producer, and a few more chunks for the agent."""
_POLL_S = 1.0
_LAST_CHUNK_S = 20.0
"""How long a rebalance waits for chunks in progress; afterwards the partition's new owner repeats them."""


class ChunkMessage(ConsumerMessage):
    era: int
    """The consumer's era at the fetch: after a seek, the records are fetched again."""
    more_follow: bool = False
    others: Sequence[ChunkMessage] = ()
    """The other chunks of the poll, which Faust does not see: it gets one message per poll."""


def chunks(tp: TP, records: list[Any], generation: int, era: int) -> Iterator[ChunkMessage]:
    """The records in their order, in chunks of at most ``_CHUNK_BYTES``, or of a single larger record."""
    begin, size = 0, 0
    for at, record in enumerate(records):
        size += record.serialized_value_size
        if size > _CHUNK_BYTES and at > begin:
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
        # Without it, Faust drops the message as one of an earlier assignment.
        generation_id=generation,
    )
    message.era = era
    return message


class Position(NamedTuple):
    """The offset of the next record; the time of the last processed one, or else of the first that waits."""

    offset: int
    timestamp: float | None


class _Polled(NamedTuple):
    records: dict[TP, list[Any]]
    active: set[TP] | None
    generation_id: int
    era: int


class ChunkConsumer(driver.Consumer):
    """Yields one message for each poll: its first chunk, which references the others.

    Faust commits nothing, and the topics are declared without its acks. Those would also count a message that a stream
    skipped during a rebalance, and treat the offsets of a fetched chunk as a gap: a commit could pass records that were
    never processed.
    """

    RebalanceListener = RebalanceListener

    def on_init(self) -> None:
        self.membership: Membership | None = None
        self._accepted: dict[TP, tuple[int, int]] = {}
        """The generation in which chunks were accepted, and the offset after the last one."""
        self._done: dict[TP, int] = {}
        self._reached_at: dict[TP, float] = {}
        """Time of the last record that is done, or else of the first that was fetched."""
        self.is_leaving = False
        """A rebalance has begun: it waits for chunks in progress, and for nothing else."""
        self._era = 0
        """Increases with each stop of the flow and each seek, after which polled records may not be the next ones."""
        self._ahead: asyncio.Task[_Polled | None] | None = None
        self._at_work = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def joined(self, membership: Membership) -> None:
        self.membership = membership

    @contextmanager
    def working(self) -> Generator[None]:
        self._at_work += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._idle.set()

    def done(self, message: Message) -> None:
        if message.generation_id == self.app.consumer_generation_id:
            self._done[message.tp] = message.offset + 1
            self._reached_at[message.tp] = message.timestamp

    @property
    def positions(self) -> dict[TP, Position]:
        return {
            tp: Position(self._reached(tp), self._reached_at.get(tp))
            for tp in self.assignment()
            if tp.topic == TASK_EVENTS.name
        }

    def _reached(self, tp: TP) -> int:
        position = self.position_of(tp)
        thread = cast("ConsumerThread", self._thread)
        # Read first: a poll that ends meanwhile in the other thread moves it, and then sets ``polled``.
        fetched = thread.fetch_position(tp)
        if position < thread.polled.get(tp, 0):
            return position
        # After the last record there may be ends of transactions, which are never fetched as records.
        return max(position, fetched)

    def position_of(self, tp: TP) -> int:
        return self._done.get(tp) or self._committed_offset[tp] or 0

    def is_current(self, fetched: ChunkMessage | _Polled) -> bool:
        """Whether the records are not fetched again because of something that happened since their fetch.

        A chunk must not begin if a rebalance does not wait for it: its commit would be refused, and its store may be
        closed. The same holds for a chunk that was fetched before a rebalance that kept the generation: chunks before
        it were dropped, and are fetched again.
        """
        return self.flow_active and (fetched.era, fetched.generation_id) == (
            self._era,
            self.app.consumer_generation_id,
        )

    def new_records(self, message: ChunkMessage, records: Chunk) -> Chunk:
        """The records of a chunk that were not accepted before; none if the chunk is fetched again.

        After a rebalance that changes nothing, records are fetched again that are done or in progress.
        """
        if not self.is_current(message):
            return []
        tp, generation = message.tp, message.generation_id
        assert generation is not None
        accepted_in, accepted = self._accepted.get(tp, (generation, 0))
        if accepted_in != generation:
            accepted = 0
        self._accepted[tp] = (generation, max(accepted, message.offset + 1))
        position = max(self.position_of(tp), accepted)
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
        """Seek to the committed positions. If a rebalance comes first, the next assignment begins there anyway."""
        try:
            with suppress(IllegalStateError):
                await super().perform_seek()
        finally:
            self._era += 1

    def forbid_skipping(self) -> None:
        """From now on, an offset that the topic no longer has is an error; a restart logs what is missing."""
        cast("ConsumerThread", self._thread).allow_skipping(may=False)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.is_leaving = False
        # Chunks that were in progress when the partition was revoked may have ended since.
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
        """Does nothing: it would miss fetches of changelogs, and the watchdog monitors progress."""

    def _new_consumer_thread(self) -> Any:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:  # noqa: ARG002 - overridden
        """Nothing: Faust commits nothing."""
        return iter(())

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - overridden
        ahead, self._ahead = self._ahead, None
        polled = await (ahead or self._poll(timeout))
        if polled is None or self.should_stop:
            return
        if not self.is_current(polled):
            # A rebalance has begun or ended: the records are dropped, so the position must be the committed one again.
            # ``new_records`` recognizes, by offset, records that are fetched again although done or in progress.
            await self.perform_seek()
            return
        self._ahead = asyncio.create_task(self._poll(timeout))
        # If it is never awaited, its error is ignored.
        self._ahead.add_done_callback(lambda task: task.cancelled() or task.exception())
        messages = list(self._messages(polled))
        for message in messages[:-1]:
            message.more_follow = True
        if messages:
            messages[0].others = messages[1:]
            yield messages[0].tp, messages[0]

    async def _drain_messages(self, fetcher: Any) -> None:
        """Pass polled messages on until the consumer, or this fetcher of Faust's, stops.

        Faust's own method looks up each message's offset, as ``new_records`` does, and makes four tasks for each.
        """
        try:
            while not (self.should_stop or fetcher.should_stop):
                async for _, message in self.getmany(_POLL_S):
                    await self._pass_on(message)
        except (asyncio.CancelledError, *self.consumer_stopped_errors):
            if not self.transport.app.should_stop:
                raise

    async def _pass_on(self, message: Message) -> None:
        passing: asyncio.Future[None] = asyncio.ensure_future(cast("Any", self.callback(message)))
        try:
            await asyncio.sleep(0)
            if passing.done():
                passing.result()
            else:
                await self.wait_first(passing, self.suspend_flow.wait())
        finally:
            passing.cancel()

    def _messages(self, polled: _Polled) -> Iterator[ChunkMessage]:
        for tp, records in polled.records.items():
            is_ours = polled.active is None or tp in polled.active or tp in self._buffered_partitions
            if records and is_ours and tp.topic == TASK_EVENTS.name:
                self._reached_at.setdefault(tp, records[0].timestamp / 1000)
                yield from chunks(tp, records, polled.generation_id, polled.era)

    async def _poll(self, timeout: float) -> _Polled | None:  # noqa: ASYNC109 - as Faust has it
        """The next records; None if there are none yet."""
        if not self.flow_active:
            await self.wait(cast("Any", self.can_resume_flow))
        generation, era = self.app.consumer_generation_id, self._era
        fetched, active = await self._wait_next_records(timeout)
        return _Polled(cast("Any", fetched), active, generation, era) if fetched else None


class Transport(driver.Transport):
    Consumer = ChunkConsumer
