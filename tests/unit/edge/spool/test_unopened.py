"""A file that could not be opened is left alone, each time longer, and told of until somebody opens it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from taskbridge.edge.spool.files import SpoolFolder
from taskbridge.edge.spool.unopened import Unopened

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_each_pause_is_twice_the_last_up_to_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    (tmp_path / "3.db").touch()
    unopened = Unopened(SpoolFolder(tmp_path))
    for pause_s in (1, 2, 4, 8, 10, 10):
        unopened.add(3, "broken")
        now += pause_s - 0.25
        assert unopened.paused() == {3}
        now += 0.25
        assert unopened.paused() == set()


def test_it_is_told_of_while_it_is_there_and_this_process_or_nobody_has_it(tmp_path: Path) -> None:
    (tmp_path / "0.db").touch()
    folder = SpoolFolder(tmp_path)
    folder.prepare()
    unopened = Unopened(folder)
    unopened.add(0, "broken")
    unopened.add(1, "never there")
    assert (unopened.there(), unopened.problems(opened=())) == ({0}, {0: "broken"})
    assert unopened.problems(opened={0}) == {}
    claim = folder.claim_own()
    assert unopened.problems(opened=()) == {0: "broken"}
    (tmp_path / "0.lock").write_text(str(os.getppid()))
    assert unopened.problems(opened=()) == {}
    claim.release()
    (tmp_path / "0.db").unlink()
    assert (unopened.there(), unopened.problems(opened=())) == (set(), {})
