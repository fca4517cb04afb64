"""Reconcile's side of Kafka: it reads the states topic into the store, and publishes repairs to the events topic."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from taskbridge.reconcile.states import StatesBehind
from taskbridge.runtime.kafka import LIBRDKAFKA, Acl, is_coordinator_moving, is_denied, not_allowed
from taskbridge.runtime.partition_reader import OutOfRange
from taskbridge.runtime.producer import AsyncProducer
from taskbridge.schemas.cloudevents import event_headers, form_data_headers
from taskbridge.schemas.codec import Codec, Undecodable, form_data_codec, task_event_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import TaskState
from taskbridge.schemas.topics import FORM_DATA, FORMS, MAX_MESSAGE_BYTES, PEOPLE, TASK_EVENTS, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from confluent_kafka import Message

    from taskbridge.reconcile.states import States
    from taskbridge.runtime.clock import Clock
    from taskbridge.runtime.partition_reader import PartitionReader
    from taskbridge.schemas.cloudevents import Header
    from taskbridge.schemas.events import FormData, TaskEvent
    from taskbridge.schemas.registry import Registry

GROUP = "taskbridge-streams"
"""The workers' group, for its positions. Reconcile never joins it or commits for it."""
PASSES = (
    Acl("Read", "topic", TASK_STATES.name, "reads the state of each instance"),
    Acl("Write", "topic", TASK_EVENTS.name, "repairs, and history"),
    Acl("Read", "topic", TASK_EVENTS.name, "checks whether events wait for the workers"),
    Acl("Describe", "group", GROUP, "reads the workers' positions; joins no group"),
)
RECONCILE = (
    *PASSES,
    *(Acl("Read", "topic", each.name, "sees which names were imported or deleted") for each in (PEOPLE, FORMS)),
    *(Acl("Write", "topic", each.name, "names that DingTalk has") for each in (PEOPLE, FORMS)),
    Acl("Read", "topic", FORM_DATA.name, "sees the last record of each instance"),
    Acl("Write", "topic", FORM_DATA.name, "the values of forms"),
)
_POSITIONS_S = 10
_LARGEST_BYTES = MAX_MESSAGE_BYTES - (64 << 10)
"""Of a value: its batch has headers too."""
_WORKERS_S = 30.0
"""How long a run waits for the workers to process all events. After that the next pass tries again."""
_POLL_S = 0.5
_STALLED_S = 30
_PAUSE_S = 1 / 50
"""Between two published events, so that no consumer is flooded."""

_log = structlog.stdlib.get_logger(__name__)


class KafkaOutbox:
    """Publishes repairs as the edge publishes callbacks, at a limited rate. Make and use it in one event loop."""

    def __init__(
        self,
        bootstrap_servers: str,
        properties: Mapping[str, str],
        registry: Registry,
        clock: Clock,
    ) -> None:
        self._producer = AsyncProducer.connect(bootstrap_servers, properties)
        self._codec, self._forms = task_event_codec(registry), form_data_codec(registry)
        self._clock = clock
        self._free_at_s = 0.0

    async def publish(self, events: Sequence[TaskEvent]) -> None:
        """Return once all in-sync replicas have all of them, in this order.

        Raises:
            OperatorError: Kafka does not accept them, or the schema's id is unknown. Some may be in Kafka.
        """
        await self._wait_turn(len(events))
        deliveries = [
            self._producer.produce(
                TASK_EVENTS.name,
                key=event.instance_id.encode(),
                value=self._codec.encode(event),
                headers=event_headers(event),
            )
            for event in events
        ]
        await _delivered(deliveries)

    async def write(self, topic: str, values: Mapping[bytes, bytes], *, headers: Sequence[Header]) -> None:
        """Return once all in-sync replicas of another topic have these, by key; otherwise as ``publish``."""
        await self._wait_turn(len(values))
        await _delivered(
            [self._producer.produce(topic, key=key, value=value, headers=headers) for key, value in values.items()]
        )

    async def write_forms(self, records: Sequence[FormData], tombstones: Sequence[str] = ()) -> None:
        """Return once all in-sync replicas have these, and the tombstones of these instances; raises as ``publish``."""
        deliveries = [self._producer.produce(FORM_DATA.name, key=each.encode(), value=None) for each in tombstones]
        for each in records:
            value = self._forms.encode(each)
            if len(value) > _LARGEST_BYTES:
                # It would fail for ever, and stop all others.
                _log.error("form_record_too_large", instance_id=each.instance_id, bytes=len(value))
                continue
            key, headers = each.instance_id.encode(), form_data_headers(each)
            deliveries.append(self._producer.produce(FORM_DATA.name, key=key, value=value, headers=headers))
        await _delivered(deliveries)

    async def close(self) -> None:
        await self._producer.close()

    async def _wait_turn(self, count: int) -> None:
        now_s = self._clock.monotonic_s()
        turn_s = max(self._free_at_s, now_s)
        self._free_at_s = turn_s + count * _PAUSE_S
        if turn_s > now_s:
            await self._clock.sleep(turn_s - now_s)


