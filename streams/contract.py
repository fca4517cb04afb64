"""Before a worker is put together: topics and schemas are as the contract says, and a version is live."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import structlog
from confluent_kafka import KafkaException

from schemas import topics
from schemas.errors import OperatorError
from service.topic_admin import TopicsUnavailable, apply_topics
from streams.live_version import SwitchUnderWay
from streams.tables.changelog_topic import instances_changelog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.registry import Registry
    from service.kafka import Admin
    from streams.health import Health
    from streams.live_version import LiveVersion
    from streams.tables.offsets import Offsets

log = structlog.get_logger(__name__)

_CONTRACT = (topics.TASK_EVENTS, topics.TASK_STATES, topics.TASK_NOTIFICATIONS, topics.TASK_EVENTS_DLQ)
_FIRST_RETRY_S = 0.5
_RETRY_MAX_S = 10.0
_SWITCH_POLL_S = 1.0


class Prepared(NamedTuple):
    """What was found."""

    partitions: int
    """That the events have."""
    version: int
    """Of the instances, the one that is live."""


@dataclass(frozen=True, slots=True)
class Contract:
    """Brings topics and schemas to the contract."""

    admin: Admin
    registry: Registry
    partitions: int
    changelogs: Sequence[topics.Topic]
    """Beside that of the instances."""
    live_version: LiveVersion

    def apply(self) -> Prepared:
        """Return once all is there. Blocks.

        Raises:
            OperatorError: it is worth trying again; it says what is missing, or that a switch is under way.
        """
        self.live_version.prepare()
        try:
            version = self.live_version.settled()
        except (KafkaException, TimeoutError) as error:
            raise TopicsUnavailable(f"Kafka does not tell which version is live: {error}") from error
        reports = apply_topics(self.admin, _CONTRACT, partitions=self.partitions)
        found = next(report.partitions for report in reports if report.name == topics.TASK_EVENTS.name)
        # With as many partitions as the events, or no state would be where its events are.
        reports += apply_topics(self.admin, [instances_changelog(version), *self.changelogs], partitions=found)
        if not self.registry.knows(_CONTRACT):
            self.registry.register(_CONTRACT)
        for report in reports:
            for line in report.drift:
                log.warning("a topic differs from the contract", topic=report.name, drift=line)
            if report.unchecked is not None:
                log.warning("a topic could not be checked", topic=report.name, problem=report.unchecked)
        return Prepared(found, version)


def notification_bytes(offsets: Offsets) -> int:
    """What the broker really takes of one, or nearly always does; never more than an inbox can keep. Blocks."""
    with suppress(TimeoutError):
        found = offsets.largest_record(topics.TASK_NOTIFICATIONS.name)
        if found is not None:
            return min(found, topics.USUAL_MESSAGE_BYTES)
    return topics.USUAL_MESSAGE_BYTES


async def until_connected(contract: Contract, health: Health, stop: asyncio.Event) -> Prepared | None:
    """Wait for Kafka and the registry, and for the end of a switch, however long; None when told to stop."""
    delay = _FIRST_RETRY_S
    while not stop.is_set():
        try:
            prepared = await asyncio.to_thread(contract.apply)
        except OperatorError as error:
            health.problems = [str(error)]
            log.warning("waiting", problem=str(error))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), delay)
            delay = _SWITCH_POLL_S if isinstance(error, SwitchUnderWay) else min(delay * 2, _RETRY_MAX_S)
        else:
            health.connected, health.problems = True, []
            return prepared
    return None
