"""Prometheus' promtool on our alert rules, and recorded outages in promtool's notation."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import asdict, dataclass, field
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
USED = {name for each in RULES for name in re.findall(r"taskbridge_\w+", each.read_text("utf-8"))} | {"up"}
"""The metrics that a rule uses: only they are recorded."""

_GONE = "stale"


@dataclass(slots=True)
class Recording:
    """One outage, from a while before it."""

    what: str
    recorded: str
    interval_s: int
    begins: int
    """How many scrapes there were before it began."""
    scrapes: int
    series: dict[str, str]

    def save(self, name: str) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / f"{name}.json").write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8")

    @staticmethod
    def load(path: Path) -> Recording:
        return Recording(**json.loads(path.read_text("utf-8")))


@dataclass(slots=True)
class Scrapes:
    """Samples of several targets by scrape; a series that a target no longer exposes is stale, as in Prometheus."""

    count: int = 0
    _series: dict[str, list[str | None]] = field(default_factory=dict[str, list["str | None"]])

    def add(self, samples: Mapping[str, str]) -> None:
        """The samples of all targets at one time."""
        for name in samples:
            self._series.setdefault(name, [None] * self.count)
        for name, values in self._series.items():
            values.append(samples.get(name, _GONE if values and values[-1] not in (None, _GONE) else None))
        self.count += 1

    def notation(self) -> dict[str, str]:
        """For promtool. Of the hundreds that only differ in a label, those that never left zero are left out."""
        return {
            name: " ".join(_runs(values))
            for name, values in sorted(self._series.items())
            if not ("outcome=" in name or "reason=" in name) or {*values} - {"0.0", None, _GONE}
        }


def samples_of(exposition: str | None, *, job: str, instance: str) -> dict[str, str]:
    """As Prometheus names them, of one scrape; None is one that failed."""
    where = f'instance="{instance}",job="{job}"'
    found = {f"up{{{where}}}": "0" if exposition is None else "1"}
    for name, labels, value in _SAMPLE.findall(exposition or ""):
        if name in USED:
            found[f"{name}{{{f'{labels},' if labels else ''}{where}}}"] = value
    return found


def _runs(values: Iterable[str | None]) -> list[str]:
    """Equal ones together: ``1x3`` is four of them, ``_x4`` is four that are missing."""
    counted: list[tuple[str, int]] = []
    for value in ("_" if each is None else each for each in values):
        if counted and counted[-1][0] == value != _GONE:
            counted[-1] = (value, counted[-1][1] + 1)
        else:
            counted.append((value, 1))
    return [_run(value, times) for value, times in counted]


def _run(value: str, times: int) -> str:
    if value == _GONE:
        return value
    short = value if value == "_" else f"{float(value):.8g}"
    if times == 1:
        return short
    return f"_x{times}" if value == "_" else f"{short}x{times - 1}"
