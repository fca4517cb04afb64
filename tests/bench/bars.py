"""A grouped bar chart with whiskers as SVG, by hand: no plotting library is needed for a handful of them."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.spreads import Spread

_COLOURS = ("#1b6ca8", "#7fb2d9", "#d98324", "#5b8c5a", "#8a6bb0", "#9a9a9a", "#c25b7a")
_BAR, _GAP, _LEFT, _TOP, _HEIGHT, _BOTTOM = 34, 40, 64, 64, 240, 40
_TICKS = 5


def bars(title: str, unit: str, groups: Mapping[str, Mapping[str, Spread]]) -> str:
    """One group for each key, one bar for each key within, in the order given; whiskers show the whole range."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    top = _round_up(max(each.high for group in groups.values() for each in group.values()))
    width = _LEFT + max(sum(len(group) * _BAR + _GAP for group in groups.values()), _legend_step(names) * len(names))
    height = _TOP + _HEIGHT + _BOTTOM
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-size="12">',
        '<style>text{font-family:sans-serif}</style><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="15">{escape(title)}</text>',
        *_legend(names),
        *_axis(top, unit, width),
    ]
    left = _LEFT + _GAP / 2
    for label, group in groups.items():
        for at, (name, found) in enumerate(group.items()):
            out += _bar(left + at * _BAR, found, top, _COLOURS[names.index(name) % len(_COLOURS)])
        middle = left + len(group) * _BAR / 2
        out.append(f'<text x="{middle:.0f}" y="{_TOP + _HEIGHT + 20}" text-anchor="middle">{escape(label)}</text>')
        left += len(group) * _BAR + _GAP
    return "\n".join([*out, "</svg>\n"])


def _bar(left: float, found: Spread, top: float, colour: str) -> list[str]:
    y, low, high = (_TOP + _HEIGHT * (1 - each / top) for each in (found.median, found.low, found.high))
    middle = left + _BAR / 2 - 2
    value = f"{found.median:,.0f}" if found.median >= 10 else f"{found.median:.1f}"
    return [
        f'<rect x="{left:.1f}" y="{y:.1f}" width="{_BAR - 4}" height="{_TOP + _HEIGHT - y:.1f}" fill="{colour}"/>',
        f'<path d="M{middle:.1f} {low:.1f}V{high:.1f}" stroke="#222"/>',
        f'<text x="{middle:.1f}" y="{high - 4:.1f}" text-anchor="middle" font-size="10">{value}</text>',
    ]


def _legend(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for at, name in enumerate(names):
        x = _LEFT + at * _legend_step(names)
        found.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{_COLOURS[at % len(_COLOURS)]}"/>')
        found.append(f'<text x="{x + 17}" y="42">{escape(name)}</text>')
    return found


def _legend_step(names: Sequence[str]) -> int:
    return max(120, 30 + 7 * max(map(len, names)))


def _axis(top: float, unit: str, width: float) -> list[str]:
    found = [f'<text x="8" y="{_TOP - 6}" font-size="10">{escape(unit)}</text>']
    for tick in range(_TICKS + 1):
        y = _TOP + _HEIGHT * (1 - tick / _TICKS)
        found.append(f'<path d="M{_LEFT} {y:.1f}H{width}" stroke="#ddd"/>')
        found.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * tick / _TICKS:,.4g}</text>')
    return found


def _round_up(value: float) -> float:
    step = 10 ** math.floor(math.log10(value)) / 2
    return math.ceil(value * 1.05 / step) * step
