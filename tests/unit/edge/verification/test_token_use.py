"""What is said of a token's last use outlives restarts, comes from all workers, and is never guessed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from taskbridge.edge.verification.credentials import Token, parse_credentials
from taskbridge.edge.verification.token_use import TokenUse, UseUnknown, read_use, tidy_use, use_folder

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = parse_credentials('[[apps]]\napp_type = "A"\nsystem_tokens = ["s3cret-1", "s3cret-2"]').tokens


def worker(tmp_path: Path, pid: int, *used: Token) -> None:
    use = TokenUse(tmp_path, worker=pid)
    for each in used:
        use.note(each)
    use.flush()


def test_the_latest_use_by_any_worker_counts(tmp_path: Path) -> None:
    before = time.time()
    worker(tmp_path, 2, ONE)
    middle = time.time()
    worker(tmp_path, 1, ONE)
    assert read_use(tmp_path).last[ONE.fingerprint] >= middle
    worker(tmp_path, 3, ONE)
    use = read_use(tmp_path)
    assert set(use.last) == {ONE.fingerprint}
    assert before <= use.since <= middle <= use.last[ONE.fingerprint]


def test_it_outlives_restarts_in_one_file(tmp_path: Path) -> None:
    tidy_use(tmp_path)
    since = read_use(tmp_path).since
    for pid in range(1, 6):
        worker(tmp_path, pid, ONE if pid > 1 else TWO)
    before = read_use(tmp_path)
    tidy_use(tmp_path)
    assert len(list(use_folder(tmp_path).iterdir())) == 1
    assert read_use(tmp_path) == before
    assert before.since == since
    assert TokenUse(tmp_path).last() == before.last


def test_no_token_is_written_down(tmp_path: Path) -> None:
    worker(tmp_path, 1, ONE, TWO)
    assert "s3cret" not in "".join(path.read_text() for path in use_folder(tmp_path).iterdir())


def test_where_nothing_was_recorded_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(UseUnknown, match="is this the data folder"):
        read_use(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"since": 1, "last": {"a": "x"}}'])
def test_a_record_that_cannot_be_read_is_no_record(tmp_path: Path, content: str) -> None:
    worker(tmp_path, 1, ONE)
    (use_folder(tmp_path) / "2.json").write_text(content)
    with pytest.raises(UseUnknown, match=r"cannot be read: .*2\.json"):
        read_use(tmp_path)


def test_a_record_that_cannot_be_written_is_reported_once_and_tried_again(tmp_path: Path) -> None:
    use_folder(tmp_path).write_text("in the way")
    use = TokenUse(tmp_path)
    use.note(ONE)
    with capture_logs() as lines:
        use.flush()
        use.flush()
    assert [line["event"] for line in lines] == ["token_use_not_kept"]
    assert ONE.fingerprint in use.last()
    use_folder(tmp_path).unlink()
    use.flush()
    assert ONE.fingerprint in read_use(tmp_path).last
