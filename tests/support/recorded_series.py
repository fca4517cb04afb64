"""What Prometheus saw of a real outage, kept small: each series in promtool's own notation, as it was scraped.

``tests/chaos/record_outages.py`` records; ``tests/unit/monitoring/test_recorded_outages.py`` asks our rules about it.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from alerting import RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FOLDER = Path(__file__).parents[1] / "vectors" / "outages"
ASKED = {name for each in RULES for name in re.findall(r"taskbridge_\w+", each.read_text("utf-8"))} | {"up"}
"""The metrics that a rule asks for: only they are kept."""

_GONE = "stale"
_SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)


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
    """What several targets told, scrape by scrape; what a target told and tells no more is stale, as in Prometheus."""

    count: int = 0
    _series: dict[str, list[str | None]] = field(default_factory=dict[str, list["str | None"]])

    def add(self, told: Mapping[str, str]) -> None:
        """All targets' series of one moment."""
        for name in told:
            self._series.setdefault(name, [None] * self.count)
        for name, values in self._series.items():
            values.append(told.get(name, _GONE if values and values[-1] not in (None, _GONE) else None))
        self.count += 1

    def notation(self) -> dict[str, str]:
        """For promtool. Of the hundreds that only differ in a label, those that never left zero are left out."""
        return {
            name: " ".join(_runs(values))
            for name, values in sorted(self._series.items())
            if not ("outcome=" in name or "reason=" in name) or {*values} - {"0.0", None, _GONE}
        }


def told_by(exposition: str | None, *, job: str, instance: str) -> dict[str, str]:
    """As Prometheus names them, of one scrape; None is one that failed."""
    where = f'instance="{instance}",job="{job}"'
    found = {f"up{{{where}}}": "0" if exposition is None else "1"}
    for name, labels, value in _SAMPLE.findall(exposition or ""):
        if name in ASKED:
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
