"""What a worker knows of its partitions: lag, recovery, standbys. For people, for Prometheus and for the watchdog."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaException
from faust.types import TP

from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.engine.parts import consumer_of
from taskbridge.streams.monitoring.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import faust

    from taskbridge.streams.engine.transport import Position
    from taskbridge.streams.monitoring.metrics import Metrics
    from taskbridge.streams.monitoring.watchdog import LoopGuard, Watchdog
    from taskbridge.streams.positions.offsets import Offsets
    from taskbridge.streams.tables.changelog import Followed
    from taskbridge.streams.tables.recovery import Recovery

log = structlog.get_logger(__name__)

_LOOK_S = 1.0
_ENDS_EVERY_S = 5.0
_SAY_EVERY_S = 2.0


class Ends:
    """Where a topic ends, asked of the broker itself: a consumer that has stopped fetching would not know."""

    def __init__(self, offsets: Offsets, topic: str = TASK_EVENTS.name) -> None:
        self.topic = topic
        self._offsets = offsets
        self.known: dict[int, int] = {}
        self._asked = 0.0

    async def refresh(self, partitions: Collection[int]) -> None:
        """Keeps what it knew while Kafka does not answer: that is not the worker's standing still."""
        if time.monotonic() - self._asked < _ENDS_EVERY_S:
            return
        self._asked = time.monotonic()
        try:
            self.known = await asyncio.to_thread(self._offsets.decided, self.topic, partitions)
        except (KafkaException, TimeoutError) as error:
            self.known = {}
            log.warning("topic_end_unknown", topic=self.topic, problem=str(error))


@dataclass(eq=False)
class Progress:
    """Looks once a second."""

    app: faust.App
    recovery: Recovery
    changelog: str
    """The instances'."""
    ends: Ends
    inbox_ends: Ends | None
    """None where this group keeps no inboxes."""
    metrics: Metrics
    watchdog: Watchdog
    guard: LoopGuard

    def __post_init__(self) -> None:
        self._said = 0.0
        self.now = Snapshot()

    def details(self) -> dict[str, Any]:
        """For ``/readyz``."""
        now = self.now
        return {
            "partitions": {"active": now.active, "standby": now.standby},
            "recovery": {
                "remaining": sum(now.restoring.values()),
                "records": self.recovery.taken_over_records,
                "records_a_second": round(now.restored_a_second),
            },
            "lag": {
                "events": sum(now.lag.values()),
                "notifications": sum(now.inbox_lag.values()),
                "standby": sum(now.standby_lag.values()),
            },
        }

    async def watch(self) -> None:
        """Look until cancelled.

        Raises:
            Stuck: there is work and none was done for too long.
        """
        while True:
            self.guard.beat()
            self.now = now = self._look()
            self.metrics.progress(now, rebalances=self.app.rebalancing_count)
            self._say(now)
            await self.ends.refresh(now.active)
            if self.inbox_ends is not None:
                await self.inbox_ends.refresh(now.active)
            self.watchdog.look(done=now.done, waiting=now.waiting if self.ends.known else 0, now=time.monotonic())
            await asyncio.sleep(_LOOK_S)

    def _look(self) -> Snapshot:
        wanted = self.recovery.wanted.get(self.changelog)
        consumer = consumer_of(self.app)
        if wanted is None:
            return Snapshot()
        keepers = list(self.recovery.keepers.values())
        followed = [(partition, each) for keeper in keepers for partition, each in keeper.followed.items()]
        restored = sum(keeper.applied for keeper in keepers)
        reached = consumer.positions
        positions = {tp.partition: at for tp, at in reached.items() if tp.topic == TASK_EVENTS.name}
        lag = _behind(self.ends, reached, wanted.actives)
        now_s = time.time()
        return Snapshot(
            active=sorted(wanted.actives),
            standby=sorted(wanted.standbys),
            lag=lag,
            lag_seconds={
                partition: max(0.0, now_s - (positions[partition].timestamp or now_s)) if behind else 0.0
                for partition, behind in lag.items()
            },
            inbox_lag={} if self.inbox_ends is None else _behind(self.inbox_ends, reached, wanted.actives),
            restoring=_remaining(each for each in followed if each[1].until is not None),
            standby_lag=_remaining(each for each in followed if each[1].until is None),
            restored=restored,
            restored_a_second=max(0, restored - self.now.restored) / _LOOK_S,
            done=restored + sum(at.offset for at in reached.values()),
        )

    def _say(self, now: Snapshot) -> None:
        remaining = sum(now.restoring.values())
        if remaining and time.monotonic() - self._said >= _SAY_EVERY_S:
            self._said = time.monotonic()
            log.info(
                "tables_recovering",
                remaining=remaining,
                records_a_second=round(now.restored_a_second),
                partitions=len(now.restoring),
            )


def _behind(ends: Ends, reached: Mapping[TP, Position], actives: Collection[int]) -> dict[int, int]:
    """Records of the topic that wait, by partition, as far as both ends are known."""
    return {
        partition: max(0, end - reached[tp].offset)
        for partition, end in ends.known.items()
        if (tp := TP(ends.topic, partition)) in reached and partition in actives
    }


def _remaining(followed: Iterable[tuple[int, Followed]]) -> dict[int, int]:
    """Changelog records still to be applied, by partition: of all its tables together."""
    remaining: dict[int, int] = {}
    for partition, each in followed:
        remaining[partition] = remaining.get(partition, 0) + each.remaining
    return remaining
