"""CPU time between two samples is shared out in proportion."""

from __future__ import annotations

import os

import pytest
from tests.bench.machine import resident_mb, tree_seconds
from tests.bench.streams.running import Clock, Sample


@pytest.mark.parametrize(
    ("moment", "expected"), [(0.0, 1.0), (10.0, 1.0), (15.0, 2.0), (20.0, 3.0), (25.0, 4.0), (99.0, 5.0)]
)
def test_between_samples_in_proportion(moment: float, expected: float) -> None:
    clock = Clock([Sample(10.0, 1.0), Sample(20.0, 3.0), Sample(30.0, 5.0)])
    assert clock.cpu_at(moment) == expected


def test_a_process_has_used_time_and_memory() -> None:
    assert tree_seconds(os.getpid()) > 0
    assert resident_mb(os.getpid()) > 1
