"""An instance's history: its events, read from their topic at the offsets that the stored instance remembers."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaException

from taskbridge.runtime.partition_reader import OutOfRange, PartitionReader, TimeLimit, Unreadable
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import Action
from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.api.json_forms import event_json, form_json, no_form, nobody, people_json, users_of_events
from taskbridge.streams.api.refusals import NotNow
from taskbridge.streams.fold.chunk import MAX_OFFSETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskEvent, TaskState
    from taskbridge.streams.api.json_forms import Forms, Names

log = structlog.get_logger(__name__)

_READ_S = 3.0
_TOGETHER = 200
"""Offsets no further apart are read in one go: reading past some records costs less than to seek once more."""
_WAITING_MAX = 32

FoundValues = dict[int, bytes]


class EventReader:
    """One consumer in a thread of its own, that reads single records of the events topic."""

    def __init__(self, config: Mapping[str, object], topic: str = TASK_EVENTS.name) -> None:
        own = {
            # A position that retention has passed is gone on from where the partition begins.
            "auto.offset.reset": "earliest",
            # Only one record is needed, not the megabytes after it.
            "fetch.message.max.bytes": 256 << 10,
            "queued.max.messages.kbytes": 4 << 10,
        }
        self._reader = PartitionReader({**config, **own})
        self._topic = topic
        self._thread = ThreadPoolExecutor(1, "event-reader")
        self._waiting = 0

    async def read(self, partition: int, offsets: Sequence[int]) -> FoundValues:
        """The values at these offsets, as far as they are still there and can be read in time; the newest first.

        Raises:
            NotNow: too many wait already, or Kafka does not answer.
        """
        if not offsets:
            return {}
        if self._waiting >= _WAITING_MAX:
            raise NotNow("too many histories are being read")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, partition, offsets)
        except (KafkaException, Unreadable) as error:
            log.warning("events_not_read", partition=partition, problem=str(error))
            raise NotNow("the events cannot be read at the moment") from error
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._reader.close)
        self._thread.shutdown()

    def _read(self, partition: int, offsets: Sequence[int]) -> FoundValues:
        deadline = time.monotonic() + _READ_S
        found: FoundValues = {}
        with suppress(TimeLimit):
            for run in reversed(runs(offsets)):
                with suppress(OutOfRange):
                    found |= self._read_run(partition, run, deadline - time.monotonic())
        return found

    def _read_run(self, partition: int, run: Sequence[int], within_s: float) -> Iterator[tuple[int, bytes]]:
        wanted = set(run)
        for batch in self._reader.read(self._topic, {partition: run[0]}, {partition: run[-1] + 1}, within_s=within_s):
            for message in batch:
                if (offset := message.offset() or 0) in wanted:
                    yield offset, message.value() or b""


def runs(offsets: Sequence[int]) -> list[list[int]]:
    """Growing offsets, in groups that are each read in one go."""
    grouped = [[offsets[0]]]
    for before, offset in pairwise(offsets):
        if offset - before > _TOGETHER:
            grouped.append([])
        grouped[-1].append(offset)
    return grouped


@dataclass(eq=False)
class Histories:
    """Histories of instances, as JSON."""

    reader: EventReader
    events: Codec[TaskEvent]
    names: Names = nobody
    forms: Forms = no_form

    async def of(self, partition: int, state: TaskState, offsets: Sequence[int]) -> dict[str, Any]:
        """The instance's events, oldest first, each once, and its form.

        Raises:
            NotNow: the events cannot be read at the moment.
        """
        values = await self.reader.read(partition, offsets)
        its_own = 0
        found: dict[str, tuple[int, TaskEvent]] = {}
        for offset in sorted(values):
            event = self._decoded(values[offset])
            if event is not None and event.instance_id == state.instance_id and event.corp_id == state.corp_id:
                its_own += 1
                found.setdefault(event.event_id, (offset, event))
        form_of = latest_form(event for _, event in found.values())
        form = {} if form_of is None else dict(form_of.form_data)
        in_order = sorted(found.values(), key=lambda each: (each[1].occurred_at, each[0]))
        return {
            "instance_id": state.instance_id,
            "corp_id": state.corp_id,
            "form": form,
            **form_json(state.corp_id, state.form_uuid, form, self.forms),
            "form_of": None if form_of is None else form_of.event_id,
            "events": [event_json(event, partition=partition, offset=offset) for offset, event in in_order],
            # Another instance's event at one of its offsets: the topic was recreated, or a rebuild found no events.
            "complete": 0 < its_own == len(offsets) < MAX_OFFSETS,
            "people": people_json(state.corp_id, users_of_events(event for _, event in in_order), self.names),
        }

    def _decoded(self, value: bytes) -> TaskEvent | None:
        try:
            return self.events.decode(value)
        except RecordError:
            # It was readable when it was folded, so it is of a recreated topic.
            return None


def latest_form(events: Iterable[TaskEvent]) -> TaskEvent | None:
    """The event whose form is the instance's: the latest create or cc that carries any values."""
    with_form = [each for each in events if each.form_data and each.action in (Action.CREATED, Action.COPIED)]
    return max(with_form, key=lambda each: (each.occurred_at, each.event_id), default=None)
