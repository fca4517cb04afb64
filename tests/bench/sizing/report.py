"""The page about sizes: what was measured, and what follows from it by arithmetic that it shows."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.bench.machine import machine_section
from tests.bench.sizing.holding import INSTANCES
from tests.bench.sizing.traffic import EDGE, KAFKA, STREAMS
from tests.bench.streams.workload import EVENTS_PER_INSTANCE

from taskbridge.schemas import topics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.bench.machine import Before
    from tests.bench.sizing.holding import Holding
    from tests.bench.sizing.rebuilds import Rebuilt
    from tests.bench.sizing.traffic import Traffic

_LIBRARIES = ("confluent-kafka", "faust-streaming", "rocksdict", "fastapi", "uvicorn")
_DAY_S = 86_400
_EVENTS_DAYS, _NOTIFICATIONS_DAYS = 30, 7
_EXAMPLE = 100
_MIB = 1 << 20
_TIMES = "\u00d7"
_COUNTS = (1_000_000, 10_000_000, 100_000_000)
_EVENTS, _STATES, _NOTIFICATIONS = (
    each.name for each in (topics.TASK_EVENTS, topics.TASK_STATES, topics.TASK_NOTIFICATIONS)
)


@dataclass(frozen=True, slots=True)
class Found:
    """All that was measured."""

    partitions: int
    traffic: Sequence[Traffic]
    spooled_bytes: float
    holdings: Sequence[Holding]
    rebuilds: Sequence[Rebuilt]
    before: Before

    def per_instance(self, of: str, *, plain: bool = False) -> float:
        """How much more of that there is for each instance more, between the two largest numbers."""
        least, most = self.holdings[-2:]
        more = _value(most, of, plain=plain) - _value(least, of, plain=plain)
        return more / (most.instances - least.instances)


def _value(holding: Holding, of: str, *, plain: bool = False) -> float:
    if of in holding.on_kafka:
        return (holding.plain if plain else holding.on_kafka)[of]
    if of == "center_bytes":
        return holding.center.database_mb * _MIB
    if of.endswith("_disk"):
        return getattr(holding, of).cpu_s
    return getattr(holding, of)


def write_page(folder: Path, found: Found, *, command: str) -> Path:
    """Returns where it is."""
    lines = [
        "# Size it",
        "",
        *_prose(f"""
            For the operator: estimate disk, memory and processors from callbacks a second and instances stored. Written
            by `{command}` on {datetime.now(UTC):%Y-%m-%d}, and only by it: run it on your machine for your own figures.
            Bytes and counts are exact. The machine was busy: compare seconds only with each other. One instance is the
            life of ten callbacks. There are {found.partitions} partitions and one replica: multiply Kafka's figures by
            the replication factor, 3 in production.
        """),
        *_by_rate(found),
        *_by_instances(found),
        *_restoring(found),
        *_rebuilding(found),
        *_example(found),
        *machine_section(_LIBRARIES, found.before),
    ]
    page = folder / "size-it.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines) + "\n", "utf-8")
    return page


def _by_rate(found: Found) -> list[str]:
    """By callbacks a second."""
    measured: list[list[str]] = []
    follows: list[list[str]] = []
    for each in found.traffic:
        of = {topic: size / each.callbacks for topic, size in each.topic_bytes.items()}
        others = sum(of.values()) - of[_EVENTS] - of[_NOTIFICATIONS]
        cpu_s = [each.cpu_s[name] / each.callbacks for name in (EDGE, STREAMS, KAFKA)]
        target, daily = f"{each.target_rate:,}", each.target_rate * _DAY_S
        measured.append(
            [
                target,
                f"{each.rate:,.0f}",
                f"{each.callbacks:,}",
                f"{of[_EVENTS]:,.0f}",
                f"{each.notifications / each.callbacks:.2f}",
                f"{of[_NOTIFICATIONS]:,.0f}",
                f"{others:,.0f}",
                *(f"{each_s * 1000:.1f}" for each_s in cpu_s),
                *(f"{each.memory_mb[name]:.0f}" for name in (EDGE, STREAMS)),
            ]
        )
        born = daily / EVENTS_PER_INSTANCE
        follows.append(
            [
                target,
                f"{daily:,}",
                _bytes(daily * _EVENTS_DAYS * of[_EVENTS]),
                _bytes(daily * _NOTIFICATIONS_DAYS * of[_NOTIFICATIONS]),
                *(f"{each_s * each.target_rate:.0%}" for each_s in cpu_s),
                f"{born:,.0f}",
                _time(10**7 / born * _DAY_S),
            ]
        )
    size = found.spooled_bytes
    return [
        "## By callbacks a second",
        "",
        *_prose("""
            Measured with one edge, one worker and one broker. The other topics are states and their changelog, before
            Kafka compacts them to the sizes in the next part.
        """),
        *_table(
            "target a second|reached|callbacks|bytes of `task-events` each|notifications each"
            "|bytes of `task-notifications` each|bytes of the other topics each"
            "|ms of processor each: edge|worker|Kafka|MiB: edge|worker",
            measured,
        ),
        *_prose(f"""
            Bytes are rate {_TIMES} {_DAY_S:,} s {_TIMES} days stored {_TIMES} bytes each. Processors are rate {_TIMES}
            processor time each, in per cent of one core. A worker folds a partition on one core: above some 50 % add
            another worker.
        """),
        *_table(
            f"callbacks a second|a day|`task-events`, {_EVENTS_DAYS} days"
            f"|`task-notifications`, {_NOTIFICATIONS_DAYS} days|edge|worker|Kafka"
            "|new instances a day|10\u2077 instances after",
            follows,
        ),
        "### The edge's spool",
        "",
        *_prose(f"""
            While Kafka does not answer, a callback takes {size:,.0f} bytes of the spool. 1 GiB (`EDGE_SPOOL_MAX_BYTES`)
            holds {2**30:,} / {size:,.0f} = {2**30 / size:,.0f} of them:
        """),
        *_table(
            "callbacks a second|1 GiB lasts|a day needs",
            [
                [
                    f"{each.target_rate:,}",
                    _time(2**30 / size / each.target_rate),
                    _bytes(_DAY_S * each.target_rate * size),
                ]
                for each in found.traffic
            ],
        ),
    ]


_PARTS = (
    (INSTANCES, "changelog of states, on Kafka", False),
    (INSTANCES, "the same, keys and values uncompressed", True),
    (_STATES, "`task-states`, on Kafka", False),
    (_STATES, "the same, uncompressed", True),
    ("store_bytes", "states, on a worker's disk", False),
    ("center_bytes", "states and lists, in the task center's database", False),
)


def _by_instances(found: Found) -> list[str]:
    """By instances that are stored."""
    counts = [f"{each.instances:,}" for each in found.holdings]
    rows: list[list[str]] = []
    for of, name, plain in _PARTS:
        each_needs = found.per_instance(of, plain=plain)
        measured = [_bytes(_value(each, of, plain=plain)) for each in found.holdings]
        rows.append([name, *measured, f"{each_needs:,.0f}", *(_bytes(each_needs * each) for each in _COUNTS)])
    least, resident = found.holdings[-2], max(0.0, found.per_instance("memory_mb")) * _MIB
    memory = [least.memory_mb * _MIB + resident * (each - least.instances) for each in _COUNTS]
    measured = [f"{each.memory_mb:,.0f} MiB" for each in found.holdings]
    rows.append(["memory of a worker with all partitions", *measured, f"{resident:,.0f}", *map(_bytes, memory)])
    return [
        "## By instances stored",
        "",
        *_prose(f"""
            Measured with {_entries_each(found):.1f} entries in people's lists for each instance. Bytes of an instance
            are the difference between the two largest runs. On Kafka, each key counts once, as after compaction; before
            it a changelog is twice as large. While RocksDB compacts, a store is larger: add half. Memory is the
            process's after restoring; RocksDB's buffers, some 20 MiB for each partition and table, fill first. With
            `STREAMS_STANDBYS=1` (the default) each partition is on two workers: a worker's share of disk and memory is
            2 / workers of this. The task center's database is SQLite; it took {_filling(found)} to fill it.
        """),
        *_table(
            "|".join(["", *(f"{each} measured" for each in counts), "bytes an instance", *map(_power, _COUNTS)]), rows
        ),
    ]


def _restoring(found: Found) -> list[str]:
    """Until a worker has its states."""
    least, each_needs = found.holdings[-2], found.per_instance("empty_disk")
    times = [_time(least.empty_disk.cpu_s + each_needs * (each - least.instances)) for each in _COUNTS]
    return [
        "## Until a worker has its states",
        "",
        *_prose("""
            One worker has all partitions. From standby, it takes over from a killed one, after
            `STREAMS_SESSION_TIMEOUT_S` (6 s).
        """),
        *_table(
            "instances|empty disk: s|s of processor|from standby: s|s of processor|own disk: s|s of processor",
            [
                [
                    f"{each.instances:,}",
                    *(
                        text
                        for started in (each.empty_disk, each.standby, each.own_disk)
                        for text in (f"{started.seconds:.0f}", f"{started.cpu_s:.1f}")
                    ),
                ]
                for each in found.holdings
            ],
        ),
        *_prose(f"""
            On an empty disk an instance takes {each_needs * 1e6:,.0f} \u00b5s of processor: {", ".join(times)} for
            {", ".join(map(_power, _COUNTS))}, divided by the number of workers that start empty. From standby and on
            its own disk the time depends on what was missed.
        """),
    ]


def _rebuilding(found: Found) -> list[str]:
    """When every instance changes."""
    last = found.rebuilds[-1]
    rebuild, publishing = (_time(cpu_s / last.instances * 10**7) for cpu_s in (last.cpu_s, last.publishing_cpu_s))
    return [
        "## A rebuild that changes every instance",
        "",
        *_prose("""
            Each instance has another title than its state. `taskbridge streams --rebuild` rebuilds all states, and one
            worker then publishes all differences: see [ADR 24](../adr/0024-rebuild-while-workers-run.md).
        """),
        *_table(
            "instances|rebuild: s|\u00b5s of processor an instance|s with workers stopped"
            "|notifications published|publishing: s|\u00b5s of processor an instance"
            "|bytes of the new changelog an instance",
            [
                [
                    f"{each.instances:,}",
                    f"{each.seconds:.0f}",
                    f"{each.cpu_s / each.instances * 1e6:,.0f}",
                    f"{each.standstill_s:.1f}",
                    f"{each.notifications:,}",
                    f"{each.publishing_s:.0f}",
                    f"{each.publishing_cpu_s / each.instances * 1e6:,.0f}",
                    f"{each.changelog_bytes / each.instances:,.0f}",
                ]
                for each in found.rebuilds
            ],
        ),
        *_prose(f"""
            At the rate of {last.instances:,} instances, 10\u2077 take {rebuild} of processor for the rebuild, while
            workers run, and {publishing} of the workers' processors together for publishing, while events go on.
            Workers are stopped for some seconds more: for the group (6 s), and for their start on the new version.
        """),
    ]


def _example(found: Found) -> list[str]:
    """One case from beginning to end."""
    case = next(each for each in found.traffic if each.target_rate == _EXAMPLE)
    instances = case.target_rate * _DAY_S * 365 // EVENTS_PER_INSTANCE
    replicas, workers = 3, 3
    daily = {topic: case.target_rate * _DAY_S * size / case.callbacks for topic, size in case.topic_bytes.items()}
    events, published = daily[_EVENTS] * _EVENTS_DAYS, daily[_NOTIFICATIONS] * _NOTIFICATIONS_DAYS
    compacted = instances * sum(found.per_instance(of, plain=True) for of in (INSTANCES, _STATES))
    stored = instances * found.per_instance("store_bytes")
    kafka, disk = _bytes(replicas * (events + published + 2 * compacted)), _bytes(2 * stored / workers * 1.5)
    parts = f"{_bytes(events)} events + {_bytes(published)} notifications + 2 {_TIMES} {_bytes(compacted)} compacted"
    return [
        "## An example",
        "",
        *_prose(f"""
            {_EXAMPLE} callbacks a second for a year: {_EXAMPLE} {_TIMES} {_DAY_S:,} {_TIMES} 365 /
            {EVENTS_PER_INSTANCE} = {instances:,} instances.
        """),
        f"- Kafka, {replicas} replicas: {replicas} {_TIMES} ({parts}) = {kafka} on all brokers together.",
        f"- {workers} workers, one standby: 2 {_TIMES} {_bytes(stored)} / {workers} {_TIMES} 1.5 = {disk} disk each.",
        f"- The task center's database: {_bytes(instances * found.per_instance('center_bytes'))}.",
        f"- An edge whose spool is to last a day: {_bytes(_DAY_S * case.target_rate * found.spooled_bytes)}.",
        "- Less with `STREAMS_RETENTION_DAYS`, which deletes finished instances.",
        "",
    ]


def _prose(text: str) -> list[str]:
    """A paragraph, in lines of some length."""
    return [*textwrap.wrap(" ".join(text.split()), 118, break_long_words=False, break_on_hyphens=False), ""]


def _table(head: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """With a blank line behind it."""
    columns = head.split("|")
    lines = [columns, ["---"] * len(columns), *rows]
    return [*(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines), ""]


def _entries_each(found: Found) -> float:
    return found.holdings[-1].entries / found.holdings[-1].instances


def _filling(found: Found) -> str:
    return " and ".join(_time(each.center.seconds) for each in found.holdings)


def _power(number: int) -> str:
    digits = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
    return "10" + "".join(digits[int(each)] for each in str(len(str(number)) - 1))


def _bytes(size: float) -> str:
    step = 1024.0
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < step:
            return f"{size:,.3g} {unit}" if size < step / 10 else f"{size:,.0f} {unit}"
        size /= step
    return f"{size:,.1f} TiB"


def _time(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"
