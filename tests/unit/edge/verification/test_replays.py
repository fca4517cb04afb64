"""A signature passes for one event only: after a restart, in another worker, from any table, whatever befalls it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import time
import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import count, permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from installed_parts import WHERE_CARGO_BUILDS
from spool_disk import can_mount, fill, small_disk
from taskbridge.edge.callbacks import ACTIONS, event_of, locate
from taskbridge.edge.decided import Decided
from taskbridge.edge.errors import Unverified
from taskbridge.edge.sender import signed
from taskbridge.edge.testing import SYSTEM_TOKEN, parameters_of
from taskbridge.edge.verification.replay_windows import WAYS, FileWindow, MemoryWindow
from taskbridge.edge.verification.replays import ALTERED, CROSS_ACTION, Mark, claim, mark_of, refuse_replay
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from taskbridge.schemas.events import TaskEvent

ENTRIES = 1024
WINDOWS = "taskbridge.edge.verification.replay_windows"

IN_PYTHON = pytest.mark.parametrize("way", ["python"], indirect=True)
"""What a test does to the Python way does not befall the native core."""


@pytest.fixture(params=["python", pytest.param("native", marks=WHERE_CARGO_BUILDS)], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who claims where nothing goes wrong."""
    if request.param == "python":
        monkeypatch.setattr(f"{WINDOWS}.Core", None)
    return request.param


def event(wire_action: str, parameters: Mapping[str, str]) -> TaskEvent:
    return event_of(locate(wire_action, parameters), parameters, received_at=1)


def complete() -> dict[str, str]:
    return signed(parameters_of("complete", instance_id="i-1"), system_token=SYSTEM_TOKEN)


def mark(digest: bytes, event_number: int = 1, action: Action = Action.CREATED) -> Mark:
    return Mark(digest, event_number.to_bytes(8, "big"), action)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "window"


@pytest.fixture
def window(path: Path) -> Generator[FileWindow]:
    window = FileWindow(path, entries=ENTRIES)
    yield window
    window.close()


def test_it_takes_no_more_room_later(window: FileWindow, path: Path) -> None:
    window.open()
    assert path.stat().st_blocks * 512 >= path.stat().st_size


@pytest.mark.skipif(not can_mount(), reason="needs a disk of its own")
def test_a_disk_that_is_too_small_for_it_keeps_the_room_it_has(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=1):
        window = FileWindow(tmp_path / "disk" / "window", entries=1 << 20)
        for number in range(3):
            assert window.claim(mark(bytes([number]) * 16)) is None
        assert window.claim(mark(bytes(16))) is not None
        assert shutil.disk_usage(tmp_path / "disk").free > 900_000
        window.close()


def test_the_same_event_passes_again_and_another_does_not(window: FileWindow) -> None:
    first = event("complete", complete())
    refuse_replay(first, window)
    refuse_replay(first, window)
    with pytest.raises(Unverified) as caught:
        refuse_replay(event("cancel", complete()), window)
    assert caught.value.reason == CROSS_ACTION
    refuse_replay(first, window)


def test_other_parameters_of_the_same_signature_are_another_event(window: FileWindow) -> None:
    original = complete()
    cut_elsewhere = {**original, "formInstId": "i-", "taskId": "1" + original["taskId"]}
    padded = {**original, "x": ""}
    refuse_replay(event("complete", original), window)
    for altered in (cut_elsewhere, padded):
        with pytest.raises(Unverified) as caught:
            refuse_replay(event("complete", altered), window)
        assert caught.value.reason == ALTERED


def test_the_case_of_the_hex_and_blanks_around_it_hide_nothing(window: FileWindow) -> None:
    original = complete()
    refuse_replay(event("complete", original), window)
    written = {**original, "sign": f" {original['sign'].upper()}\n"}
    refuse_replay(event("complete", written), window)
    with pytest.raises(Unverified):
        refuse_replay(event("cancel", written), window)


