"""Reads from Kafka what a person's stream has missed, between the id it resumes from and what comes by itself."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaException

from taskbridge.runtime.partition_reader import PartitionReader, TimeLimit
from taskbridge.schemas.codec import Undecodable
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import notification_key
from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.api.json_forms import nobody
from taskbridge.streams.sse.wire import notification_frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Message

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.streams.api.json_forms import Names
    from taskbridge.streams.offsets import Offsets

log = structlog.get_logger(__name__)

_PART_FRAMES = 500
_PASS_RECORDS = 50_000
_PASS_S = 2.0


class MissedUnreadable(OperatorError):
    """Kafka does not give what was missed; the client keeps its place and connects again."""


@dataclass(slots=True)
class MissedPart:
    """A part of what was missed."""

    frames: list[bytes] = field(default_factory=list[bytes])
    reached: int = 0
    """Everything before this offset was looked at."""
    is_cut: bool = False
    """The topic no longer has the first requested notification: frames are missing before these."""
    is_ahead: bool = False
    """The request begins after the topic's end: it was about another topic of this name."""


@dataclass(slots=True)
class Wanted:
    """What one stream waits for."""

    partition: int
    start: int
    until: int
    corp_id: str
    user_id: str
    answer: asyncio.Future[MissedPart]
    part: MissedPart = field(default_factory=MissedPart)
    is_full: bool = False


@dataclass(eq=False)
class MissedReader:
    """One consumer in one thread reads for all streams that wait: those of a partition share a pass.

    A pass is bounded in records and time, and the request that waits longest decides where it begins: a client
    that was away for days delays the others by a pass, and gets its days in several.
    """

    config: Mapping[str, object]
    offsets: Offsets
    codec: Codec[TaskNotification]
    topic: str = TASK_NOTIFICATIONS.name
    names: Names = nobody

    def __post_init__(self) -> None:
        self._reader = PartitionReader(self.config)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="missed")
        self._waiting: deque[Wanted] = deque()
        self._at_work: list[Wanted] = []
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    async def read(self, partition: int, start: int, until: int, person: tuple[str, str]) -> MissedPart:
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
        """Requests that still wait get an error."""
        self._closed = True
        if self._reading is not None:
            self._reading.cancel()
        _fail([*self._at_work, *self._waiting])
        self._waiting.clear()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._reader.close)
        self._thread.shutdown(wait=False)

    async def _read_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                self._at_work, self._waiting = together(self._waiting)
                try:
                    await loop.run_in_executor(self._thread, self._pass, self._at_work)
                except (KafkaException, TimeoutError, OperatorError) as error:
                    log.warning("missed_notifications_not_read", problem=str(error))
                    _fail(self._at_work)
                for each in self._at_work:
                    if not each.answer.done():  # its stream may have gone
                        each.answer.set_result(each.part)
        finally:
            self._reading = None

    def _pass(self, requests: list[Wanted]) -> None:
        """Read once over a partition, for all of them; in the thread."""
        partition, start = requests[0].partition, requests[0].start
        first, end = self.offsets.bounds(self.topic, [partition])[partition]
        for each in requests:
            each.part.is_cut, each.part.is_ahead = each.start < first, each.start > end
        at = max(start, first)
        until = min(max(each.until for each in requests), end)
        if at < until:
            at = self._look(partition, at, until, requests)
        if at >= until:
            at = max(each.until for each in requests)
        for each in requests:
            if not each.is_full:
                each.part.reached = min(each.until, max(each.start, at))

    def _look(self, partition: int, at: int, until: int, requests: list[Wanted]) -> int:
        """Hand what is read to whom it belongs; returns the offset up to which everything was looked at."""
        wanted: dict[bytes | None, list[Wanted]] = defaultdict(list)
        for each in requests:
            wanted[notification_key(each.corp_id, each.user_id)].append(each)
        last = min(until, at + _PASS_RECORDS)
        reading = self._reader.read(self.topic, {partition: at}, {partition: last}, within_s=_PASS_S)
        with suppress(TimeLimit), closing(reading):
            for batch in reading:
                for message in batch:
                    for each in wanted.get(message.key(), ()):
                        self._hand(each, message)
                if self._closed or all(each.is_full for each in requests):
                    break
        return self._reader.reached[partition]

    def _hand(self, request: Wanted, message: Message) -> None:
        offset = message.offset() or 0
        if request.is_full or not request.start <= offset < request.until:
            return
        try:
            notification = self.codec.decode(message.value())
        except Undecodable:
            return  # a live stream does not get it either
        if (notification.corp_id, notification.recipient_id) != (request.corp_id, request.user_id):
            return  # keys of two persons may be equal, where an id has a slash
        request.part.frames.append(notification_frame(request.partition, offset, notification, self.names))
        if len(request.part.frames) >= _PART_FRAMES:
            request.is_full, request.part.reached = True, offset + 1


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
