"""The measured tables of docs/how-to/size-it.md; what follows from them by arithmetic is written there by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.page import table, write_page
from tests.bench.sizing import groups
from tests.bench.sizing.holding import INSTANCES
from tests.bench.sizing.traffic import EDGE, KAFKA, STREAMS

from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.bench.machine import Before
    from tests.bench.sizing.groups import Group
    from tests.bench.sizing.holding import Holding, Started
    from tests.bench.sizing.rebuilds import Rebuilt
    from tests.bench.sizing.traffic import Traffic

_STARTS = ("empty disk", "from standby", "own disk")
_CHANGES = ("all start", "one dies", "one joins")
_LIBRARIES = ("confluent-kafka", "faust-streaming", "rocksdict", "fastapi", "uvicorn")


@dataclass(frozen=True, slots=True)
class Found:
    """All that was measured."""

    partitions: int
    traffic: Sequence[Traffic]
    spooled_bytes: float
    holdings: Sequence[Holding]
    rebuilds: Sequence[Rebuilt]
    groups: Sequence[Group]
    before: Before


def write_report(page: Path, found: Found, *, command: str) -> Path:
    """The page's path."""
    most = found.holdings[-1]
    lines = [
        f"{found.partitions} partitions, one replica. A callback takes {found.spooled_bytes:,.0f} bytes of the spool.",
        f"{most.entries / most.instances:.1f} entries in people's lists for each instance. Bytes are of one callback,",
        "or the difference between the two largest numbers of instances.",
        "",
        *table(
            [
                *("target a second", "reached", "callbacks", "notifications each"),
                *(
                    "bytes of `task-events` each",
                    "bytes of `task-notifications` each",
                    "bytes of the other topics each",
                ),
                *("ms of processor each: edge", "worker", "Kafka", "MiB: edge", "worker"),
            ],
            [_of_traffic(each) for each in found.traffic],
        ),
        *table(
            ["", *(f"{each.instances:,} instances" for each in found.holdings), "bytes an instance"],
            [_of_holdings(found.holdings, name, size) for name, size in _SIZES],
        ),
        *table(
            ["instances", *(f"{how}: {of}" for how in _STARTS for of in ("s", "s of processor"))],
            [_of_starts(each) for each in found.holdings],
        ),
        *table(
            [
                *("instances", "rebuild: s", "µs of processor an instance", "s with workers stopped"),
                *("notifications published", "publishing: s", "µs of processor an instance"),
                "bytes of the new changelog an instance",
            ],
            [_of_rebuild(each) for each in found.rebuilds],
        ),
        f"Workers on {groups.PARTITIONS} partitions with {groups.INSTANCES:,} instances:",
        "",
        *table(
            ["workers", *(f"{how}: {of}" for how in _CHANGES for of in ("s", "s of processor")), "MiB of each"],
            [_of_group(each) for each in found.groups],
        ),
    ]
    return write_page(page, "Sizes", lines, command=command, libraries=_LIBRARIES, earlier=found.before)


def _of_traffic(each: Traffic) -> list[str]:
    of = {topic: size / each.callbacks for topic, size in each.topic_bytes.items()}
    events, notifications = of[TASK_EVENTS.name], of[TASK_NOTIFICATIONS.name]
    return [
        f"{each.target_rate:,}",
        f"{each.rate:,.0f}",
        f"{each.callbacks:,}",
        f"{each.notifications / each.callbacks:.2f}",
        *(f"{size:,.0f}" for size in (events, notifications, sum(of.values()) - events - notifications)),
        *(f"{each.cpu_s[name] / each.callbacks * 1000:.2f}" for name in (EDGE, STREAMS, KAFKA)),
        *(f"{each.memory_mb[name]:.0f}" for name in (EDGE, STREAMS)),
    ]


_SIZES: tuple[tuple[str, Callable[[Holding], float]], ...] = (
    ("changelog of states, on Kafka", lambda each: each.on_kafka[INSTANCES]),
    ("`task-states`, on Kafka", lambda each: each.on_kafka[TASK_STATES.name]),
    ("states, on a worker's disk", lambda each: each.store_bytes),
    ("memory of a worker with all partitions", lambda each: each.memory_mb * (1 << 20)),
)


def _of_holdings(holdings: Sequence[Holding], name: str, size: Callable[[Holding], float]) -> list[str]:
    least, most = holdings[-2:]
    more = (size(most) - size(least)) / (most.instances - least.instances)
    return [name, *(f"{size(each) / (1 << 20):,.1f} MiB" for each in holdings), f"{more:,.0f}"]


def _of_starts(each: Holding) -> list[str]:
    return [f"{each.instances:,}", *_cells(each.empty_disk, each.standby, each.own_disk)]


def _of_group(each: Group) -> list[str]:
    return [f"{each.workers}", *_cells(each.started, each.bereft, each.joined), f"{each.memory_mb:,.0f}"]


def _cells(*found: Started) -> list[str]:
    return [cell for each in found for cell in (f"{each.seconds:.0f}", f"{each.cpu_s:.1f}")]


def _of_rebuild(each: Rebuilt) -> list[str]:
    return [
        f"{each.instances:,}",
        f"{each.seconds:.0f}",
        f"{each.cpu_s / each.instances * 1e6:,.0f}",
        f"{each.standstill_s:.1f}",
        f"{each.notifications:,}",
        f"{each.publishing_s:.0f}",
        f"{each.publishing_cpu_s / each.instances * 1e6:,.0f}",
        f"{each.changelog_bytes / each.instances:,.0f}",
    ]
