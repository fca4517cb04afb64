"""What is said of a token's last use outlives restarts, comes from all workers, and is never guessed."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from taskbridge.edge.verification.credentials import Token, parse_credentials
from taskbridge.edge.verification.token_use import TokenUse, UseUnknown, read_use, use_folder

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = parse_credentials('[[apps]]\napp_type = "A"\nsystem_tokens = ["s3cret-1", "s3cret-2"]').tokens


def worker(tmp_path: Path, *used: Token) -> None:
    use = TokenUse(tmp_path)
    for each in used:
        use.note(each)
    use.flush()


def test_the_latest_use_by_any_worker_counts(tmp_path: Path) -> None:
    before = time.time()
    late = TokenUse(tmp_path)
    late.note(ONE)
    middle = time.time()
    worker(tmp_path, ONE)
    assert read_use(tmp_path).last[ONE.fingerprint] >= middle
    late.flush()
    use = read_use(tmp_path)
    assert set(use.last) == {ONE.fingerprint}
    assert before <= use.since <= time.time()
    assert middle <= use.last[ONE.fingerprint] == late.last()[ONE.fingerprint]
    worker(tmp_path, ONE)
    assert read_use(tmp_path).last[ONE.fingerprint] > use.last[ONE.fingerprint]


def test_it_outlives_restarts(tmp_path: Path) -> None:
    worker(tmp_path, TWO)
    before = read_use(tmp_path)
    worker(tmp_path, ONE)
    after = read_use(tmp_path)
    assert (after.since, after.last[TWO.fingerprint]) == (before.since, before.last[TWO.fingerprint])
    assert TokenUse(tmp_path).last() == after.last


def test_a_use_noted_by_a_clock_that_was_ahead_gives_way_to_the_next(tmp_path: Path) -> None:
    worker(tmp_path, ONE)
    ahead = time.time() + 86_400
    os.utime(use_folder(tmp_path) / ONE.fingerprint, (ahead, ahead))
    worker(tmp_path, ONE)
    assert read_use(tmp_path).last[ONE.fingerprint] <= time.time()


def test_no_token_is_written_down(tmp_path: Path) -> None:
    worker(tmp_path, ONE, TWO)
    written = [(path.name, path.read_text()) for path in use_folder(tmp_path).iterdir()]
    assert sorted(written) == sorted((name, "") for name in ("since", ONE.fingerprint, TWO.fingerprint))


def test_where_nothing_was_recorded_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(UseUnknown, match="check that it is the data folder"):
        read_use(tmp_path)


def test_a_record_that_cannot_be_read_is_no_record(tmp_path: Path) -> None:
    worker(tmp_path, ONE)
    (use_folder(tmp_path) / "loop").symlink_to("loop")
    with pytest.raises(UseUnknown, match="cannot be read"):
        read_use(tmp_path)


def test_a_record_that_cannot_be_written_is_reported_once_and_tried_again(tmp_path: Path) -> None:
    use_folder(tmp_path).write_text("in the way")
    use = TokenUse(tmp_path)
    use.note(ONE)
    with capture_logs() as lines:
        use.flush()
        use.flush()
    assert [line["event"] for line in lines] == ["token_use_not_stored"]
    assert ONE.fingerprint in use.last()
    use_folder(tmp_path).unlink()
    use.flush()
    assert ONE.fingerprint in read_use(tmp_path).last
