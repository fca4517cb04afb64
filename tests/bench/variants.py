"""Variants of a peer's settings, in turns with the settings that the tables use: shows which is best.

A variant is called by its peer's name, a plus and its own, as in ``spring-boot+jetty``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.bench.command import progress
from tests.bench.machine import machine_section
from tests.bench.spreads import Estimate, estimate, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tests.bench.machine import Before

_EXPLAINED = (
    "The first row has medians of the rounds with their range, each other the geometric mean of the ratios to it within"
    " each round, with its 95 % confidence interval in brackets: `≈` marks one whose interval holds 1. The best is the"
    " furthest on the good side of 1, of those whose whole interval is."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What differs from the peer's own settings."""

    about: str = ""
    flags: tuple[str, ...] = ()
    """Of the JVM, behind the peer's own: a later one wins."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    build: tuple[str, ...] = ()
    """Of Maven as arguments, of Go as environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One figure: by contender its values in the order of the rounds."""

    title: str
    values: Mapping[str, Sequence[float]]
    most_is_best: bool = False
    digits: int = 0

    def ratios(self, default: str) -> dict[str, Estimate]:
        theirs = self.values[default]
        return {
            name: estimate(one / two for one, two in zip(values, theirs, strict=True))
            for name, values in self.values.items()
            if name != default
        }

    def best(self, default: str) -> str:
        """Whose ratio is the furthest on the good side of 1, of those whose whole interval is; else the default."""
        ahead = {
            name: 1 / ratio.value if self.most_is_best else ratio.value
            for name, ratio in self.ratios(default).items()
            if (ratio.low > 1 if self.most_is_best else ratio.high < 1)
        }
        return min(ahead, key=ahead.__getitem__, default=default)


def named(peer: str, variants: Iterable[str]) -> list[str]:
    """The peer with its own settings, and behind it all of its variants."""
    return [peer, *(f"{peer}+{each}" for each in variants)]


def peer_of(name: str) -> str:
    return name.partition("+")[0]


def watched(columns: Sequence[Column], default: str) -> dict[str, Estimate]:
    """What rounds go on for."""
    return {f"{column.title} of {name}": ratio for column in columns for name, ratio in column.ratios(default).items()}


def write_page(
    page: Path,
    columns: Sequence[Column],
    *,
    default: str,
    abouts: Mapping[str, str],
    left_out: Mapping[str, str],
    ended: Sequence[str],
    command: str,
    earlier: Before,
) -> Path:
    page.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"# Variants of {default}", "", f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}.", ""]
    lines += [f"{_EXPLAINED} {' '.join(ended)}", "", *table(columns, default), ""]
    lines += [f"- {name}: {about}" for name, about in abouts.items()]
    lines += [f"- Left out: {name}: {reason}" for name, reason in left_out.items()]
    lines += ["", *machine_section((), earlier)]
    page.write_text("\n".join(lines) + "\n")
    progress("\n".join(table(columns, default)))
    return page


def table(columns: Sequence[Column], default: str) -> list[str]:
    ratios = [each.ratios(default) for each in columns]
    rows = [["", *(each.title for each in columns)], ["---"] * (len(columns) + 1)]
    rows += [[default, *(spread(each.values[default]).text(each.digits) for each in columns)]]
    # A contender that lost a round is in no column, one that is in the first is in all.
    rows += [[f"+{name.partition('+')[2]}", *(each[name].ratio_text() for each in ratios)] for name in ratios[0]]
    rows += [["best", *(each.best(default).partition("+")[2] or "as it is" for each in columns)]]
    return [f"| {' | '.join(row)} |" for row in rows]
