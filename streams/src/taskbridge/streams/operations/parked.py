"""Counts of dead letters and rejected callbacks by reason, and the latest: each request reads on from the last one."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from confluent_kafka import KafkaException

from taskbridge.runtime.partition_reader import PartitionReader, TimeLimit, Unreadable
from taskbridge.schemas.dead_letters import replay_of
from taskbridge.schemas.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from confluent_kafka import Message

    from taskbridge.schemas.dead_letters import Replay
    from taskbridge.schemas.topics import Topic
    from taskbridge.streams.offsets import Offsets

log = structlog.get_logger(__name__)

LATEST = 50
_REFRESH_S = 3.0
_PASS_S = 2.0
_BEGIN_RECORDS = 2000
"""Of each partition, when it is looked at for the first time. Older ones are for 'taskbridge quarantine list'."""
_REMEMBERED = 50_000
"""Entries whose replay is subtracted from the counts: the latest."""
_HOUR_MS = 3_600_000


class SetAside(NamedTuple):
    """One entry, as the overview shows it."""

    at_ms: int
    reason: str
    shown: dict[str, Any]
    """With its ``id``, and ``replayed_at``."""


class Reading:
    """Parts of topics, one after the other, and where topics begin and end. Every method blocks."""

    def __init__(self, config: Mapping[str, object], offsets: Offsets) -> None:
        self.offsets = offsets
        self._reader = PartitionReader(config)
        self._turn = threading.Lock()

    def between(
        self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int], *, within_s: float
    ) -> Iterator[Message]:
        """The records from each partition's start to before its end, as far as they can be read in time.

        Raises:
            Unreadable: Kafka refuses.
        """
        with (
            self._turn,
            suppress(TimeLimit),
            closing(self._reader.read(topic, starts, ends, within_s=within_s)) as batches,
        ):
            for batch in batches:
                yield from batch

    def close(self) -> None:
        with self._turn:
            self._reader.close()


@dataclass(eq=False)
class Parked:
    """What is known of one topic: counts of the entries that were not replayed, and the latest of all.

    Blocking, and called from one thread at a time.
    """

    reading: Reading
    topic: Topic
    entry_of: Callable[[Message], SetAside]

    def __post_init__(self) -> None:
        self._next: dict[int, int] = {}
        self._counts: Counter[tuple[int, str]] = Counter()
        self._counted: dict[str, tuple[int, str]] = {}
        self._latest: deque[SetAside] = deque(maxlen=LATEST * 4)
        self._looked = float("-inf")

    def overview(self, *, now_ms: int) -> dict[str, Any]:
        """Counts by reason, and the latest, the newest first. As it was, while Kafka does not answer."""
        if time.monotonic() - self._looked >= _REFRESH_S:
            try:
                self._read_on()
            except (KafkaException, TimeoutError, Unreadable) as error:
                log.warning("parked_records_not_read", topic=self.topic.name, problem=str(error))
            self._looked = time.monotonic()
        # What is older than the topic's retention is counted no more.
        first_hour = (now_ms - int(self.topic.settings["retention.ms"])) // _HOUR_MS
        for each in [each for each in self._counts if each[0] < first_hour]:
            del self._counts[each]
        reasons: Counter[str] = Counter()
        for (_, reason), count in (+self._counts).items():
            reasons[reason] += count
        latest = sorted(self._latest, key=lambda each: each.at_ms, reverse=True)[:LATEST]
        return {
            "total": reasons.total(),
            "reasons": dict(reasons.most_common()),
            "latest": [each.shown for each in latest],
        }

    def _read_on(self) -> None:
        name, offsets = self.topic.name, self.reading.offsets
        bounds = offsets.bounds(name, offsets.partitions(name))
        ends = {partition: bound.end for partition, bound in bounds.items()}
        starts = {
            partition: max(bound.first, self._next.get(partition, bound.end - _BEGIN_RECORDS))
            for partition, bound in bounds.items()
        }
        read = dict(starts)
        for message in self.reading.between(name, starts, ends, within_s=_PASS_S):
            read[message.partition() or 0] = (message.offset() or 0) + 1
            if (replay := replay_of(message)) is not None:
                self._subtract(replay)
                continue
            try:
                entry = self.entry_of(message)
            except TaskbridgeError as error:
                log.warning("entry_not_read", topic=self.topic.name, problem=str(error))
                continue
            self._add(entry)
        # A recreated topic ends before the offsets that were read.
        self._next = {partition: min(offset, ends[partition]) for partition, offset in read.items()}

    def _add(self, entry: SetAside) -> None:
        place = entry.at_ms // _HOUR_MS, entry.reason
        self._counts[place] += 1
        self._counted[entry.shown["id"]] = place
        if len(self._counted) > _REMEMBERED:
            del self._counted[next(iter(self._counted))]
        self._latest.append(entry)

    def _subtract(self, replay: Replay) -> None:
        place = self._counted.pop(replay.entry_id, None)
        if place is not None and place in self._counts:  # else it is too old to be counted, or was replayed before
            self._counts[place] -= 1
        for each in self._latest:
            if each.shown["id"] == replay.entry_id:
                each.shown["replayed_at"] = each.shown["replayed_at"] or replay.at


def newest(offsets: Offsets, topic: str, most: int) -> tuple[dict[int, int], dict[int, int]]:
    """Starts and ends of the last ``most`` records of each partition. Blocking."""
    bounds = offsets.bounds(topic, offsets.partitions(topic))
    ends = {partition: bound.end for partition, bound in bounds.items()}
    return {each: max(bound.first, bound.end - most) for each, bound in bounds.items()}, ends
