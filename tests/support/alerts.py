"""Prometheus' promtool on our alert rules, and recorded outages in promtool's notation."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from support import needs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


RULES = sorted((Path(__file__).parents[2] / "deploy" / "alerts").glob("*.rules.yml"))
ALERTS = {alert for each in RULES for alert in re.findall(r"- alert: (\w+)", each.read_text("utf-8"))}

_SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
_FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'


@dataclass(frozen=True, slots=True)
class Outage:
    """The series that change after a period in which all was well.

    Keys are series as a service exposes them, ``name`` or ``name{label="value"}``; an unknown one is an error, so
    that no test rests on a series that was renamed. A value is what a gauge is from then on.
    """

    alerts: frozenset[str]
    minutes: int
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    rises: Mapping[str, float] = field(default_factory=dict[str, float])
    """By how much counters rise, once."""
    rates: Mapping[str, float] = field(default_factory=dict[str, float])
    """By how much counters rise from scrape to scrape."""
    slow: bool = False
    """For days: scraped every four minutes (Prometheus drops a series after five), evaluated every hour."""


def series_of(exposition: str, *, job: str) -> dict[str, tuple[str, float]]:
    """The series that one process exposes: the name there and in Prometheus, and the value."""
    found: dict[str, tuple[str, float]] = {}
    for name, labels, value in _SAMPLE.findall(exposition):
        where = f'instance="{job}:1",job="{job}"'
        series = f"{name}{{{labels}}}" if labels else name
        found[series] = (f"{name}{{{f'{labels},' if labels else ''}{where}}}", float(value))
    return found | {f'up{{job="{job}"}}': (f'up{{instance="{job}:1",job="{job}"}}', 1)}


def firing(series: Mapping[str, tuple[str, float]], outage: Outage, folder: Path) -> str:
    """What promtool complains of: nothing fires while all is well, then exactly the outage's alerts. Empty: nothing."""
    if unknown := {*outage.values, *outage.rises, *outage.rates} - {*series}:
        raise LookupError(f"no service exposes {sorted(unknown)}")
    scrape, look = (4, 60) if outage.slow else (1, 1)
    well = 2 * look if outage.slow else 20
    test = {
        "interval": f"{scrape}m",
        "input_series": [
            {"series": name, "values": _values(exposed, value, outage, well // scrape, outage.minutes // scrape)}
            for exposed, (name, value) in series.items()
        ],
        "promql_expr_test": [
            _expects(well - look, ()),
            _expects(well + outage.minutes - look, sorted(outage.alerts)),
        ],
    }
    return complaints(test, folder, every=f"{look}m")


def complaints(test: Mapping[str, object], folder: Path, *, every: str) -> str:
    """What promtool complains of where the rules are looked at ``every`` so often. Empty: nothing."""
    path = folder / "outage.yml"
    tests = {"rule_files": [str(each) for each in RULES], "evaluation_interval": every, "tests": [test]}
    path.write_text(json.dumps(tests), "utf-8")
    done = subprocess.run(
        [needs.program("promtool"), "test", "rules", path], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _values(series: str, value: float, outage: Outage, before: int, after: int) -> str:
    well = f"{value}x{before - 1}"
    if rise := outage.rates.get(series):
        return f"{well} {value + rise}+{rise}x{after - 1}"
    return f"{well} {outage.values.get(series, value + outage.rises.get(series, 0))}x{after - 1}"


def _expects(minute: int, alerts: Iterable[str]) -> Mapping[str, object]:
    return {"expr": _FIRING, "eval_time": f"{minute}m", "exp_samples": samples(alerts)}


def samples(alerts: Iterable[str]) -> list[Mapping[str, object]]:
    """What an expression gives that has one sample for each alert."""
    return [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)]


FOLDER = Path(__file__).parents[1] / "vectors" / "outages"


@dataclass(slots=True)
class Recording:
    """One real outage, from a while before it: what Prometheus scraped of an edge and its workers.

    Only of the metrics that a rule uses. Series that differ in a label alone are left out where they never left zero.
    """

    what: str
    """How the outage was provoked."""
    recorded: str
    interval_s: int
    begins: int
    """How many scrapes there were before it began."""
    scrapes: int
    series: dict[str, str]

    @staticmethod
    def load(path: Path) -> Recording:
        return Recording(**json.loads(path.read_text("utf-8")))
