"""Only two absences, at least a day apart, are a deletion. The first one survives restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taskbridge.reconcile.store import Store, open_database
from taskbridge.runtime.dingtalk.clock import DAY_MS
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

THEN = 1_790_000_000_000
KEY = "ding1", "APP_1", "I-1"


def test_an_absence_counts_when_another_process_finds_it_again_a_day_later(tmp_path: Path) -> None:
    before = Store(open_database(tmp_path)).absences
    assert before.record(*KEY, now_ms=THEN) is None
    assert before.record(*KEY, now_ms=THEN + DAY_MS - 1) is None
    after = Store(open_database(tmp_path)).absences
    assert after.due("ding1", "APP_1", now_ms=THEN + DAY_MS - 1) == []
    assert after.due("ding1", "APP_1", now_ms=THEN + DAY_MS) == ["I-1"]
    assert after.due("ding1", "APP_2", now_ms=THEN + DAY_MS) == []
    assert after.record(*KEY, now_ms=THEN + DAY_MS) == THEN
    assert after.record(*KEY, now_ms=THEN + 9 * DAY_MS) == THEN, "the same deletion, always"


def test_an_instance_that_is_returned_again_was_never_absent(tmp_path: Path) -> None:
    absences = Store(open_database(tmp_path)).absences
    absences.record(*KEY, now_ms=THEN)
    absences.delete(*KEY)
    assert absences.record(*KEY, now_ms=THEN + 2 * DAY_MS) is None


def test_an_unusable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(ConfigurationError, match="a-file"):
        open_database(tmp_path / "a-file")
