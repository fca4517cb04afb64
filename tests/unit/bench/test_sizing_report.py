"""What the page about sizes says follows from what was measured, by the arithmetic that it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.center.installations import CaughtUp
from tests.bench.machine import Before
from tests.bench.sizing.holding import INSTANCES, Holding, Started
from tests.bench.sizing.rebuilds import Rebuilt
from tests.bench.sizing.report import Found, write_page
from tests.bench.sizing.traffic import EDGE, KAFKA, STREAMS, TOPICS, Traffic

from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024


def traffic(rate: int) -> Traffic:
    """1,000 callbacks of a KiB on each topic, and of two ms of each service's time."""
    return Traffic(
        target_rate=rate,
        callbacks=1000,
        seconds=1000 / rate,
        topic_bytes=dict.fromkeys(TOPICS, 1000.0 * KIB),
        notifications=2000,
        cpu_s=dict.fromkeys((EDGE, STREAMS, KAFKA), 2.0),
        memory_mb=dict.fromkeys((EDGE, STREAMS, KAFKA), 100.0),
    )


def holding(instances: int) -> Holding:
    """A MiB of everything, and a KiB more for each instance."""
    size = KIB * KIB + KIB * instances
    took = Started(9.0, 1.0 + instances / 1e6)
    return Holding(
        instances=instances,
        entries=3 * instances,
        on_kafka=dict.fromkeys((INSTANCES, TASK_STATES.name), size),
        plain=dict.fromkeys((INSTANCES, TASK_STATES.name), 2 * size),
        store_bytes=size,
        memory_mb=200.0,
        center=CaughtUp(instances, 1.0, 0.5, 0.0, 80.0, size / KIB / KIB),
        empty_disk=took,
        standby=took,
        own_disk=took,
    )


def test_the_tables_follow_from_what_was_measured(tmp_path: Path) -> None:
    rebuilt = Rebuilt(
        instances=1000,
        notifications=2000,
        seconds=1.0,
        cpu_s=0.6,
        standstill_s=0.5,
        publishing_s=2.0,
        publishing_cpu_s=0.3,
        changelog_bytes=1000 * KIB,
    )
    found = Found(
        12,
        [traffic(10), traffic(100)],
        2048.0,
        [holding(5), holding(1000), holding(3000)],
        [rebuilt],
        Before(0.0, 0, 0),
    )
    page = " ".join(write_page(tmp_path, found, command="taskbridge bench sizing").read_text("utf-8").split())

    assert {TASK_EVENTS.name, TASK_NOTIFICATIONS.name} < set(TOPICS)
    # 100 a second for 30 and 7 days, of a KiB each; 2 ms each are a fifth of a core.
    assert "| 100 | 8,640,000 | 247 GiB | 57.7 GiB | 20% | 20% | 20% | 864,000 | 11.6 days |" in page
    assert "1,073,741,824 / 2,048 = 524,288 of them" in page
    assert "| 100 | 87.4 minutes | 16.5 GiB |" in page
    # A KiB each, however many were measured.
    assert "| 1,024 | 977 MiB | 9.54 GiB | 95.4 GiB |" in page
    assert "keys and values uncompressed | 2.01 MiB | 3.95 MiB | 7.86 MiB | 2,048 |" in page
    assert "- The task center's database: 301 GiB." in page
    assert "an instance takes 1 \u00b5s of processor" in page
    assert "100.0 minutes of processor for the rebuild" in page
