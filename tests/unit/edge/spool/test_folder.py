"""One process owns a spool file; a file that cannot be opened is tried less and less often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taskbridge.edge.spool.folder import SpoolFolder
from taskbridge.edge.spool.store import SpoolFull

if TYPE_CHECKING:
    from pathlib import Path


def prepared(path: Path) -> SpoolFolder:
    folder = SpoolFolder(path)
    folder.prepare()
    return folder


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


def test_nobody_else_may_lock_a_file(tmp_path: Path) -> None:
    claim = prepared(tmp_path).claim_own()
    assert {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {"0.lock": 0o600}
    claim.release()
