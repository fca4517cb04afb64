"""Group commit: one transaction of a worker at a time, with the results of all chunks that wait.

A transaction takes some milliseconds even if it is small, and ``read_committed`` readers wait for the oldest open one.
So chunks of all partitions share it: during one transaction, the next chunks are folded for the one after it. With
little load, a single event is a transaction of its own, at once.

The positions in the events are part of the transaction, with the group's metadata. The group's coordinator refuses them
from a member whose generation is over, and the whole transaction fails. So the effects of an event and the position
after it become visible together or not at all, and a worker that was away too long writes nothing. The changelogs store
the positions too: see ``streams.transactions.positions``.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from confluent_kafka import TopicPartition

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.engine.joint_producer import JointProducer
from taskbridge.streams.engine.transaction_requests import Membership, Sent
from taskbridge.streams.records import EncodedRecords, PythonRecords
from taskbridge.streams.transactions.positions import POSITION_KEY, RecordedPosition, write_metadata, write_position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from faust.types import TP

    from taskbridge.streams.records import RecordWithHeaders
    from taskbridge.streams.transactions.positions import SourceTopic

_RECORDS = 20_000
_BYTES = 32 << 20
"""Maximum size of a transaction; a larger submission has one of its own."""
_LINGER_RECORDS = 100
"""Maximum number of records that wait for more: they take less time to fold than a transaction takes."""
_LINGER_S = 0.002
"""The chunks of a poll begin within a few turns of the loop; later ones are not waited for.

Two transactions of one record each, one after the other, take twice as long as one of both. During a transaction
nothing lingers, because all that arrives meanwhile shares the next one.
"""
_CLOSE_S = 2
_PRODUCERS = 2

log = structlog.get_logger(__name__)


class Overtaken(OperatorError):
    """A rebalance came first: nothing was written, and the new owner of the partition repeats the work."""


class Batch(NamedTuple):
    topic: str
    records: Sequence[RecordWithHeaders]
    partition: int = -1
    """-1: that of each record's key."""


@dataclass(slots=True, eq=False)
class Submission:
    source: TP
    next_offset: int
    batches: Sequence[Batch]
    member: Membership
    done: asyncio.Future[list[int]]
    sent: list[Sent] = field(default_factory=list[Sent])
    records: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        # Counted here, so that what cannot be counted fails in its caller.
        self.records = sum(len(batch.records) for batch in self.batches)
        self.size = sum(
            (batch.records if isinstance(batch.records, EncodedRecords) else PythonRecords(batch.records)).value_bytes
            for batch in self.batches
        )


