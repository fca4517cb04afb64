"""Only what DingTalk does not know twice, a day apart, is deleted; the first time outlives the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taskbridge.reconcile.dingtalk.moments import DAY_MS
from taskbridge.reconcile.kept.absences import Absences
from taskbridge.reconcile.kept.database import open_database
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

THEN = 1_790_000_000_000
KEY = "ding1", "APP_1", "I-1"


def test_an_absence_counts_when_it_is_found_again_a_day_later_by_another_process(tmp_path: Path) -> None:
    before = Absences(open_database(tmp_path))
    assert before.absent(*KEY, now_ms=THEN) is None
    assert before.absent(*KEY, now_ms=THEN + DAY_MS - 1) is None
    after = Absences(open_database(tmp_path))
    assert [*after.due("ding1", "APP_1", now_ms=THEN + DAY_MS - 1)] == []
    assert [*after.due("ding1", "APP_1", now_ms=THEN + DAY_MS)] == ["I-1"]
    assert [*after.due("ding1", "APP_2", now_ms=THEN + DAY_MS)] == []
    assert after.absent(*KEY, now_ms=THEN + DAY_MS) == THEN
    assert after.absent(*KEY, now_ms=THEN + 9 * DAY_MS) == THEN, "the same deletion, for ever"


def test_what_was_seen_since_was_never_absent(tmp_path: Path) -> None:
    absences = Absences(open_database(tmp_path))
    absences.absent(*KEY, now_ms=THEN)
    absences.seen(*KEY)
    assert absences.absent(*KEY, now_ms=THEN + 2 * DAY_MS) is None


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(ConfigurationError, match="a-file"):
        open_database(tmp_path / "a-file")
