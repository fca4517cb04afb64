"""The progress of a worker: its partitions' lag, recovery and standbys. For readiness, Prometheus and the watchdog."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaException

from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.engine.app import consumer_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import faust

    from taskbridge.streams.monitoring.metrics import Metrics
    from taskbridge.streams.monitoring.watchdog import LoopGuard, Watchdog
    from taskbridge.streams.tables.recovery import Recovery
    from taskbridge.streams.transactions.offsets import Offsets

log = structlog.get_logger(__name__)

_LOOK_S = 1.0
_ENDS_EVERY_S = 5.0


@dataclass(slots=True)
class Snapshot:
    active: list[int] = field(default_factory=list[int])
    standby: list[int] = field(default_factory=list[int])
    lag: dict[int, int] = field(default_factory=dict[int, int])
    lag_seconds: dict[int, float] = field(default_factory=dict[int, float])
    restoring: dict[int, int] = field(default_factory=dict[int, int])
    standby_lag: dict[int, int] = field(default_factory=dict[int, int])
    restored: int = 0
    restored_a_second: float = 0.0
    done: int = 0
    """Changes whenever anything is processed."""

    @property
    def waiting(self) -> int:
        return sum(self.lag.values()) + sum(self.restoring.values())


@dataclass(eq=False)
class Progress:
    app: faust.App
    recovery: Recovery
    offsets: Offsets
    metrics: Metrics
    watchdog: Watchdog
    guard: LoopGuard

    def __post_init__(self) -> None:
        self._ends_at = 0.0
        self._ends: dict[int, int] = {}
        """The ends of the events, from the broker itself: a consumer that has stopped fetching has old ones."""
        self.now = Snapshot()

    @property
    def is_live(self) -> bool:
        app = self.app
        return app.tables.actives_ready and not app.rebalancing and not app.should_stop

    def details(self) -> dict[str, Any]:
        now = self.now
        return {
            "partitions": {"active": now.active, "standby": now.standby},
            "recovery": {
                "remaining": sum(now.restoring.values()),
                "records": self.recovery.restored_records,
                "records_a_second": round(now.restored_a_second),
            },
            "lag": {"events": sum(now.lag.values()), "standby": sum(now.standby_lag.values())},
        }

    async def watch(self) -> None:
        """Observe until cancelled. Raises Stuck."""
        while True:
            self.guard.beat()
            self.now = now = self._look()
            self.metrics.progress(now, rebalances=self.app.rebalancing_count)
            await self._refresh_ends(now.active)
            self.watchdog.look(done=now.done, waiting=now.waiting if self._ends else 0, now=time.monotonic())
            await asyncio.sleep(_LOOK_S)

    async def _refresh_ends(self, partitions: Collection[int]) -> None:
        """Request the ends, at most every five seconds. While Kafka does not answer, none are known."""
        if time.monotonic() - self._ends_at < _ENDS_EVERY_S:
            return
        self._ends_at = time.monotonic()
        try:
            self._ends = await asyncio.to_thread(self.offsets.decided, TASK_EVENTS.name, partitions)
        except (KafkaException, TimeoutError) as error:
            self._ends = {}
            log.warning("topic_end_unknown", topic=TASK_EVENTS.name, problem=str(error))

    def _look(self) -> Snapshot:
        table, assigned = self.recovery.table, self.recovery.assignment
        if table is None or assigned is None:
            return Snapshot()
        followed = table.reader.followed
        positions = {tp.partition: at for tp, at in consumer_of(self.app).positions.items()}
        lag = {
            partition: max(0, end - positions[partition].offset)
            for partition, end in self._ends.items()
            if partition in positions and partition in assigned.actives
        }
        now_s = time.time()
        return Snapshot(
            active=sorted(assigned.actives),
            standby=sorted(assigned.standbys),
            lag=lag,
            lag_seconds={
                partition: max(0.0, now_s - (positions[partition].timestamp or now_s)) if behind else 0.0
                for partition, behind in lag.items()
            },
            restoring={partition: each.remaining for partition, each in followed.items() if each.until is not None},
            standby_lag={partition: each.remaining for partition, each in followed.items() if each.until is None},
            restored=table.reader.applied,
            restored_a_second=max(0, table.reader.applied - self.now.restored) / _LOOK_S,
            done=table.reader.applied + sum(at.offset for at in positions.values()),
        )


class Health:
    def __init__(self) -> None:
        self._is_connected = False
        self._progress: Progress | None = None
        self._core: str | None = None
        self._problems: list[str] = []
        self._drift: Sequence[str] = ()

    def waits(self, problem: str) -> None:
        self._problems = [problem]

    def connected(self, drift: Sequence[str]) -> None:
        """Kafka and the registry answer. ``drift``: differences of the topics from the contract; they block nothing."""
        self._is_connected, self._problems, self._drift = True, [], drift

    def follow(self, progress: Progress, *, core: str) -> None:
        self._progress, self._core = progress, core

    def readiness(self) -> dict[str, Any]:
        is_live = self._progress is not None and self._progress.is_live
        return {
            "ready": self._is_connected and is_live,
            "kafka_and_registry": "connected" if self._is_connected else "waiting",
            "tables": "live" if is_live else "recovering",
            "core": self._core,
            "problems": list(self._problems),
            "topics": list(self._drift),
            **({} if self._progress is None else self._progress.details()),
        }
