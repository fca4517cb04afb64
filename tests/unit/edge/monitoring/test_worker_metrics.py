"""A scrape that reaches one worker sees all that live, each sample with its worker."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from support.edge.spool import can_mount, fill, small_disk
from taskbridge.edge.monitoring.worker_metrics import WorkerMetrics, clear_metrics

if TYPE_CHECKING:
    from pathlib import Path


def registry_of(count: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("calls", 'Calls, by "kind".', ["kind"], registry=registry).labels('a"b').inc(count)
    Histogram("seconds", "Seconds.", buckets=(1,), registry=registry).observe(0.5)
    gauge = Gauge("depth", "Depth.", registry=registry)
    gauge.set_function(lambda: math.inf)
    return registry


def test_one_worker_has_no_label(tmp_path: Path) -> None:
    text = WorkerMetrics(registry_of(1), folder=None).exposition().decode()
    assert 'calls_total{kind="a\\"b"} 1.0' in text
    assert not list(tmp_path.iterdir())


def test_all_living_workers_are_in_one_answer(tmp_path: Path) -> None:
    other = os.getppid()
    WorkerMetrics(registry_of(7), folder=tmp_path).exposition()
    (tmp_path / f"{os.getpid()}.json").rename(tmp_path / f"{other}.json")
    text = WorkerMetrics(registry_of(1), folder=tmp_path).exposition().decode()
    assert f'calls_total{{kind="a\\"b",worker="{os.getpid()}"}} 1.0' in text
    assert f'calls_total{{kind="a\\"b",worker="{other}"}} 7.0' in text
    assert f'depth{{worker="{other}"}} +Inf' in text
    assert f'seconds_bucket{{le="1.0",worker="{other}"}} 1.0' in text
    assert text.count("# TYPE calls_total counter") == 1


def test_what_a_dead_worker_left_goes_away(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f"{dead.pid}.json"
    left.write_text(json.dumps([["calls", "Calls.", "counter", [["calls_total", {}, 9]]]]))
    assert str(dead.pid) not in WorkerMetrics(registry_of(1), folder=tmp_path).exposition().decode()
    assert not left.exists()


def test_a_file_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    other = os.getppid()
    (tmp_path / f"{other}.json").write_bytes(b"[[")
    assert f'worker="{other}"' not in WorkerMetrics(registry_of(1), folder=tmp_path).exposition().decode()


@pytest.mark.skipif(not can_mount(), reason="needs a disk of its own")
def test_a_full_disk_does_not_keep_them_from_telling(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=1):
        registry = CollectorRegistry()
        depth, metrics = Gauge("depth", "Depth.", registry=registry), WorkerMetrics(registry, folder=tmp_path / "disk")
        depth.set(0)
        metrics.exposition()
        fill(tmp_path / "disk")
        depth.set(1230)
        assert f'depth{{worker="{os.getpid()}"}} 1230.0' in metrics.exposition().decode()


def test_what_the_last_run_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text("[]")
    clear_metrics(tmp_path)
    clear_metrics(tmp_path / "absent")
    assert not list(tmp_path.iterdir())
