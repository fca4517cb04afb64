"""Group commit: one transaction of a worker at a time, with the results of all chunks that wait.

A transaction takes some milliseconds whatever it contains, and ``read_committed`` readers wait for the oldest open one.
So chunks of all partitions share it: during one transaction, the next chunks are folded for the one after it. With
little load, a single event is a transaction of its own, at once.

The positions in the events are part of the transaction, with the group's metadata. The group's coordinator refuses them
from a member whose generation is over, and the whole transaction fails. So the effects of an event and the position
after it become visible together or not at all, and a worker that was away too long writes nothing. The changelogs store
the positions too: see ``streams.positions``.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog
from confluent_kafka import KafkaException, TopicPartition

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.positions import POSITION_KEY, KeptPosition, write_metadata, write_position
from taskbridge.streams.records import EncodedRecords, PythonRecords
from taskbridge.streams.transactions.bulk_producer import (
    BulkProducer,
    Membership,
    OffsetsNotTaken,
    Sent,
    group_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from faust.types import TP

    from taskbridge.streams.positions import Ground
    from taskbridge.streams.records import RecordWithHeaders


class TransactionalProducer(Protocol):
    """What ``BulkProducer`` says of each of these."""

    def claim(self) -> None: ...
    def begin(self) -> None: ...
    def send(self, topic: str, records: Sequence[RecordWithHeaders], *, partition: int = -1) -> Sent: ...
    def commit(self, offsets: Sequence[TopicPartition] = (), group: bytes | None = None) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


class Batch(NamedTuple):
    """Records for one topic."""

    topic: str
    records: Sequence[RecordWithHeaders]
    partition: int = -1
    """-1: by each record's key."""


@dataclass(slots=True, eq=False)
class Delivery:
    source: TP
    next_offset: int
    batches: Sequence[Batch]
    group: bytes
    done: asyncio.Future[list[int]]
    sent: list[Sent] = field(default_factory=list[Sent])
    records: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        # Counted where they are handed over, so that what cannot be counted fails there.
        self.records = sum(len(batch.records) for batch in self.batches)
        self.size = sum(value_bytes(batch.records) for batch in self.batches)


def send(producer: TransactionalProducer, batch: Batch) -> Sent:
    return producer.send(batch.topic, batch.records, partition=batch.partition) if batch.records else Sent()


def value_bytes(records: Sequence[RecordWithHeaders]) -> int:
    return (records if isinstance(records, EncodedRecords) else PythonRecords(records)).value_bytes


def tell(deliveries: Iterable[Delivery], failure: BaseException | None) -> None:
    for delivery in deliveries:
        if delivery.done.done():  # nobody waits for it any more
            continue
        if failure is None:
            delivery.done.set_result([each.last_offset for each in delivery.sent])
        else:
            delivery.done.set_exception(failure)
            delivery.done.exception()  # the first is told; asyncio need not complain of those that nobody awaits then


_FEW = 100
"""Records that may wait for what follows: it takes less time to fold than a transaction takes."""
_FOLLOWS_WITHIN_S = 0.002
"""What a poll brought is begun within some turns of the loop; where it is not, nothing waits for it."""


class Gathering:
    """Passes deliveries on in order, at once those that waited. Few of them wait for what follows, in bounded time.

    Two transactions of one record each, one behind the other, take twice as long as one of both. While one is under way
    nothing waits here: all that comes meanwhile shares the next one.
    """

    def __init__(self, pass_on: Callable[[Sequence[Delivery]], None], *, is_under_way: Callable[[], bool]) -> None:
        self._pass_on = pass_on
        self._is_under_way = is_under_way
        self._here: list[Delivery] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, delivery: Delivery, *, more_follow: bool) -> None:
        """Called in the loop."""
        self._here.append(delivery)
        if not more_follow or self._is_under_way() or sum(each.records for each in self._here) > _FEW:
            self._end()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FOLLOWS_WITHIN_S, self._end)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # As one: who takes them is another thread, and might come between two of them.
        here, self._here = self._here, []
        self._pass_on(here)