def test_a_refusal_says_outside_what_every_refusal_says(window: FileWindow) -> None:
    refuse_replay(event("complete", complete()), window)
    with pytest.raises(Unverified) as caught:
        refuse_replay(event("cancel", complete()), window)
    assert caught.value.detail == Unverified("wrong-sign").detail
    cancelled = event("cancel", complete())
    for other_scheme in (False, True):
        decided = Decided.of(cancelled, mark_of(cancelled), other_scheme=other_scheme)
        with pytest.raises(Unverified) as caught:
            claim(decided, window)
        assert caught.value.detail == Unverified("wrong-sign", other_scheme=other_scheme).detail
        assert caught.value.reason == CROSS_ACTION


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 3), st.sampled_from(list(ACTIONS.values())), st.booleans()),
        max_size=80,
    )
)
def test_it_remembers_what_a_dictionary_would(steps: list[tuple[int, int, Action, bool]]) -> None:
    # At most 31 digests in 1,024 places: none makes room for another, unless nine share one of the 128 sets.
    path = Path(f"/tmp/taskbridge-window-{uuid.uuid4()}")  # noqa: S108 - one per example
    window, model = FileWindow(path, entries=ENTRIES), dict[bytes, Mark]()
    try:
        for number, event_number, action, restarts in steps:
            if restarts:
                window.close()
                window = FileWindow(path, entries=ENTRIES)
            wanted = mark(uuid.uuid5(uuid.NAMESPACE_OID, str(number)).bytes, event_number, action)
            assert window.find(wanted.digest) == model.get(wanted.digest)
            assert window.claim(wanted) == model.get(wanted.digest)
            model.setdefault(wanted.digest, wanted)
        assert window.problem is None
    finally:
        window.close()
        path.unlink(missing_ok=True)


