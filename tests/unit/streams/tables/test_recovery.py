"""Where a store continues in its changelog, and when it must be wiped or left alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from faust.types import TP

from taskbridge.streams.table_versions import TOMBSTONE_RETENTION_MS
from taskbridge.streams.tables.recovery import (
    Assignment,
    Start,
    assignment_of,
    starting_point,
)
from taskbridge.streams.tables.store import StorePosition
from taskbridge.streams.transactions.positions import Bounds

NOW = 10**12
DAY = 24 * 60 * 60 * 1000
OLDEST = NOW - TOMBSTONE_RETENTION_MS * 3 // 4


def start_of(position: StorePosition | None, bounds: Bounds) -> Start:
    return starting_point(position, bounds, changelog_id="first", now_ms=NOW)


@pytest.mark.parametrize(
    ("position", "bounds", "offset"),
    [
        (None, Bounds(0, 10), 0),
        (None, Bounds(5, 10), 5),
        (StorePosition(3, "first", NOW), Bounds(0, 10), 4),
        (StorePosition(9, "first", NOW), Bounds(0, 10), 10),
        (StorePosition(4, "first", NOW), Bounds(5, 10), 5),
        (StorePosition(3, "first", NOW - 5 * DAY), Bounds(0, 10), 4),
        (StorePosition(3, "first", OLDEST), Bounds(0, 10), 4),
    ],
    ids=[
        "new",
        "new-truncated",
        "in-the-middle",
        "at-the-end",
        "just-before-the-start",
        "away-for-days",
        "as-old-as-may-be",
    ],
)
def test_a_store_continues_after_its_position(position: StorePosition | None, bounds: Bounds, offset: int) -> None:
    assert start_of(position, bounds) == Start(offset)


@pytest.mark.parametrize(
    ("position", "bounds", "reason"),
    [
        (StorePosition(3, "other", NOW), Bounds(0, 10), "another changelog"),
        (StorePosition(3, "first", OLDEST - 1), Bounds(0, 10), "tombstones"),
        (StorePosition(10, "first", NOW), Bounds(0, 10), "to 10"),
        (StorePosition(3, "first", NOW), Bounds(5, 10), "from 5"),
    ],
    ids=["another-changelog", "missed-tombstones", "beyond-the-end", "truncated-start"],
)
def test_a_store_that_does_not_fit_its_changelog_is_wiped(position: StorePosition, bounds: Bounds, reason: str) -> None:
    start = start_of(position, bounds)
    assert start.offset == bounds.first
    assert reason in (start.wipe_because or "")


def test_a_standby_of_an_active_partition_is_none() -> None:
    def assigned(*actives: TP) -> SimpleNamespace:
        standbys = {TP("changelog", 0), TP("changelog", 1)}
        return SimpleNamespace(assigned_actives=lambda: {*actives}, assigned_standbys=lambda: standbys)

    found = assignment_of(assigned(TP("events", 2), TP("changelog", 0)), "changelog")
    assert found == Assignment(frozenset({0}), frozenset({1}))
