"""A group of many workers on many partitions: until each partition has one, at the start and after a death."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.bench.services import wait_until
from tests.bench.sizing.holding import Started, Worker, fill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.streams.setup import Setup

PARTITIONS = 96
INSTANCES = 100_000


@dataclass(frozen=True, slots=True)
class Group:
    """What so many workers took; seconds of processor are of all of them together."""

    workers: int
    started: Started
    """All at once, on empty disks."""
    bereft: Started
    """From the death of one until its partitions are taken over."""
    joined: Started
    """From the start of another one until it has its share."""
    memory_mb: float
    """Of one."""


def measure_group(setup: Setup, workers: int) -> Group:
    setup = replace(setup, partitions=PARTITIONS)
    fill(setup, INSTANCES)
    setup.progress(f"{workers} workers on {PARTITIONS} partitions, {INSTANCES:,} instances")
    group = [Worker(setup, f"worker-{workers}-{number}") for number in range(workers)]
    with ExitStack() as stack:
        began = time.monotonic()
        for each in group:
            stack.enter_context(each)
        started = _until_whole(group, began, 0.0)
        lost, left = group[0], group[1:]
        before, began = _cpu_s(left), time.monotonic()
        lost.end(signal.SIGKILL)
        bereft = _until_whole(left, began, before)
        before, began = _cpu_s(left), time.monotonic()
        lost.start()
        joined = _until_whole(group, began, before)
        memory_mb = sum(each.memory_mb for each in group) / workers
    return Group(workers, started, bereft, joined, memory_mb)


def _until_whole(group: Sequence[Worker], began: float, cpu_before: float) -> Started:
    def is_whole() -> bool:
        shares = [each.active for each in group]
        return all(shares) and sum(shares) == PARTITIONS

    wait_until(is_whole, f"{len(group)} workers share the partitions")
    return Started(time.monotonic() - began, _cpu_s(group) - cpu_before)


def _cpu_s(group: Sequence[Worker]) -> float:
    return sum(each.cpu_s for each in group)
