"""Reads the topic of states on from where it was read last, into what is kept of it."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaException, TopicPartition

from taskbridge.runtime.acls import is_refusal, not_allowed
from taskbridge.runtime.kafka import consumer_config, no_answer
from taskbridge.runtime.partition_reader import OutOfRange, PartitionReader
from taskbridge.schemas.codec import Codec, Undecodable
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.events import TaskState
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Consumer, Message

    from taskbridge.reconcile.kept.states import States
    from taskbridge.schemas.registry import Registry

GROUP = "taskbridge-reconcile"
"""It joins no group; brokers that ask for permissions want one named all the same."""
_METADATA_S = 10
_STALLED_S = 30

_log = structlog.stdlib.get_logger(__name__)


class StatesTopic:
    def __init__(
        self, bootstrap_servers: str, properties: Mapping[str, str], registry: Registry, states: States
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        config = consumer_config(bootstrap_servers, GROUP, properties)
        self._reader = PartitionReader({**config, "auto.offset.reset": "error"})
        self._codec = Codec(TASK_STATES, TaskState, registry, before="form_data")
        self._states = states

    async def catch_up(self) -> None:
        """Return once all that the topic had at the start of the call is kept.

        Raises:
            ConfigurationError: there is no such topic.
            OperatorError: Kafka or the registry does not answer.
        """
        bounds = await asyncio.to_thread(self._bounds)
        positions = self._states.positions()
        if positions and (
            positions.keys() != bounds.keys() or any(positions[each] > end for each, (_, end) in bounds.items())
        ):
            _log.warning("states_topic_is_another_one", partitions=len(bounds))
            self._states.forget()
            positions = {}
        starts = {each: max(first, positions.get(each, first)) for each, (first, _) in bounds.items()}
        try:
            await self._read(starts, {each: end for each, (_, end) in bounds.items()})
        except OutOfRange:
            # Between the look and the reading it became another one.
            self._states.forget()
            raise

    def close(self) -> None:
        self._reader.close()

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

    def _bounds(self) -> dict[int, tuple[int, int]]:
        consumer = self._reader.consumer
        try:
            return {each: self._watermarks(consumer, each) for each in self._partitions(consumer)}
        except KafkaException as error:
            raise OperatorError(no_answer(consumer, self._bootstrap_servers, error)) from error

    @staticmethod
    def _partitions(consumer: Consumer) -> list[int]:
        found = consumer.list_topics(TASK_STATES.name, timeout=_METADATA_S).topics[TASK_STATES.name]
        if found.error is not None and is_refusal(found.error):
            raise OperatorError(not_allowed(f"Read on topic {TASK_STATES.name}"))
        if found.error is not None:
            raise ConfigurationError(f"there is no topic {TASK_STATES.name}: 'taskbridge topics apply' makes it")
        return sorted(found.partitions)

    @staticmethod
    def _watermarks(consumer: Consumer, partition: int) -> tuple[int, int]:
        return consumer.get_watermark_offsets(TopicPartition(TASK_STATES.name, partition), timeout=_METADATA_S)
