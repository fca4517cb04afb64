"""The page of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.bench.center.installations import POSTGRESQL, SQLITE
from tests.bench.page import table, write_page
from tests.bench.spreads import EXPLAINED, Bound, estimate, spread
from tests.bench.webhooks.outpost import OUTPOST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.bench.machine import Before
    from tests.bench.webhooks.load import Checked
    from tests.bench.webhooks.windows import Measured, Window

_LIBRARIES = ("aiohttp", "sqlalchemy", "psycopg", "msgspec", "confluent-kafka")
_RATES = {SQLITE: Bound(2000, is_least=True), POSTGRESQL: Bound(1500, is_least=True)}
_PACED_MS = {0.5: Bound(30, unit=" ms"), 0.99: Bound(150, unit=" ms")}
"""Of p50 and p99 under load."""
IDLE = 200
_IDLE_PERCENT = 1
_KEPT = Bound(0.9, is_least=True)


@dataclass(slots=True)
class Found:
    """Of a run."""

    silent: int
    per_second: int
    measured: dict[str, Measured] = field(default_factory=dict[str, Any])
    """By contender."""
    ended: list[str] = field(default_factory=list[str])


def write_report(page: Path, found: Found, *, command: str, earlier: Before) -> Path:
    lines = [
        EXPLAINED,
        "",
        "Each notification is for one endpoint of a receiver, which is a process of its own and verifies every",
        "signature. All must arrive, and for each list entry in order, or no figure counts.",
        "",
        *_table(found),
        "- The rate is that of the last nine tenths of a backlog. CPU time is for all of it, from Kafka to the",
        "  recorded attempt; memory is the service's.",
        "- The silent endpoint accepts connections and never answers. Backlogs with it and without it take turns.",
    ]
    if OUTPOST in found.measured:
        lines += [
            "- [Outpost](https://github.com/hookdeck/outpost) queues in RabbitMQ, and uses Redis and PostgreSQL. It",
            "  has the same receiver, signatures, endpoints and requests at once, but promises no order. Its backlog",
            "  is posted to its API before it may deliver: the rate leaves that out, CPU time includes it.",
        ]
    lines += [*(f"- {each}" for each in found.ended), ""]
    return write_page(page, "Webhooks", lines, command=command, libraries=_LIBRARIES, earlier=earlier)


def _table(found: Found) -> list[str]:
    every = found.measured.values()

    def windows(value: Callable[[Window], float], digits: int = 0) -> list[str]:
        return [spread(map(value, each.alone)).text(digits) for each in every]

    def latency(*checked: Checked) -> str:
        return " / ".join(spread(each.quantile(share) for each in checked).text(1) for share in _PACED_MS)

    def paced_goals(checked: Sequence[Checked]) -> str:
        found = {share: estimate(each.quantile(share) for each in checked) for share in _PACED_MS}
        return " / ".join(bound.verdict(found[share]) for share, bound in _PACED_MS.items())

    def idle(each: Measured) -> str:
        if each.idle is None:
            return "-"
        met = "met" if each.idle.service * 100 < _IDLE_PERCENT else "missed"
        return f"{each.idle.service:.1%} (its server {each.idle.servers:.1%}), {met}"

    def goals(name: str, each: Measured) -> str:
        found = estimate(window.per_second for window in each.alone)
        return f"{_RATES[name]}: {_RATES[name].verdict(found)}" if name in _RATES else "-"

    kept = [f"{each.kept().text()}, {_KEPT.verdict(each.kept())}" if each.isolated else "-" for each in every]
    most = [f"{max(window.memory_mb for window in each.isolated):.0f}" if each.isolated else "-" for each in every]
    rows = [
        ["deliveries/s", *windows(lambda each: each.per_second)],
        ["goal", *(goals(name, each) for name, each in found.measured.items())],
        ["deliveries per CPU second of the service", *windows(lambda each: each.per_cpu_second)],
        ["CPU ms of its servers per delivery", *windows(lambda each: each.server_cpu_ms, 2)],
        ["memory, MiB", *windows(lambda each: each.memory_mb)],
        ["notification to delivery at rest, p50 / p99 ms", *(latency(each.rest) for each in every)],
        [f"at {found.per_second}/s, p50 / p99 ms", *(latency(*each.paced) for each in every)],
        [f"goal: {' / '.join(map(str, _PACED_MS.values()))}", *(paced_goals(each.paced) for each in every)],
        [f"of a core, {IDLE} idle endpoints; goal: less than {_IDLE_PERCENT} %", *map(idle, every)],
        [f"rate next to a silent endpoint with {found.silent:,} waiting", *kept],
        ["memory then, MiB", *most],
    ]
    return table(["", *found.measured], rows)