async def _delivered(deliveries: Iterable[asyncio.Future[None]]) -> None:
    for outcome in await asyncio.gather(*deliveries, return_exceptions=True):
        if outcome is not None:
            raise outcome


class StatesTopic:
    """Reads the states topic into the store, once the workers have processed all events."""

    def __init__(self, reader: PartitionReader, registry: Registry, states: States, clock: Clock) -> None:
        self._clock, self._reader = clock, reader
        self._codec = Codec(TASK_STATES, TaskState, registry, before="form_data")
        self._states = states

    async def catch_up(self) -> None:
        """Return once every event that Kafka had at the start of the call is in the stored states.

        Raises:
            ConfigurationError: The topic does not exist.
            StatesBehind: The workers have not processed these events.
            OperatorError: Kafka or the registry does not answer.
        """
        started_ms = self._clock.now_ms()
        await self._wait_for_workers()
        bounds = await asyncio.to_thread(self._reader.bounds, TASK_STATES.name)
        positions = self._states.positions()
        if positions and (
            positions.keys() != bounds.keys() or any(positions[each] > end for each, (_, end) in bounds.items())
        ):
            _log.warning("states_topic_recreated", partitions=len(bounds))
            self._states.clear()
            positions = {}
        starts = {each: max(first, positions.get(each, first)) for each, (first, _) in bounds.items()}
        try:
            await self._read(starts, {each: end for each, (_, end) in bounds.items()})
        except OutOfRange:
            # The topic was recreated after its bounds were read.
            self._states.clear()
            raise
        self._states.current_ms = started_ms

    async def _wait_for_workers(self) -> None:
        events = await asyncio.to_thread(self._reader.bounds, TASK_EVENTS.name)
        until_s = self._clock.monotonic_s() + _WORKERS_S
        while await asyncio.to_thread(self._workers_are_behind, events):
            if self._clock.monotonic_s() >= until_s:
                raise StatesBehind(
                    "the streams workers have not processed all events yet; check their readiness and lag"
                )
            await self._clock.sleep(_POLL_S)

    def _workers_are_behind(self, events: Mapping[int, tuple[int, int]]) -> bool:
        """Whether there is an event between the workers' positions and these ends."""
        try:
            positions = self._positions(events)
        except KafkaException as error:
            if is_coordinator_moving(error):
                return True
            if is_denied(error.args[0]):
                raise OperatorError(not_allowed(f"Describe on group {GROUP}")) from error
            raise self._reader.no_answer(error) from error
        starts = {each: max(first, positions[each]) for each, (first, _) in events.items()}
        ends = {each: end for each, (_, end) in events.items()}
        # A position before the end may have only the marker of a transaction after it.
        with closing(self._reader.read(TASK_EVENTS.name, starts, ends, quiet_s=_STALLED_S)) as batches:
            return any(batches)

    def _positions(self, partitions: Iterable[int]) -> dict[int, int]:
        """The workers' position in each partition of the events; negative if there is none."""
        # A consumer of its own: with read_committed the call would wait for the workers' open transactions.
        requested = [TopicPartition(TASK_EVENTS.name, each) for each in partitions]
        config = {**self._reader.config, "isolation.level": "read_uncommitted"}
        with closing(Consumer(config, logger=LIBRDKAFKA)) as consumer:
            try:
                found = consumer.committed(requested, _POSITIONS_S)
            except KafkaException as error:
                # Only a poll reports that access to the group is denied; the call itself times out.
                polled = consumer.poll(0)
                raise KafkaException((polled and polled.error()) or error.args[0]) from error
        for each in found:
            if each.error is not None:
                raise KafkaException(each.error)
        return {each.partition: each.offset for each in found}

    async def _read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> None:
        # In the event loop, not in a thread: a batch takes at most 0.2 s, and the read can be cancelled after it.
        with closing(self._reader.read(TASK_STATES.name, starts, ends, quiet_s=_STALLED_S)) as batches:
            for batch in batches:
                with self._states.transaction():
                    for message in batch:
                        self._store(message)
                    self._states.save_positions(self._reader.reached)
                await asyncio.sleep(0)
        self._states.save_positions(ends)

    def _store(self, message: Message) -> None:
        key, value = message.key(), message.value()
        if value is None:
            self._states.delete((key or b"").decode("utf-8", "replace"))
            return
        try:
            self._states.store(self._codec.decode(value))
        except Undecodable as error:
            _log.error("state_not_readable", partition=message.partition(), offset=message.offset(), problem=str(error))