@dataclass(eq=False)
class GroupCommit:
    """A thread commits what waits, so that the next transaction need not wait until a fold has ended.

    Two producers alternate: Kafka ends a transaction some milliseconds after it decided the commit. Until then the same
    producer's next one is refused.
    """

    config: Mapping[str, Any]
    name: str
    membership: Callable[[], Membership | None]
    source_topic: SourceTopic

    def __post_init__(self) -> None:
        self.after_loss: dict[TP, bool] = {}
        self._producers: list[JointProducer] = []
        self._waiting: queue.SimpleQueue[Sequence[Submission] | None] = queue.SimpleQueue()
        self._lingering: list[Submission] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_under_way = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)

    def claim(self) -> None:
        """Abort what a former process of this worker left open, and fence it. Blocks; further calls do nothing.

        Raises:
            KafkaException: Kafka does not answer, or refuses.
        """
        if not self._producers:
            self._producers = claim_producers(self.config, self.name)
            self._thread.start()

    def submit(
        self, source: TP, next_offset: int, batches: Sequence[Batch], *, generation: int, more_follow: bool = False
    ) -> asyncio.Future[list[int]]:
        """Return a future that is done once the records and the position ``next_offset`` in ``source`` are committed.

        Submissions are committed in order, or together. The result has the offset of each batch's last record, if all
        its records are for one partition; -1 if there are none. ``generation`` is that of their chunk; records without
        a chunk go with the current position. With ``more_follow``, a few records wait up to two milliseconds for the
        rest of their poll, to share a transaction with it.

        Raises:
            Overtaken: the generation is over; nothing was begun.
            Fenced: Kafka refused it, because another worker has the partitions. The worker must stop.
            DeliveryFailed: it failed otherwise, and may have been written. The worker must stop.
        """
        if self._failure is not None:
            raise self._failure
        membership = self.membership()
        if membership is None or membership.generation != generation:
            raise Overtaken(f"{source.topic}, partition {source.partition}: a rebalance overtook a chunk")
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        submission = Submission(source, next_offset, batches, membership, done)
        self._lingering.append(submission)
        if not more_follow or self._is_under_way or sum(each.records for each in self._lingering) > _LINGER_RECORDS:
            self._pass_on()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LINGER_S, self._pass_on)
        return submission.done

    async def close(self) -> None:
        """Wait a limited time for the current transaction. Chunks that are not committed are read again."""
        if self._thread.is_alive():
            self._waiting.put(None)
            await asyncio.to_thread(self._thread.join, _CLOSE_S)

    def _pass_on(self) -> None:
        """Hand what lingers to the thread, as one: the thread might otherwise separate it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lingering, self._lingering = self._lingering, []
        self._waiting.put(lingering)

    def _run(self) -> None:
        turn = 0
        for submissions in self._groups():
            if self._failure is None:
                self._failure = self._perform(turn, submissions)
                turn = (turn + 1) % _PRODUCERS
            with suppress(RuntimeError):  # the loop is closed: nothing waits any more
                submissions[0].done.get_loop().call_soon_threadsafe(self._resolve, submissions, self._failure)
        _close(self._producers)

    def _groups(self) -> Iterator[list[Submission]]:
        """What waits, up to the limits and of one generation of the group. Blocks until ``close``."""
        group, records, size = list[Submission](), 0, 0
        while (together := self._waiting.get()) is not None:
            self._is_under_way = True
            for submission in together:
                records += submission.records
                size += submission.size
                if group and (records > _RECORDS or size > _BYTES or submission.member != group[0].member):
                    yield group
                    group, records, size = [], submission.records, submission.size
                group.append(submission)
            if self._waiting.empty():
                yield group
                group, records, size = [], 0, 0
                self._is_under_way = False
        if group:
            yield group

    def _perform(self, turn: int, submissions: Sequence[Submission]) -> BaseException | None:
        producer, topic = self._producers[turn], self.source_topic
        try:
            with producer.transaction():
                for submission in submissions:
                    submission.sent = [
                        producer.send(batch.topic, batch.records, partition=batch.partition)
                        if batch.records
                        else Sent()
                        for batch in submission.batches
                    ]
                reached = {
                    each.source: RecordedPosition(
                        topic.source_id, each.next_offset, self.after_loss.get(each.source, False)
                    )
                    for each in submissions
                }
                write_positions(producer, reached, topic, owner=self.name, member=submissions[0].member)
        except BaseException as error:  # the chunks wait for any outcome
            log.exception("group_commit_failed", chunks=len(submissions))
            return error
        return None

    @staticmethod
    def _resolve(submissions: Sequence[Submission], failure: BaseException | None) -> None:
        for submission in submissions:
            if submission.done.done():  # cancelled
                continue
            if failure is None:
                submission.done.set_result([each.last_offset for each in submission.sent])
            else:
                submission.done.set_exception(failure)
                submission.done.exception()  # the first failure is raised; asyncio need not log the others


def write_positions(
    producer: JointProducer,
    positions: Mapping[TP, RecordedPosition],
    source_topic: SourceTopic,
    *,
    owner: str,
    member: Membership,
) -> None:
    """Add positions to the transaction, after the records that they follow: in the changelog, and as committed offsets.

    The offsets' metadata name the owner, for ``Takeover``, and the lineage: a worker notices lost topics at its start.
    """
    metadata = write_metadata(owner, source_topic.lineage)
    for source, position in positions.items():
        value = write_position(position)
        producer.send(source_topic.changelog, [(POSITION_KEY, value, [])], partition=source.partition)
    offsets = [TopicPartition(*source, position.offset, metadata) for source, position in positions.items()]
    producer.add_offsets(offsets, member)


def claim_producers(config: Mapping[str, Any], name: str) -> list[JointProducer]:
    """Claim the producers of the worker with this name: former ones are fenced, and their transactions aborted. Blocks.

    Raises:
        KafkaException: Kafka does not answer, or refuses.
    """
    producers = [JointProducer(config, f"{name}-{number}") for number in range(_PRODUCERS)]
    try:
        with ThreadPoolExecutor(len(producers)) as pool:
            for claim in [pool.submit(producer.claim) for producer in producers]:
                claim.result()
    except BaseException:
        _close(producers)
        raise
    return producers


def fence(config: Mapping[str, Any], name: str) -> None:
    _close(claim_producers(config, name))


def _close(producers: list[JointProducer]) -> None:
    while producers:
        producers.pop().close()
