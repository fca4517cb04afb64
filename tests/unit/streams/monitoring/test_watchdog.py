"""A stuck worker is detected; one that is idle, slow or recovering is not disturbed."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import pytest

from taskbridge.streams.monitoring.metrics import Metrics
from taskbridge.streams.monitoring.watchdog import LoopGuard, Stuck, TimesStuck, Watchdog

if TYPE_CHECKING:
    from pathlib import Path


def test_waiting_records_without_progress_for_too_long_mean_stuck() -> None:
    watchdog = Watchdog(patience_s=10)
    watchdog.look(done=5, waiting=3, now=100)
    watchdog.look(done=5, waiting=3, now=110)
    with pytest.raises(Stuck, match="3 records wait, but none was processed for 11 s"):
        watchdog.look(done=5, waiting=3, now=111)


def test_any_progress_counts() -> None:
    watchdog = Watchdog(patience_s=10)
    for step in range(5):
        watchdog.look(done=step, waiting=1_000, now=step * 9)


def test_an_idle_worker_is_never_stuck() -> None:
    watchdog = Watchdog(patience_s=10)
    watchdog.look(done=5, waiting=0, now=0)
    watchdog.look(done=5, waiting=0, now=1_000)
    watchdog.look(done=5, waiting=1, now=1_005)
    with pytest.raises(Stuck):
        watchdog.look(done=5, waiting=1, now=1_011)


class SteppedTime:
    """Time that passes between two looks of the guard, and only then."""

    def __init__(self) -> None:
        self.now = 0.0
        self._looked, self._goes_on = threading.Semaphore(0), threading.Semaphore(0)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self._looked.release()
        self._goes_on.acquire()

    def await_look(self) -> None:
        assert self._looked.acquire(timeout=60)

    def go_on(self) -> None:
        self._goes_on.release()


def test_a_stalled_loop_ends_the_process_and_a_running_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, codes = SteppedTime(), queue.Queue[int]()
    monkeypatch.setattr("taskbridge.streams.monitoring.watchdog.time", clock)
    guard = LoopGuard(10, TimesStuck(tmp_path), end=codes.put)
    for _ in range(3):
        clock.await_look()
        clock.now += 10
        guard.beat()
        clock.go_on()
    clock.await_look()
    clock.now += 10
    clock.go_on()
    clock.await_look()
    assert codes.empty()
    clock.now += 0.1
    clock.go_on()
    assert codes.get(timeout=60) == 70
    assert TimesStuck(tmp_path).count() == 1


def test_the_count_of_stalls_outlives_the_worker(tmp_path: Path) -> None:
    for _ in range(2):
        TimesStuck(tmp_path).add()
    metrics = Metrics(times_stuck=TimesStuck(tmp_path).count())
    assert metrics.registry.get_sample_value("taskbridge_streams_watchdog_total") == 2
