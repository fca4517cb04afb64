"""One process owns a spool file; a file that cannot be opened is tried less and less often."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from taskbridge.edge.spool.folder import FolderCounts, SpoolFolder, Unopened
from taskbridge.edge.spool.store import SpoolFull

if TYPE_CHECKING:
    from pathlib import Path


def prepared(path: Path) -> SpoolFolder:
    folder = SpoolFolder(path)
    folder.prepare()
    return folder


def test_what_a_claimed_file_holds_may_be_old_and_counts_for_nothing_until_it_is_read(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    claim = folder.claim_own()
    (slot,) = folder.occupancy.slots().values()
    assert 0 < slot.oldest < 10**9, "older than any record"
    counts = FolderCounts(folder)
    assert (counts.waiting, counts.size, counts.moving) == (0, 0, 0)
    claim.release()


def test_an_owner_whose_number_a_full_disk_did_not_take_is_an_owner_all_the_same(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    claim = folder.claim_own()
    (tmp_path / "0.lock").write_text("")
    assert folder.owner(0) == 0
    claim.release()
    assert folder.owner(0) is None


def test_a_damaged_file_and_its_log_are_one(tmp_path: Path) -> None:
    aside = tmp_path / "0.db.damaged-20261126T000000-000000001"
    for each in (aside, aside.with_name(f"{aside.name}-wal")):
        each.touch()
    assert prepared(tmp_path).damaged() == [aside]


def test_a_folder_that_cannot_be_made_has_no_room_for_now(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = SpoolFolder(tmp_path / "file" / "spool")
    with pytest.raises(SpoolFull):
        folder.prepare()
    assert not folder.is_prepared


def test_nobody_else_may_lock_a_file_or_write_what_all_see(tmp_path: Path) -> None:
    claim = prepared(tmp_path).claim_own()
    assert {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {"0.lock": 0o600, "page": 0o600}
    claim.release()


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


def test_a_file_is_reported_while_it_is_there_and_no_other_process_has_it(tmp_path: Path) -> None:
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
