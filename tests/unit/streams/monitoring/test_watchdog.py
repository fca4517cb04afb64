"""A worker that stands still is found out; one that is idle, slow or recovering is left alone."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING

import pytest

from taskbridge.streams.monitoring.metrics import Metrics
from taskbridge.streams.monitoring.watchdog import LoopGuard, Stuck, TimesStuck, Watchdog, end_within

if TYPE_CHECKING:
    from pathlib import Path


def test_work_that_nobody_does_for_too_long_is_standing_still() -> None:
    watchdog = Watchdog(patience_s=10)
    watchdog.look(done=5, waiting=3, now=100)
    watchdog.look(done=5, waiting=3, now=110)
    with pytest.raises(Stuck, match="3 records wait, but none was processed for 11 s"):
        watchdog.look(done=5, waiting=3, now=111)


def test_any_progress_is_progress() -> None:
    watchdog = Watchdog(patience_s=10)
    for step in range(5):
        watchdog.look(done=step, waiting=1_000, now=step * 9)


def test_having_nothing_to_do_is_not_standing_still_however_long() -> None:
    watchdog = Watchdog(patience_s=10)
    watchdog.look(done=5, waiting=0, now=0)
    watchdog.look(done=5, waiting=0, now=1_000)
    watchdog.look(done=5, waiting=1, now=1_005)
    with pytest.raises(Stuck):
        watchdog.look(done=5, waiting=1, now=1_011)


def test_a_loop_that_stands_still_ends_the_process_and_one_that_turns_does_not(tmp_path: Path) -> None:
    codes: list[int] = []
    guard = LoopGuard(0.4, TimesStuck(tmp_path), end=codes.append)
    for _ in range(8):
        time.sleep(0.1)
        guard.beat()
    assert codes == []
    time.sleep(0.8)
    assert codes == [70]
    guard.close()
    assert TimesStuck(tmp_path).count() == 1


@pytest.mark.parametrize(("outcome", "code", "said"), [(0, 0, ""), (1, 1, ""), ("it failed", 1, "it failed\n")])
def test_a_process_that_is_to_end_does_whatever_still_waits_in_it(
    outcome: int | str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: queue.SimpleQueue[int] = queue.SimpleQueue()
    end_within(0.01, outcome, end=codes.put)
    assert codes.get(timeout=30) == code
    assert capsys.readouterr().err == said


def test_how_often_a_worker_stood_still_outlives_it(tmp_path: Path) -> None:
    for _ in range(2):
        TimesStuck(tmp_path).add()
    metrics = Metrics(times_stuck=TimesStuck(tmp_path).count())
    assert metrics.registry.get_sample_value("taskbridge_streams_watchdog_total") == 2


def test_a_count_that_cannot_be_read_or_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "times-stuck").write_text("many")
    assert TimesStuck(tmp_path).count() == 0
    TimesStuck(tmp_path / "none").add()
