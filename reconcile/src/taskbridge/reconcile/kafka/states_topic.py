"""Reads the topic of states into the stored ones, once the workers have processed all events that are there."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from taskbridge.reconcile.kept.states import StatesBehind
from taskbridge.runtime.acls import is_refusal, not_allowed
from taskbridge.runtime.kafka import LIBRDKAFKA, consumer_config, coordinator_moves, no_answer
from taskbridge.runtime.partition_reader import OutOfRange, PartitionReader
from taskbridge.schemas.codec import Codec, Undecodable
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.events import TaskState
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from confluent_kafka import Message

    from taskbridge.reconcile.clock import Clock
    from taskbridge.reconcile.kept.states import States
    from taskbridge.schemas.registry import Registry

GROUP = "taskbridge-streams"
"""The workers' group, for its positions. Nothing here joins it, or commits for it."""
_METADATA_S = 10
_WORKERS_S = 30.0
"""So long the workers may take to process what is there. After that the next pass looks again."""
_LOOK_S = 0.5
_STALLED_S = 30

_log = structlog.stdlib.get_logger(__name__)


class StatesTopic:
    def __init__(
        self, bootstrap_servers: str, properties: Mapping[str, str], registry: Registry, states: States, clock: Clock
    ) -> None:
        self._bootstrap_servers, self._clock = bootstrap_servers, clock
        self._config: dict[str, Any] = {
            **consumer_config(bootstrap_servers, GROUP, properties),
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
        }
        self._reader = PartitionReader(self._config)
        self._codec = Codec(TASK_STATES, TaskState, registry, before="form_data")
        self._states = states

    async def catch_up(self) -> None:
        """Return once every event that Kafka had at the start of the call is in the stored states.

        Raises:
            ConfigurationError: there is no such topic.
            StatesBehind: the workers have not processed these events.
            OperatorError: Kafka or the registry does not answer.
        """
        started_ms = self._clock.now_ms()
        await self._wait_for_workers()
        bounds = await asyncio.to_thread(self._bounds, TASK_STATES.name)
        positions = self._states.positions()
        if positions and (
            positions.keys() != bounds.keys() or any(positions[each] > end for each, (_, end) in bounds.items())
        ):
            _log.warning("states_topic_recreated", partitions=len(bounds))
            self._states.forget()
            positions = {}
        starts = {each: max(first, positions.get(each, first)) for each, (first, _) in bounds.items()}
        try:
            await self._read(starts, {each: end for each, (_, end) in bounds.items()})
        except OutOfRange:
            # Between the look and the reading it became another one.
            self._states.forget()
            raise
        self._states.current_ms = started_ms

    def close(self) -> None:
        self._reader.close()

    async def _wait_for_workers(self) -> None:
        events = await asyncio.to_thread(self._bounds, TASK_EVENTS.name)
        until_ms = self._clock.now_ms() + _WORKERS_S * 1000
        while await asyncio.to_thread(self._are_waiting, events):
            if self._clock.now_ms() >= until_ms:
                raise StatesBehind(
                    "the streams workers have not processed all events yet; check their readiness and lag"
                )
            await self._clock.sleep(_LOOK_S)

    def _are_waiting(self, events: Mapping[int, tuple[int, int]]) -> bool:
        """Whether the workers have still to process an event within these bounds."""
        try:
            positions = self._positions(events)
        except KafkaException as error:
            if coordinator_moves(error):
                return True
            if is_refusal(error.args[0]):
                raise OperatorError(not_allowed(f"Describe on group {GROUP}")) from error
            raise OperatorError(no_answer(self._reader.consumer, self._bootstrap_servers, error)) from error
        starts = {each: max(first, positions[each]) for each, (first, _) in events.items()}
        ends = {each: end for each, (_, end) in events.items()}
        # What is behind a position may be no event, but the end of a transaction.
        with closing(self._reader.read(TASK_EVENTS.name, starts, ends, quiet_s=_STALLED_S)) as batches:
            return any(batches)

    def _positions(self, partitions: Iterable[int]) -> dict[int, int]:
        """Of each partition of the events, the workers' position; negative where there is none."""
        # Another consumer: one that reads what is committed would wait for the workers' open transactions.
        asked = [TopicPartition(TASK_EVENTS.name, each) for each in partitions]
        with closing(Consumer({**self._config, "isolation.level": "read_uncommitted"}, logger=LIBRDKAFKA)) as consumer:
            try:
                found = consumer.committed(asked, _METADATA_S)
            except KafkaException as error:
                # Only a poll tells that the group may not be looked at; the call itself waits in vain.
                told = consumer.poll(0)
                raise KafkaException((told and told.error()) or error.args[0]) from error
        for each in found:
            if each.error is not None:
                raise KafkaException(each.error)
        return {each.partition: each.offset for each in found}

    async def _read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> None:
        # Here and not in a thread: each turn takes a fifth of a second at most, and can be given up behind it.
        with closing(self._reader.read(TASK_STATES.name, starts, ends, quiet_s=_STALLED_S)) as batches:
            for batch in batches:
                with self._states.transaction():
                    for message in batch:
                        self._take(message)
                    self._states.reached(self._reader.reached)
                await asyncio.sleep(0)
        self._states.reached(ends)

    def _take(self, message: Message) -> None:
        key, value = message.key(), message.value()
        if value is None:
            self._states.let_go((key or b"").decode("utf-8", "replace"))
            return
        try:
            self._states.take(self._codec.decode(value))
        except Undecodable as error:
            _log.error("state_not_readable", partition=message.partition(), offset=message.offset(), problem=str(error))

    def _bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        consumer = self._reader.consumer
        try:
            return {each: self._watermarks(consumer, topic, each) for each in self._partitions(consumer, topic)}
        except KafkaException as error:
            raise OperatorError(no_answer(consumer, self._bootstrap_servers, error)) from error

    @staticmethod
    def _partitions(consumer: Consumer, topic: str) -> list[int]:
        found = consumer.list_topics(topic, timeout=_METADATA_S).topics[topic]
        if found.error is not None and is_refusal(found.error):
            raise OperatorError(not_allowed(f"Read on topic {topic}"))
        if found.error is not None:
            raise ConfigurationError(f"topic {topic} does not exist; create it with 'taskbridge topics apply'")
        return sorted(found.partitions)

    @staticmethod
    def _watermarks(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
        return consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_METADATA_S)
