"""Whose turn it is, also where clocks were set back, and where another file cannot be read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import asdict

from support.edge.spool import SCHEMA, numbers, record
from taskbridge.edge.kafka.record import SpooledRecord, row_of
from taskbridge.edge.spool.draining import turns
from taskbridge.edge.spool.draining.turns import Turns
from taskbridge.edge.spool.files import Claim, SpoolFolder
from taskbridge.edge.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def claim(tmp_path: Path) -> Iterator[Claim]:
    folder = SpoolFolder(tmp_path)
    folder.prepare()
    claim = folder.claim_own()
    yield claim
    claim.release()


def waiting(number: int, key: str, *, at: int) -> SpooledRecord:
    return SpooledRecord(**asdict(record(number, key=key)), position=number, created_at=at)


def whose_turn(claim: Claim, *pending: SpooledRecord, oldest: int) -> list[int]:
    """With one other file, whose oldest record came then."""
    folder = SpoolFolder(claim.path.parent)
    folder.prepare()
    folder.occupancy.set(7, oldest=oldest, count=1, size=1)
    return numbers(asyncio.run(Turns(claim, folder.occupancy).among(list(pending))))


def other_file(claim: Claim, *created_at: int, key: str) -> None:
    rows = [row_of(record(each, key=key), position=each, created_at=each) for each in created_at]
    Store.create(claim.path.with_name("7.db"), [SCHEMA], rows)


def test_what_follows_one_that_waits_waits_too_though_the_clock_says_that_it_came_first(claim: Claim) -> None:
    other_file(claim, 3, key="same")
    pending = (waiting(1, "same", at=5), waiting(2, "same", at=2), waiting(3, "other", at=9))
    assert whose_turn(claim, *pending, oldest=3) == [3]


def test_behind_what_one_knows_nothing_about_nothing_goes_though_the_clock_says_that_it_came_first(
    claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_LOOK_AHEAD", 2)
    other_file(claim, 3, 6, 8, key="far behind")
    pending = (waiting(1, "first", at=6), waiting(2, "same", at=7), waiting(3, "same", at=5))
    assert whose_turn(claim, *pending, oldest=3) == [1]


def test_while_another_file_cannot_be_read_nothing_goes(claim: Claim) -> None:
    claim.path.with_name("7.db").write_bytes(b"nonsense")
    assert whose_turn(claim, waiting(1, "one", at=1), waiting(2, "two", at=9), oldest=3) == []


def test_nobody_waits_for_a_file_whose_oldest_came_at_the_same_instant(claim: Claim) -> None:
    claim.path.with_name("7.db").write_bytes(b"nonsense")
    assert whose_turn(claim, waiting(1, "one", at=3), oldest=3) == [1]