def test_in_a_full_set_the_oldest_makes_room(window: FileWindow, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [bytes([n]) * 8 + bytes(8) for n in range(WAYS + 1)]  # all in one set
    for second, digest in enumerate(digests):
        monkeypatch.setattr(f"{WINDOWS}.time.time", lambda second=second: 1000 + second)
        assert window.claim(mark(digest)) is None
    assert window.find(digests[0]) is None
    assert all(window.find(digest) for digest in digests[1:])


def test_the_latest_callbacks_are_remembered_when_there_were_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    window = FileWindow(path, entries=ENTRIES)
    # The same at each run: of those by chance, nine of the latest may share one set, which has eight places.
    digests = [hashlib.sha256(str(number).encode()).digest()[:16] for number in range(8 * ENTRIES)]
    for second, digest in enumerate(digests):
        monkeypatch.setattr(f"{WINDOWS}.time.time", lambda second=second: second)
        window.claim(mark(digest))
    latest = digests[-ENTRIES // 4 :]
    assert sum(window.find(digest) is not None for digest in latest) == len(latest)
    assert path.stat().st_size < 4096 + 25 * ENTRIES
    window.close()


@pytest.mark.parametrize(
    "damage",
    [b"", b"x", os.urandom(5000), b"tbreplay" + bytes(6000)],
    ids=["empty", "short", "noise", "another version"],
)
def test_a_damaged_file_is_begun_anew_and_said(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    with capture_logs() as lines:
        window = FileWindow(path, entries=ENTRIES)
        assert window.claim(mark(b"d" * 16)) is None
        assert window.claim(mark(b"d" * 16)) == mark(b"d" * 16)
        window.close()
    assert [line["event"] for line in lines] == (["replay_window_started_anew"] if damage else [])


def test_another_size_begins_anew(path: Path, window: FileWindow) -> None:
    window.claim(mark(b"d" * 16))
    other = FileWindow(path, entries=2 * ENTRIES)
    assert other.find(b"d" * 16) is None
    other.close()


def test_a_slot_that_was_written_halfway_counts_as_empty(path: Path, window: FileWindow) -> None:
    digest = b"d" * 8 + bytes(8)  # in the first set
    window.claim(mark(digest, 0xABCDEF))
    content = bytearray(path.read_bytes())
    at = content.index(mark(digest, 0xABCDEF).event)
    content[at + 7] = 0
    path.write_bytes(content)
    assert window.find(digest) is None
    assert window.claim(mark(digest, 2)) is None
    assert window.claim(mark(digest, 1)) == mark(digest, 2)


def test_what_looks_like_a_mark_across_two_slots_is_none(path: Path, window: FileWindow) -> None:
    digest = b"d" * 8 + bytes(8)  # in the first set
    window.claim(mark(digest))
    content = path.read_bytes()
    at = content.index(digest[:8])
    path.write_bytes(content[:at] + bytes(8) + content[at:-8])
    assert window.find(digest) is None
    path.write_bytes(content[:at] + bytes(24) + content[at:-24])
    assert window.find(digest) == mark(digest)


def test_a_slot_that_is_not_whole_makes_room_first_whatever_time_it_says(path: Path, window: FileWindow) -> None:
    digests = [bytes([n]) * 8 + bytes(8) for n in range(1, WAYS + 1)]  # all in one set, which is full then
    for number, digest in enumerate(digests):
        window.claim(mark(digest, 0xABCDE0 + number))
    content = bytearray(path.read_bytes())
    at = content.index(mark(b"", 0xABCDE4).event)
    content[at + 8 : at + 12] = b"\xff" * 4  # a moment that never comes
    path.write_bytes(content)
    assert window.claim(mark(b"n" * 8 + bytes(8))) is None
    known = [window.find(digest) is not None for digest in digests]
    assert known == [number != 4 for number in range(WAYS)]


def left_by_another(path: Path, *slots: tuple[bytes, int, int]) -> None:
    """A file of one set with these digests, numbers of events and of actions, byte by byte as it has always been."""
    content = struct.pack("<8sHHI", b"tbreplay", 1, 8, 1).ljust(4096, b"\0")
    for digest, event_number, action_number in slots:
        packed = digest[:8] + event_number.to_bytes(8, "big") + struct.pack("<IB", 1_700_000_000, action_number)
        content += packed + zlib.crc32(packed).to_bytes(4, "little")[:3]
    path.write_bytes(content.ljust(4096 + 8 * 24, b"\0"))


def test_what_an_edge_of_another_version_left_is_known(path: Path) -> None:
    left_by_another(path, (b"d" * 16, 1, 2), (b"e" * 16, 2, 6))
    window = FileWindow(path, entries=8)
    assert window.find(b"d" * 16) == mark(b"d" * 16, 1, Action.COMPLETED)
    assert window.find(b"e" * 16) == mark(b"e" * 16, 2, Action.UNKNOWN), "an action that this version does not know"
    window.close()


def test_a_mark_is_found_behind_one_whose_end_looks_like_its_beginning(path: Path) -> None:
    for number in count():
        left_by_another(path, (b"c" * 16, number, 1), (b"d" * 16, 1, 1))
        if path.read_bytes()[4096 + 23 : 4096 + 25] == b"dd":
            break
    window = FileWindow(path, entries=8)
    assert window.find(b"d" * 16) == mark(b"d" * 16)
    window.close()


def test_a_file_that_was_cut_short_works_on(path: Path, window: FileWindow) -> None:
    window.claim(mark(b"d" * 16))
    os.truncate(path, 4096)
    assert window.claim(mark(b"d" * 16)) is None
    assert window.claim(mark(b"d" * 16, 2)) == mark(b"d" * 16)


def test_a_window_that_cannot_be_used_costs_no_callback_and_recovers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{WINDOWS}._REOPEN_S", 0.0)
    path.mkdir()
    window = FileWindow(path, entries=ENTRIES)
    with capture_logs() as lines:
        for _ in range(100):
            refuse_replay(event("complete", complete()), window)
    assert [line["event"] for line in lines] == ["replay_window_failed"]
    assert window.problem == "Is a directory"
    path.rmdir()
    refuse_replay(event("complete", complete()), window)
    assert window.problem is None
    with pytest.raises(Unverified):
        refuse_replay(event("cancel", complete()), window)
    window.close()


@pytest.mark.skipif(not can_mount(), reason="needs a disk of its own")
def test_a_full_disk_costs_no_callback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{WINDOWS}._REOPEN_S", 0.0)
    with small_disk(tmp_path / "disk", megabytes=1), capture_logs() as lines:
        window = FileWindow(tmp_path / "disk" / "window", entries=1 << 20)
        window.open()
        ballast = fill(tmp_path / "disk")
        assert window.claim(mark(b"d" * 16)) is None
        assert window.problem == "No space left on device"
        ballast.unlink()
        assert window.claim(mark(b"d" * 16)) is None
        assert window.claim(mark(b"d" * 16, 2)) == mark(b"d" * 16)
        assert window.problem is None
        window.close()
    assert [line["event"] for line in lines] == ["replay_window_failed"]


@IN_PYTHON
def test_a_write_that_fails_costs_no_callback(window: FileWindow, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"{WINDOWS}.os.pwrite", full)
    with capture_logs():
        refuse_replay(event("complete", complete()), window)
    assert window.problem == "No space left on device"


def test_whoever_looks_or_makes_ready_hears_why_it_cannot_be_used(path: Path) -> None:
    path.mkdir()
    looking, opening = FileWindow(path, entries=ENTRIES), FileWindow(path, entries=ENTRIES)
    with capture_logs():
        assert looking.find(b"d" * 16) is None
        opening.open()
    assert (looking.problem, opening.problem) == ("Is a directory",) * 2


def test_what_cannot_be_opened_is_not_tried_by_every_callback(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{WINDOWS}._REOPEN_S", 1000)
    path.mkdir()
    window = FileWindow(path, entries=ENTRIES)
    with capture_logs():
        window.claim(mark(b"d" * 16))
    path.rmdir()
    assert window.claim(mark(b"d" * 16)) is None
    assert not path.exists()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_file_is_opened_once_and_closed_with_the_window(
    path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{WINDOWS}._REOPEN_S", 0.0)
    before, window = open_files(), FileWindow(path, entries=ENTRIES)
    for number in range(3):
        window.claim(mark(bytes([number]) * 16))
    assert open_files() == before + {"python": 1, "native": 2}[way]
    for _ in range(2):
        window.close()
        assert open_files() == before


def test_a_file_that_cannot_be_made_ready_is_not_left_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before, window = open_files(), FileWindow(path, entries=ENTRIES)
    monkeypatch.setattr(f"{WINDOWS}.os.ftruncate", full)
    with capture_logs():
        window.open()
    assert (window.problem, open_files()) == ("No space left on device", before)


@IN_PYTHON
def test_after_a_failure_the_file_is_opened_anew(
    path: Path, window: FileWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(f"{WINDOWS}._REOPEN_S", 0.0)
    window.open()
    path.unlink()
    with monkeypatch.context() as context, capture_logs():
        context.setattr(f"{WINDOWS}.os.pread", fail)
        window.claim(mark(b"d" * 16))
    window.claim(mark(b"d" * 16))
    assert (path.exists(), window.problem) == (True, None)


def test_the_file_is_made_ready_by_one_worker_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[bool] = []

    def prepare(*_: object) -> None:
        with path.open("rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locked.append(True)

    monkeypatch.setattr(FileWindow, "_prepare", prepare)
    window = FileWindow(path, entries=ENTRIES)
    window.open()
    assert locked == [True]
    window.close()


def test_a_lock_that_is_held_for_a_moment_is_waited_for(
    path: Path, window: FileWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.open()
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def let_go(_: float) -> None:
            other.close()

        monkeypatch.setattr(f"{WINDOWS}.time.sleep", let_go)
        assert window.claim(mark(b"d" * 16)) is None
        assert other.closed


def test_it_is_nobody_elses_to_read(path: Path, window: FileWindow) -> None:
    window.open()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_window_is_found_in_whatever_size_it_has(path: Path, window: FileWindow) -> None:
    assert FileWindow.existing(path) is None
    window.claim(mark(b"d" * 16))
    found = FileWindow.existing(path)
    assert found is not None
    assert found.find(b"d" * 16) == mark(b"d" * 16)
    found.close()


def test_memory_reads_the_file_and_writes_nothing_into_it(window: FileWindow) -> None:
    window.claim(mark(b"d" * 16))
    memory = MemoryWindow(window)
    assert memory.claim(mark(b"d" * 16, 2)) == mark(b"d" * 16)
    assert memory.claim(mark(b"e" * 16)) is None
    assert memory.claim(mark(b"e" * 16, 2)) == mark(b"e" * 16)
    assert window.find(b"e" * 16) is None


def test_the_mark_is_the_signature_and_the_event(window: FileWindow) -> None:
    found = mark_of(event("complete", complete()))
    assert found is not None
    assert found.digest.hex() == complete()["sign"]
    assert window.claim(found) is None
    assert window.find(found.digest) == found


@IN_PYTHON
def test_of_two_workers_at_the_same_moment_exactly_one_wins(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite

    def slowly(*arguments: Any) -> int:
        time.sleep(0.002)  # between looking and writing, for the other to get in
        return write(*arguments)

    workers = [FileWindow(path, entries=ENTRIES) for _ in range(2)]
    for worker in workers:
        worker.open()
    monkeypatch.setattr(f"{WINDOWS}.os.pwrite", slowly)
    monkeypatch.setattr(f"{WINDOWS}._LOCK_ATTEMPTS", 100_000)
    with ThreadPoolExecutor(2) as threads:
        for _ in range(20):
            digest = os.urandom(16)
            claims = [threads.submit(worker.claim, mark(digest, number)) for number, worker in enumerate(workers)]
            known = [claim.result() for claim in claims]
            assert known.count(None) == 1
    for worker in workers:
        worker.close()


def test_a_worker_that_stopped_with_the_lock_does_not_stop_the_others(path: Path, window: FileWindow) -> None:
    window.open()
    with path.open("rb") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        started = time.perf_counter()
        assert window.claim(mark(b"d" * 16)) is None
        assert time.perf_counter() - started < 1
        assert window.claim(mark(b"d" * 16)) == mark(b"d" * 16)


def test_a_claim_costs_microseconds(window: FileWindow) -> None:
    digests = [os.urandom(16) for _ in range(2000)]
    started = time.perf_counter()
    for digest in digests:
        window.claim(mark(digest))
    # 15 µs on a quiet machine; the bound leaves room for a busy one and none for a system call that waits.
    assert (time.perf_counter() - started) / len(digests) < 0.0005


@pytest.mark.parametrize(("first", "second"), list(permutations(ACTIONS.values(), 2)))
def test_every_pair_of_actions_is_told_apart(window: FileWindow, first: Action, second: Action) -> None:
    assert window.claim(mark(b"d" * 16, 1, first)) is None
    known = window.claim(mark(b"d" * 16, 2, second))
    assert known is not None
    assert known.action is first
