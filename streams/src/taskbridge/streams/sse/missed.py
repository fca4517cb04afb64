"""Reads from Kafka what a person's stream has missed, between the id it resumes from and what comes by itself."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from taskbridge.runtime.kafka import LIBRDKAFKA
from taskbridge.schemas.codec import Undecodable
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import notification_key
from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.sse.wire import notification_frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Message

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.streams.positions.offsets import Offsets

log = structlog.get_logger(__name__)

_PAGE_FRAMES = 500
_PASS_RECORDS = 50_000
_PASS_S = 2.0
_BATCH = 1000
_WAIT_S = 0.2
_QUEUE_KIB = 16 << 10
_TRANSIENT = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT)  # noqa: SLF001 - how the library names its codes


class MissedUnreadable(OperatorError):
    """Kafka does not give what was missed; the client keeps its place and connects again."""


@dataclass(slots=True)
class Page:
    """A part of what was missed."""

    frames: list[bytes] = field(default_factory=list[bytes])
    reached: int = 0
    """Everything before this offset was looked at."""
    is_cut: bool = False
    """The topic no longer has the first of what was asked for: something is missing before these frames."""
    is_ahead: bool = False
    """What was asked for begins behind the topic's end: it was about another topic of this name."""


@dataclass(slots=True)
class Wanted:
    """What one stream waits for."""

    partition: int
    start: int
    until: int
    corp_id: str
    user_id: str
    answer: asyncio.Future[Page]
    page: Page = field(default_factory=Page)
    is_full: bool = False


class MissedReader:
    """One consumer in one thread reads for all streams that wait: those of a partition share a pass.

    A pass is bounded in records and time, and whoever waits longest decides where it begins: a client that was away for
    days delays the others by a pass, and gets its days in several.
    """

    def __init__(
        self,
        config: Mapping[str, object],
        *,
        offsets: Offsets,
        codec: Codec[TaskNotification],
        topic: str = TASK_NOTIFICATIONS.name,
    ) -> None:
        self._config: dict[str, Any] = {
            **config,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            "queued.max.messages.kbytes": _QUEUE_KIB,
        }
        self._offsets = offsets
        self._codec = codec
        self._topic = topic
        self._consumer: Consumer | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="missed")
        self._waiting: deque[Wanted] = deque()
        self._at_work: list[Wanted] = []
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    async def read(self, partition: int, start: int, until: int, person: tuple[str, str]) -> Page:
        """Some or all of this person's notifications at the offsets from ``start`` to before ``until``.

        Raises:
            MissedUnreadable: Kafka does not answer.
        """
        request = Wanted(partition, start, until, *person, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        return await request.answer

    async def close(self) -> None:
        """Whoever still waits is told that nothing comes."""
        self._closed = True
        if self._reading is not None:
            self._reading.cancel()
        _fail([*self._at_work, *self._waiting])
        self._waiting.clear()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_consumer)
        self._thread.shutdown(wait=False)

    def _close_consumer(self) -> None:
        if self._consumer is not None:
            self._consumer.close()

    async def _read_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                self._at_work, self._waiting = together(self._waiting)
                try:
                    await loop.run_in_executor(self._thread, self._pass, self._at_work)
                except (KafkaException, TimeoutError, OperatorError) as error:
                    log.warning("missed_not_read", problem=str(error))
                    _fail(self._at_work)
                for each in self._at_work:
                    if not each.answer.done():  # its stream may have gone
                        each.answer.set_result(each.page)
        finally:
            self._reading = None

    def _pass(self, requests: list[Wanted]) -> None:
        """Read once over a partition, for all of them; in the thread."""
        partition, start = requests[0].partition, requests[0].start
        first, end = self._offsets.bounds(self._topic, [partition])[partition]
        for each in requests:
            each.page.is_cut, each.page.is_ahead = each.start < first, each.start > end
        at = max(start, first)
        until = min(max(each.until for each in requests), end)
        if at < until:
            at = self._look(partition, at, until, requests)
        if at >= until:
            at = max(each.until for each in requests)
        for each in requests:
            if not each.is_full:
                each.page.reached = min(each.until, max(each.start, at))

    def _look(self, partition: int, at: int, until: int, requests: list[Wanted]) -> int:
        """Hand what is read to whom it belongs; returns the offset up to which everything was looked at."""
        wanted: dict[bytes | None, list[Wanted]] = defaultdict(list)
        for each in requests:
            wanted[notification_key(each.corp_id, each.user_id)].append(each)
        if self._consumer is None:
            self._consumer = Consumer(self._config, logger=LIBRDKAFKA)
        consumer = self._consumer
        consumer.assign([TopicPartition(self._topic, partition, at)])
        try:
            deadline, last = time.monotonic() + _PASS_S, min(until, at + _PASS_RECORDS)
            while at < last and time.monotonic() < deadline and not self._closed:
                if all(each.is_full for each in requests):
                    break
                for message in consumer.consume(_BATCH, _WAIT_S):
                    error = message.error()
                    if error is not None:
                        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                            return until
                        if error.code() not in _TRANSIENT:
                            raise MissedUnreadable(error.str())
                        continue
                    at = (message.offset() or 0) + 1
                    for each in wanted.get(message.key(), ()):
                        self._hand(each, message)
        finally:
            consumer.unassign()
        return at

    def _hand(self, request: Wanted, message: Message) -> None:
        offset = message.offset() or 0
        if request.is_full or not request.start <= offset < request.until:
            return
        try:
            notification = self._codec.decode(message.value())
        except Undecodable:
            return  # the live stream does not have it either
        if (notification.corp_id, notification.recipient_id) != (request.corp_id, request.user_id):
            return  # keys of two persons may be equal, where an id has a slash
        request.page.frames.append(notification_frame(request.partition, offset, notification))
        if len(request.page.frames) >= _PAGE_FRAMES:
            request.is_full, request.page.reached = True, offset + 1


def together(waiting: deque[Wanted]) -> tuple[list[Wanted], deque[Wanted]]:
    """Those that one pass serves: the first, and all that begin where the pass will come by. And the others, in order.

    Who begins further on would be asked to come again after each pass, always behind the first.
    """
    first = waiting[0]
    served: list[Wanted] = []
    others: deque[Wanted] = deque()
    for each in waiting:
        is_served = each.partition == first.partition and first.start <= each.start < first.start + _PASS_RECORDS
        (served if is_served else others).append(each)
    return served, others


def _fail(requests: list[Wanted]) -> None:
    for each in requests:
        if not each.answer.done():
            each.answer.set_exception(MissedUnreadable(str(MissedUnreadable.__doc__)))