_RECORDS = 20_000
_BYTES = 32 << 20
"""What a transaction is filled up to; a delivery that is larger has one of its own."""
_CLOSE_S = 2
_PRODUCERS = 2

log = structlog.get_logger(__name__)


class Overtaken(OperatorError):
    """A rebalance came before the end: whoever has the partition now does it again. Nothing was written."""


@dataclass(eq=False)
class GroupCommit:
    """A thread of its own takes what waits, so that the next transaction does not wait for a fold that goes on.

    Two producers take turns: Kafka finishes a transaction some milliseconds after its commit is decided, and until then
    the same producer's next one is refused; librdkafka asks again after 20 to 100 ms.
    """

    config: Mapping[str, object]
    group: str
    name: str
    """This worker's among those that share the group, the same over its restarts."""
    membership: Callable[[], Membership | None]
    grounds: Mapping[str, Ground] = field(default_factory=dict[str, "Ground"])
    """By the topic that is read: where its positions are kept too, and what is said with them."""
    make: Callable[[Mapping[str, object], str], TransactionalProducer] = BulkProducer

    def __post_init__(self) -> None:
        self.after_loss: dict[TP, bool] = {}
        """Of each source: see ``KeptPosition``."""
        self._producers: list[TransactionalProducer] = []
        self._waiting: queue.SimpleQueue[Sequence[Delivery] | None] = queue.SimpleQueue()
        self._is_under_way = False
        self._gathering = Gathering(self._waiting.put, is_under_way=lambda: self._is_under_way)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)

    def claim(self) -> None:
        """Undo what an earlier life of this worker left open, and become the only one who writes in its name. Blocks.

        Once is enough; further calls do nothing.

        Raises:
            KafkaException: Kafka does not answer, or does not allow it.
        """
        if not self._producers:
            self._producers = claimed(self.config, self.name, self.make)
            self._thread.start()

    def hand_over(
        self, source: TP, next_offset: int, batches: Sequence[Batch], *, generation: int, more_follow: bool = False
    ) -> asyncio.Future[list[int]]:
        """The future is done once these records, and the group's position ``next_offset`` in ``source``, are committed.

        What was handed over first is committed first, or together with what came later. The result has the offset of
        each batch's last record, where all of it is for one partition; -1 where there was none.
        ``generation`` is that of the chunk they come from; records that come from no chunk go with the position that
        ``source`` has already. Where ``more_follow`` at once, a few records wait for that, up to two milliseconds:
        what came by the same poll then shares a transaction, in place of two that wait for each other.

        Raises:
            Overtaken: the generation is over; nothing was begun.
            Fenced: Kafka refused it, as the partitions are another worker's by now. The worker has to stop.
            DeliveryFailed: it failed otherwise, perhaps after it was written. The worker has to stop.
        """
        if self._failure is not None:
            raise self._failure
        membership = self.membership()
        if membership is None or membership.generation != generation:
            raise Overtaken(f"{source.topic}, partition {source.partition}: a rebalance overtook a chunk")
        delivery = Delivery(
            source,
            next_offset,
            batches,
            group_metadata(self.group, membership),
            asyncio.get_running_loop().create_future(),
        )
        self._gathering.add(delivery, more_follow=more_follow)
        return delivery.done

    async def close(self) -> None:
        """Wait, within bounds, for the transaction under way. What was not committed is not done, and comes again."""
        if self._thread.is_alive():
            self._waiting.put(None)
            await asyncio.to_thread(self._thread.join, _CLOSE_S)

    def _run(self) -> None:
        turn = 0
        for deliveries in self._groups():
            if self._failure is None:
                self._failure = self._perform(turn, deliveries)
                turn = (turn + 1) % _PRODUCERS
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                deliveries[0].done.get_loop().call_soon_threadsafe(tell, deliveries, self._failure)
        _close(self._producers)

    def _groups(self) -> Iterator[list[Delivery]]:
        """What waits, up to the bounds and of one generation of the group, until the end. Blocks."""
        group, records, size = list[Delivery](), 0, 0
        while (together := self._waiting.get()) is not None:
            self._is_under_way = True
            for delivery in together:
                records += delivery.records
                size += delivery.size
                if group and (records > _RECORDS or size > _BYTES or delivery.group != group[0].group):
                    yield group
                    group, records, size = [], delivery.records, delivery.size
                group.append(delivery)
            if self._waiting.empty():
                yield group
                group, records, size = [], 0, 0
                self._is_under_way = False
        if group:
            yield group

    def _perform(self, turn: int, deliveries: Sequence[Delivery]) -> BaseException | None:
        try:
            try:
                self._attempt(self._producers[turn], deliveries)
            except OffsetsNotTaken as error:
                log.warning("producers_replaced", problem=str(error))
            else:
                return None
            # Not within ``except``: the error holds the former producer, so that its end came in this thread.
            self._renew()
            self._attempt(self._producers[turn], deliveries)
        except BaseException as error:  # whatever it is, the chunks wait to hear of it
            log.exception("group_commit_failed", chunks=len(deliveries))
            return error
        return None

    def _attempt(self, producer: TransactionalProducer, deliveries: Sequence[Delivery]) -> None:
        producer.begin()
        try:
            for delivery in deliveries:
                delivery.sent = [send(producer, batch) for batch in delivery.batches]
            reached = {delivery.source: delivery.next_offset for delivery in deliveries}
            self._keep(producer, reached)
            producer.commit(self._offsets(reached), deliveries[0].group)
        except OffsetsNotTaken:
            raise
        except OperatorError:
            # So that nobody waits for its end. Where it was claimed or is committed, it is not ours to undo.
            with suppress(KafkaException):
                producer.abort()
            raise

    def _renew(self) -> None:
        """New producers under the same names: what the former ones have open is undone."""
        # Not emptied meanwhile: ``claim`` comes from another thread.
        former, self._producers = self._producers, claimed(self.config, self.name, self.make)
        # Their ends may take long, and nothing waits for them.
        threading.Thread(target=_close, args=(former,), name="former-producers", daemon=True).start()

    def _keep(self, producer: TransactionalProducer, reached: Mapping[TP, int]) -> None:
        """The positions go to the changelogs, behind what they stand for."""
        for source, offset in reached.items():
            if (ground := self.grounds.get(source.topic)) is not None:
                value = write_position(KeptPosition(ground.source_id, offset, self.after_loss.get(source, False)))
                producer.send(ground.changelog, [(POSITION_KEY, value, [])], partition=source.partition)

    def metadata(self, topic: str) -> str:
        """What stands beside this worker's positions in a topic.

        The name says who may have something open for this partition: see ``streams.transactions.takeover``.
        """
        ground = self.grounds.get(topic)
        return write_metadata(self.name, None if ground is None else ground.mark)

    def _offsets(self, reached: Mapping[TP, int]) -> list[TopicPartition]:
        return [
            TopicPartition(source.topic, source.partition, offset, self.metadata(source.topic))
            for source, offset in reached.items()
        ]


def claimed(
    config: Mapping[str, object],
    name: str,
    make: Callable[[Mapping[str, object], str], TransactionalProducer] = BulkProducer,
) -> list[TransactionalProducer]:
    """The producers of the worker of that name. Whoever had them can write no more, and what they had open is undone.

    Blocks.

    Raises:
        KafkaException: Kafka does not answer, or does not allow it.
    """
    producers = [make(config, f"{name}-{number}") for number in range(_PRODUCERS)]
    try:
        # Side by side: each waits up to half a second for librdkafka's timers.
        with ThreadPoolExecutor(len(producers)) as pool:
            for claim in [pool.submit(producer.claim) for producer in producers]:
                claim.result()
    except BaseException:
        _close(producers)
        raise
    return producers


def _close(producers: list[TransactionalProducer]) -> None:
    while producers:
        producers.pop().close()
