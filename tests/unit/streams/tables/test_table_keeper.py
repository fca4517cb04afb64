"""Where a store goes on in its changelog, and when what it holds cannot be built upon."""

from __future__ import annotations

import pytest

from streams.tables.changelog_topic import TOMBSTONES_KEPT_MS
from streams.tables.offsets import Bounds
from streams.tables.store import Position
from streams.tables.table_keeper import Start, starting_point

NOW = 10**12
DAY = 24 * 60 * 60 * 1000


def start_of(position: Position | None, bounds: Bounds) -> Start:
    return starting_point(position, bounds, changelog_id="first", now_ms=NOW)


@pytest.mark.parametrize(
    ("position", "bounds", "offset"),
    [
        (None, Bounds(0, 10), 0),
        (None, Bounds(5, 10), 5),
        (Position(3, "first", NOW), Bounds(0, 10), 4),
        (Position(9, "first", NOW), Bounds(0, 10), 10),
        (Position(4, "first", NOW), Bounds(5, 10), 5),
        (Position(3, "first", NOW - 5 * DAY), Bounds(0, 10), 4),
    ],
    ids=["new", "new-truncated", "in-the-middle", "at-the-end", "just-before-the-start", "away-for-days"],
)
def test_it_reads_on_behind_what_it_has(position: Position | None, bounds: Bounds, offset: int) -> None:
    assert start_of(position, bounds) == Start(offset)


@pytest.mark.parametrize(
    ("position", "bounds", "reason"),
    [
        (Position(3, "other", NOW), Bounds(0, 10), "made anew"),
        (Position(10, "first", NOW), Bounds(0, 10), "ends at 10"),
        (Position(3, "first", NOW), Bounds(5, 10), "begins at 5"),
        (Position(3, "first", NOW - TOMBSTONES_KEPT_MS), Bounds(0, 10), "tombstones"),
    ],
    ids=["another-changelog", "beyond-the-end", "truncated-start", "missed-tombstones"],
)
def test_what_it_has_is_not_built_upon(position: Position, bounds: Bounds, reason: str) -> None:
    start = start_of(position, bounds)
    assert start.offset == bounds.first
    assert reason in (start.wipe_because or "")
