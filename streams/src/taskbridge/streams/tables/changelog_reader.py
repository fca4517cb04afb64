"""Applies changelog partitions to the store: a thread of its own reads in bulk and writes by the batch.

A restoration ends at an offset; a standby continues until it is stopped. Faust's consumer is a member of the group for
these partitions, and never fetches from them.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from taskbridge.runtime.kafka import LIBRDKAFKA
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from taskbridge.streams.tables.store import Store

_BATCH_MAX = 10_000
_BATCH_FIRST = 500
_BATCH_BYTES = 8 << 20
_WAIT_S = 0.1
_FAILURES = (
    KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001 - librdkafka's local codes have these names
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


@dataclass(slots=True)
class Followed:
    next_offset: int
    until: int | None
    """Offset at which its restoration ends; None for a standby."""
    end: int
    done: Future[None] = field(default_factory=Future["None"])

    @property
    def remaining(self) -> int:
        return max(0, (self.end if self.until is None else self.until) - self.next_offset)


@dataclass(eq=False)
class ChangelogReader:
    """One thread, one consumer, any number of partitions. Every method may be called from any thread."""

    config: Mapping[str, object]
    topic: str
    store: Store
    on_failure: Callable[[BaseException], None]
    """Is called in the reader's thread; the worker must stop."""
    batch_bytes: int = _BATCH_BYTES

    def __post_init__(self) -> None:
        self._batch = _BATCH_FIRST
        self._followed: dict[int, Followed] = {}
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = False
        self.applied = 0
        self._consumer = Consumer(dict(self.config), logger=LIBRDKAFKA)
        self._thread = threading.Thread(target=self._run, name="changelog-reader", daemon=True)
        self._thread.start()

    @property
    def followed(self) -> dict[int, Followed]:
        return dict(self._followed)

    def follow(self, partition: int, *, start: int, end: int, standby: bool) -> Future[None]:
        """Apply the partition's records from ``start``. The future is done when all below ``end`` are applied.

        A restoration then ends, and this thread writes nothing more to the partition; a standby continues.
        """
        following = Followed(next_offset=start, until=None if standby else end, end=end)

        def begin() -> None:
            if following.next_offset >= end:
                following.done.set_result(None)
                if not standby:
                    return
            self._followed[partition] = following
            self._consumer.incremental_assign([TopicPartition(self.topic, partition, start)])

        return self._do(begin, following.done)

    def leave_all_but(self, standbys: Collection[int]) -> Future[None]:
        """Stop reading all partitions except these, if they are on standby; commands that wait are included.

        When the future is done, this thread writes nothing more to the others. A restoration of one of these is stopped
        too: otherwise it would end by itself, and leave its partition without a standby.
        """
        left: Future[None] = Future()

        def leave() -> None:
            for partition, following in list(self._followed.items()):
                if partition not in standbys or following.until is not None:
                    self._leave(partition)
            left.set_result(None)

        return self._do(leave, left)

    def close(self) -> None:
        def stop() -> None:
            self._stopping = True

        self._commands.put(stop)
        self._thread.join()

    def _do(self, command: Callable[[], None], done: Future[None]) -> Future[None]:
        """Run the command in the thread, unless ``done`` is cancelled before, as by a rebalance."""

        def run() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                command()
            except BaseException as error:
                _fail(done, error)
                raise

        self._commands.put(run)
        return done

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._run_commands()
                if self._followed:
                    self._apply(self._consumer.consume(self._batch, _WAIT_S))
            except BaseException as error:  # noqa: BLE001 - all that wait must receive it
                followed, self._followed = self._followed, {}
                for each in followed.values():
                    _fail(each.done, error)
                self.on_failure(error)
        self._consumer.close()

    def _run_commands(self) -> None:
        block = not self._followed
        while not self._stopping:
            try:
                command = self._commands.get(block=block)
            except queue.Empty:
                return
            command()
            block = not self._followed and self._commands.empty()

    def _apply(self, messages: list[Message]) -> None:
        """One write per partition: the last value of each key, and the offset that the batch reaches."""
        values: dict[int, dict[bytes, bytes | None]] = {}
        reached: dict[int, int] = {}
        size = 0
        for message in messages:
            partition = message.partition()
            assert partition is not None
            error = message.error()
            if error is not None:
                self._note(error, partition, message.offset(), reached)
                continue
            reached[partition] = message.offset() + 1  # pyright: ignore[reportOptionalOperand]
            size += len(message)
            values.setdefault(partition, {})[message.key()] = message.value()  # pyright: ignore[reportArgumentType]
        if size:
            self._batch = max(1, min(_BATCH_MAX, self.batch_bytes * len(messages) // size))
        self.applied += len(messages)
        for partition, next_offset in reached.items():
            following = self._followed.get(partition)
            if following is not None:
                self.store.write_chunk(partition, values.get(partition, {}), changelog_offset=next_offset - 1)
                self._advance(partition, following, next_offset)

    def _note(self, error: KafkaError, partition: int, offset: int | None, reached: dict[int, int]) -> None:
        following = self._followed.get(partition)
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's local codes have these names
            # The partition's end, even if its last offsets have no records (compaction, transactions).
            if following is not None and offset is not None and offset > following.next_offset:
                reached[partition] = max(offset, reached.get(partition, 0))
        elif error.fatal() or error.code() in _FAILURES:
            raise OperatorError(f"{self.topic}, partition {partition}: {error.str()}") from KafkaException(error)

    def _advance(self, partition: int, following: Followed, next_offset: int) -> None:
        following.next_offset = next_offset
        if following.until is None:
            _, known_end = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)
            following.end = max(known_end, next_offset)
        elif next_offset >= following.until:
            self._leave(partition)
        if next_offset >= following.end and not following.done.done():
            following.done.set_result(None)

    def _leave(self, partition: int) -> None:
        if self._followed.pop(partition, None) is not None:
            self._consumer.incremental_unassign([TopicPartition(self.topic, partition)])


def _fail(done: Future[None], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
