"""The tables of sizes have each figure for one callback or one instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.machine import before
from tests.bench.sizing.groups import Group
from tests.bench.sizing.holding import INSTANCES, Holding, Started
from tests.bench.sizing.rebuilds import Rebuilt
from tests.bench.sizing.report import Found, write_report
from tests.bench.sizing.traffic import EDGE, KAFKA, STREAMS, TOPICS, Traffic

from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from pathlib import Path

KIB, MIB = 1 << 10, 1 << 20


def holding(instances: int) -> Holding:
    """A MiB of everything, and a KiB more for each instance."""
    size = MIB + KIB * instances
    took = Started(9.0, 1.5)
    topics = dict.fromkeys((INSTANCES, TASK_STATES.name), size)
    return Holding(instances, 3 * instances, topics, size, 200.0, took, took, took)


def test_the_tables_follow_from_what_was_measured(tmp_path: Path) -> None:
    cpu_s: dict[str, float] = {EDGE: 2.0, STREAMS: 2.0, KAFKA: 2.0}
    memory_mb: dict[str, float] = {EDGE: 100.0, STREAMS: 100.0}
    traffic = Traffic(100, 1000, 10.0, dict.fromkeys(TOPICS, 1000.0 * KIB), 2000, cpu_s, memory_mb)
    rebuilt = Rebuilt(1000, 2000, 1.0, 0.6, 0.5, 2.0, 0.3, 1000 * KIB)
    group = Group(16, Started(9.0, 1.5), Started(8.0, 0.5), Started(7.0, 2.5), 120.0)
    found = Found(12, [traffic], 2048.0, [holding(1024), holding(3072)], [rebuilt], [group], before())
    page = write_report(tmp_path / "sizes.md", found, command="the command").read_text("utf-8")
    assert "A callback takes 2,048 bytes of the spool." in page
    assert "| 100 | 100 | 1,000 | 2.00 | 1,024 | 1,024 | 2,048 | 2.00 | 2.00 | 2.00 | 100 | 100 |" in page
    assert "| `task-states`, on Kafka | 2.0 MiB | 4.0 MiB | 1,024 |" in page
    assert "| 1,024 | 9 | 1.5 | 9 | 1.5 | 9 | 1.5 |" in page
    assert "| 1,000 | 1 | 600 | 0.5 | 2,000 | 2 | 300 | 1,024 |" in page
    assert "| 16 | 9 | 1.5 | 8 | 0.5 | 7 | 2.5 | 120 |" in page
