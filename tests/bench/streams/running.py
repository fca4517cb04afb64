"""A contender's process while it is measured: started, watched, stopped."""

from __future__ import annotations

import signal
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tests.bench.command import NotCounted
from tests.bench.machine import resident_mb, tree_seconds
from tests.bench.streams.contenders import LINGER_MS
from tests.bench.streams.setup import LOGGED
from tests.bench.toolchains import CHECKOUT

from taskbridge.local.child import Child
from taskbridge.schemas.topics import TASK_NOTIFICATIONS, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from tests.bench.streams.contenders import Channels, Contender
    from tests.bench.streams.setup import Setup

_SAMPLE_S = 0.1
_READY_POLL_S = 0.02
_DONE_POLL_S = 0.25
_STOP_S = 30.0
_CHANGELOG = {"cleanup.policy": "compact", "max.message.bytes": str(4 << 20)}


class Sample(NamedTuple):
    at: float
    cpu_s: float


@dataclass(slots=True)
class Clock:
    """CPU time of the process by time (seconds since the epoch)."""

    samples: list[Sample]

    def cpu_at(self, moment: float) -> float:
        """Between two samples, in proportion."""
        after = bisect_left(self.samples, moment, key=lambda sample: sample.at)
        if after == 0:
            return self.samples[0].cpu_s
        if after == len(self.samples):
            return self.samples[-1].cpu_s
        one, two = self.samples[after - 1], self.samples[after]
        return one.cpu_s + (two.cpu_s - one.cpu_s) * (moment - one.at) / (two.at - one.at)


def make_topics(setup: Setup, channels: Channels) -> None:
    """The topics that the contender writes, empty; the broker stamps the states and notifications."""
    kafka, partitions = setup.kafka, setup.partitions
    kafka.forget(channels.group)
    kafka.create(channels.states, partitions, {**TASK_STATES.settings, **LOGGED})
    kafka.create(channels.notifications, partitions, {**TASK_NOTIFICATIONS.settings, **LOGGED})
    kafka.create(channels.changelog, partitions, _CHANGELOG)


def drop_topics(setup: Setup, channels: Channels) -> None:
    setup.kafka.delete([channels.states, channels.notifications, channels.changelog])


class Running:
    """The process from its start to its end; ``ready_s`` and ``ready_cpu_s`` are what it took until it was ready."""

    def __init__(
        self,
        contender: Contender,
        channels: Channels,
        folder: Path,
        *,
        timeout_s: float,
        linger_ms: int = LINGER_MS,
    ) -> None:
        self._name = contender.name
        self._channels = channels
        self._timeout_s = timeout_s
        self._program = contender.program(channels, folder, linger_ms)
        self._log = folder.with_suffix(".log")
        self._samples: list[Sample] = []
        self._stopping = threading.Event()
        self.ready_s = self.ready_cpu_s = self.peak_mb = 0.0

    def __enter__(self) -> Self:
        began = time.monotonic()
        self._child = Child(
            self._program.argv,
            env=self._program.env,
            cwd=CHECKOUT,
            log_path=self._log,
            orphan_signal=signal.SIGKILL,
        )
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        try:
            self._wait(self._program.is_ready, _READY_POLL_S, "was not ready")
            self.ready_s = time.monotonic() - began
            self.ready_cpu_s = tree_seconds(self._child.pid)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    @property
    def clock(self) -> Clock:
        return Clock(list(self._samples))

    @property
    def memory_mb(self) -> float:
        return resident_mb(self._child.pid)

    def wait_until_consumed(self, setup: Setup) -> None:
        """Until the group has committed all that the events' topic holds.

        Raises:
            NotCounted: the process ended, or it takes too long.
        """
        kafka, partitions = setup.kafka, setup.partitions
        targets = kafka.ends(self._channels.events, partitions)

        def consumed() -> bool:
            committed = kafka.committed(self._channels.group, self._channels.events, partitions)
            return all(one >= two for one, two in zip(committed, targets, strict=True))

        self._wait(consumed, _DONE_POLL_S, "has not processed all events")

    def _wait(self, happened: Callable[[], bool], poll_s: float, otherwise: str) -> None:
        deadline = time.monotonic() + self._timeout_s
        while not happened():
            if self._child.has_ended():
                raise NotCounted(f"{self._name} ended: {self._child.last_lines()}; its log: {self._log}")
            if time.monotonic() > deadline:
                raise NotCounted(f"{self._name} {otherwise} within {self._timeout_s:g} s; its log: {self._log}")
            time.sleep(poll_s)

    def _sample(self) -> None:
        while not self._stopping.wait(_SAMPLE_S):
            try:
                self._samples.append(Sample(time.time(), tree_seconds(self._child.pid)))
                self.peak_mb = max(self.peak_mb, resident_mb(self._child.pid))
            except (OSError, IndexError):
                return  # it ended

    def _end(self) -> None:
        self._stopping.set()
        self._sampler.join()
        self._child.end(signal.SIGTERM, timeout_s=_STOP_S)
