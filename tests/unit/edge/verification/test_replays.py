"""A signature passes for one event only: after a restart, in another worker, and after any damage to the file."""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from support.edge.fakes import SYSTEM_TOKEN, parameters_of
from support.edge.spool import can_mount, fill, small_disk
from taskbridge.edge.decision.callbacks import ACTIONS, event_of, locate
from taskbridge.edge.errors import Unverified
from taskbridge.edge.events import Decided
from taskbridge.edge.sender import signed
from taskbridge.edge.verification.replays import (
    ALTERED,
    CROSS_ACTION,
    FileWindow,
    FileWindows,
    Mark,
    MemoryWindow,
    claim,
    mark_of,
    refuse_replay,
)
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from taskbridge.schemas.events import TaskEvent

ENTRIES = 1024
WINDOWS = "taskbridge.edge.verification.replays"


def event(wire_action: str, parameters: Mapping[str, str]) -> TaskEvent:
    return event_of(locate(wire_action, parameters), parameters, received_at=1)


def complete() -> dict[str, str]:
    return signed(parameters_of("complete", instance_id="i-1"), system_token=SYSTEM_TOKEN)


def mark(digest: bytes, event_number: int = 1, action: Action = Action.CREATED) -> Mark:
    return Mark(digest, event_number.to_bytes(9, "big"), action)


def digest_of(number: int) -> bytes:
    return hashlib.md5(str(number).encode()).digest()  # noqa: S324 - as Yida's signatures


def found_in(window: FileWindow, digest: bytes) -> Mark | None:
    return window.find(mark(digest))


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


def test_room_that_was_found_for_a_part_of_it_is_given_back(
    path: Path, window: FileWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, _: int, size: int) -> None:
        os.pwrite(fd, bytes(size // 2), 0)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"{WINDOWS}.os.posix_fallocate", full)
    window.open()
    assert path.stat().st_size == 32, "the header"
    assert window.claim(mark(b"d" * 16)) is None
    assert window.claim(mark(b"d" * 16, 2)) == mark(b"d" * 16)


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
            claim(decided.mark, window, sender=decided.sender, other_scheme=other_scheme)
        assert caught.value.detail == Unverified("wrong-sign", other_scheme=other_scheme).detail
        assert (caught.value.reason, caught.value.app_type) == (CROSS_ACTION, decided.sender)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 3), st.sampled_from(list(ACTIONS.values())), st.booleans()),
        max_size=80,
    )
)
def test_it_remembers_what_a_dictionary_would(steps: list[tuple[int, int, Action, bool]]) -> None:
    # At most 31 digests: none makes room for another, for a set holds 32.
    path = Path(f"/tmp/taskbridge-window-{uuid.uuid4()}")  # noqa: S108 - one per example
    window, model = FileWindow(path, entries=ENTRIES), dict[bytes, Mark]()
    try:
        for number, event_number, action, restarts in steps:
            if restarts:
                window.close()
                window = FileWindow(path, entries=ENTRIES)
            claimed = mark(uuid.uuid5(uuid.NAMESPACE_OID, str(number)).bytes, event_number, action)
            assert found_in(window, claimed.digest) == model.get(claimed.digest)
            assert window.claim(claimed) == model.get(claimed.digest)
            model.setdefault(claimed.digest, claimed)
        assert window.problem is None
    finally:
        window.close()
        path.unlink(missing_ok=True)


def test_the_latest_entries_are_remembered_but_for_one_in_ten_thousand(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ADR 9, the threat model and the setting say: the oldest of them has a chance of 1 in 3,600 to be gone."""
    monkeypatch.setattr(f"{WINDOWS}.os.urandom", bytes)  # the same at each run
    window, oldest, all_, looked_at = FileWindow(path, entries=ENTRIES), 0, 0, 0
    for number in range(20 * ENTRIES):
        assert window.claim(mark(digest_of(number))) is None
        if number >= ENTRIES:
            oldest += found_in(window, digest_of(number - ENTRIES + 1)) is None
            looked_at += 1
        if number % ENTRIES == ENTRIES - 1:
            all_ += sum(found_in(window, digest_of(number - back)) is None for back in range(ENTRIES))
    assert oldest < looked_at / 2000
    assert all_ < looked_at / 10_000
    assert path.stat().st_size == 4096 + 32 * ENTRIES
    window.close()


@pytest.mark.parametrize("fixed", [slice(0, 8), slice(8, 16)], ids=["begins alike", "ends alike"])
def test_chosen_digests_evict_no_certain_mark(window: FileWindow, fixed: slice) -> None:
    def chosen(number: int) -> bytes:
        digest = bytearray(number.to_bytes(8, "big") * 2)
        digest[fixed] = b"captured"
        return bytes(digest)

    for number in range(ENTRIES // 4):
        window.claim(mark(chosen(number)))
    assert all(found_in(window, chosen(number)) for number in range(ENTRIES // 4))


def test_each_file_has_a_key_of_its_own(tmp_path: Path) -> None:
    contents: list[bytes] = []
    for name in ("one", "other"):
        window = FileWindow(tmp_path / name, entries=ENTRIES)
        window.claim(mark(b"d" * 16))
        window.close()
        contents.append((tmp_path / name).read_bytes())
    keys = [content[16:32] for content in contents]
    assert keys[0] != keys[1]
    tags = [content[4096:].strip(b"\0")[:6] for content in contents]
    assert tags[0] != tags[1]


def test_a_clock_that_was_ahead_makes_it_forget_nothing(window: FileWindow, monkeypatch: pytest.MonkeyPatch) -> None:
    now, latest = 1_800_000_000, range(2 * ENTRIES, 2 * ENTRIES + ENTRIES // 8)
    monkeypatch.setattr("time.time", lambda: now + 86_400)
    for number in range(2 * ENTRIES):
        window.claim(mark(digest_of(number)))
    monkeypatch.setattr("time.time", lambda: now)
    for number in latest:
        window.claim(mark(digest_of(number)))
    assert [number for number in latest if found_in(window, digest_of(number)) is None] == []


def test_a_source_evicts_no_marks_of_yida_and_none_of_another_source(tmp_path: Path) -> None:
    windows = FileWindows(tmp_path, entries=16)  # one set for each
    captured = [Mark(b"an id", b"an event!", Action.COMPLETED, source) for source in ("yida", "flowable", "erp")]
    for each in captured:
        assert windows.claim(each) is None
    for number in range(100):
        windows.claim(Mark(b"%d" % number, b"an event!", Action.COMPLETED, "erp"))
    assert [windows.find(each) for each in captured] == [*captured[:2], None]
    windows.close()
    assert open_files(tmp_path) == 0
    again = FileWindows(tmp_path, entries=16)
    assert [again.find(each) for each in captured] == [*captured[:2], None]
    again.close()


def test_a_source_has_a_quarter_of_the_room(tmp_path: Path) -> None:
    windows = FileWindows(tmp_path, entries=ENTRIES)
    windows.open()
    windows.claim(Mark(b"an id", b"an event!", Action.COMPLETED, "erp"))
    sizes = [windows.path(source).stat().st_size - 4096 for source in ("yida", "erp")]
    assert sizes == [32 * ENTRIES, 8 * ENTRIES]
    windows.close()


def test_a_window_of_any_sender_that_cannot_be_used_is_the_problem(tmp_path: Path) -> None:
    windows = FileWindows(tmp_path, entries=ENTRIES)
    windows.open()
    assert windows.problem is None
    windows.path("erp").mkdir()
    with capture_logs():
        assert windows.claim(Mark(b"an id", b"an event!", Action.COMPLETED, "erp")) is None
    assert windows.problem == "Is a directory"
    windows.close()


@pytest.mark.parametrize(
    "damage",
    [b"", b"x", os.urandom(5000), b"tbreplay" + bytes(6000)],
    ids=["empty", "short", "noise", "another version"],
)
def test_a_damaged_file_is_replaced_and_logged(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    with capture_logs() as lines:
        window = FileWindow(path, entries=ENTRIES)
        window.open()
        assert path.read_bytes()[32:] == bytes(4096 - 32 + 32 * ENTRIES), "nothing of it is left"
        assert window.claim(mark(b"d" * 16)) is None
        assert window.claim(mark(b"d" * 16)) == mark(b"d" * 16)
        window.close()
    assert [line["event"] for line in lines] == (["replay_window_replaced"] if damage else [])


def test_a_file_of_another_size_is_replaced(path: Path, window: FileWindow) -> None:
    digests = [bytes([number]) * 16 for number in range(40)]
    for each in digests:
        window.claim(mark(each))
    other = FileWindow(path, entries=2 * ENTRIES)
    assert not any(found_in(other, each) for each in digests)
    other.close()


def left_by_another(path: Path, *slots: tuple[bytes, int, int], padding: bytes = b"") -> None:
    """A file of one set with these digests, numbers of events and of actions, byte by byte as it has always been."""
    content, key = b"", b"a key of 16 byte"
    for digest, event_number, action_number in slots:
        tag = hashlib.blake2b(digest, key=key, digest_size=14).digest()[:6]
        content += tag + event_number.to_bytes(9, "big") + bytes([action_number])
    header = struct.pack("<8sII16s", b"tbreplay", 2, 1, key).ljust(4096, b"\0")
    path.write_bytes(header + (padding + content).ljust(512, b"\0"))


def test_what_an_edge_of_another_version_left_is_known(path: Path) -> None:
    left_by_another(path, (b"d" * 16, 1, 2), (b"e" * 16, 2, 6))
    window = FileWindow(path, entries=16)
    assert found_in(window, b"d" * 16) == mark(b"d" * 16, 1, Action.COMPLETED)
    assert found_in(window, b"e" * 16) == mark(b"e" * 16, 2, Action.UNKNOWN), (
        "an action that this version does not know"
    )
    window.close()


def test_the_set_of_a_digest_is_as_it_has_always_been(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{WINDOWS}.os.urandom", b"a key of 16 byte".ljust)
    window = FileWindow(path, entries=ENTRIES)
    window.claim(mark(b"d" * 16))
    hashed = hashlib.blake2b(b"d" * 16, key=b"a key of 16 byte", digest_size=14).digest()
    at = 4096 + int.from_bytes(hashed[6:], "little") % (ENTRIES // 16) * 512
    assert path.read_bytes()[at : at + 6] == hashed[:6]
    window.close()


def test_bytes_that_look_like_a_mark_across_two_slots_are_none(path: Path) -> None:
    left_by_another(path, (b"d" * 16, 1, 1), padding=bytes(8))
    window = FileWindow(path, entries=16)
    assert found_in(window, b"d" * 16) is None
    assert window.claim(mark(b"d" * 16, 2)) is None
    assert found_in(window, b"d" * 16) == mark(b"d" * 16, 2)
    left_by_another(path, (b"d" * 16, 1, 1), (b"d" * 16, 1, 1), padding=bytes(8))
    content = path.read_bytes()
    path.write_bytes(content[: 4096 + 32] + content[4096 + 8 : 4096 + 24] + content[4096 + 48 :])
    assert found_in(window, b"d" * 16) == mark(b"d" * 16, 1), "the second place is a slot"
    window.close()


@pytest.mark.parametrize("left", [0, 4, 10])
def test_a_file_that_was_cut_short_works_on(path: Path, left: int) -> None:
    window = FileWindow(path, entries=16)
    window.claim(mark(b"e" * 16))
    os.truncate(path, 4096 + left)
    window.find(mark(b"e" * 16))
    assert window.claim(mark(b"d" * 16)) is None
    assert window.claim(mark(b"d" * 16, 2)) == mark(b"d" * 16)
    window.close()


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


def test_what_cannot_be_opened_is_not_tried_by_every_callback(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{WINDOWS}._REOPEN_S", 1000)
    path.mkdir()
    window = FileWindow(path, entries=ENTRIES)
    with capture_logs():
        window.claim(mark(b"d" * 16))
    path.rmdir()
    assert window.claim(mark(b"d" * 16)) is None
    assert not path.exists()


def open_files(folder: Path) -> int:
    """How many of this folder: threads that earlier tests left may close others."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found += each.readlink().is_relative_to(folder)
    return found


def test_the_file_is_opened_once_and_closed_with_the_window(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{WINDOWS}._REOPEN_S", 0.0)
    window = FileWindow(path, entries=ENTRIES)
    for number in range(3):
        window.claim(mark(bytes([number]) * 16))
    assert open_files(path.parent) == 1
    for _ in range(2):
        window.close()
        assert open_files(path.parent) == 0


def test_after_a_failure_the_file_is_opened_again(
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


def test_a_worker_waits_for_another_that_prepares_the_file_and_has_its_key(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key of its own it would never know the other's marks."""
    path.touch()
    waits = count(1)
    with path.open("rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def prepared(_: float) -> None:
            if next(waits) == 500:  # ten times as often as a claim tries
                left_by_another(path, (b"d" * 16, 1, 1))
                fcntl.flock(other, fcntl.LOCK_UN)

        monkeypatch.setattr(f"{WINDOWS}.time.sleep", prepared)
        window = FileWindow(path, entries=16)
        assert window.claim(mark(b"d" * 16, 2)) == mark(b"d" * 16, 1)
    window.close()


def test_a_file_that_another_has_locked_for_too_long_is_not_prepared(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{WINDOWS}.time.sleep", list[float]().append)
    monkeypatch.setattr(f"{WINDOWS}._REOPEN_S", 0.0)
    path.touch()
    window = FileWindow(path, entries=ENTRIES)
    with path.open("rb+") as other, capture_logs():
        fcntl.flock(other, fcntl.LOCK_EX)
        assert window.claim(mark(b"d" * 16)) is None
        assert window.problem == "another process holds the lock for too long"
    assert (path.stat().st_size, open_files(path.parent)) == (0, 0)
    assert window.claim(mark(b"d" * 16)) is None
    assert window.claim(mark(b"d" * 16, 2)) == mark(b"d" * 16)
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


def test_a_command_shares_the_windows_of_an_edge_of_any_size(tmp_path: Path) -> None:
    assert not FileWindows(tmp_path, entries=None).open()
    edge = FileWindows(tmp_path, entries=ENTRIES + 1)
    assert edge.open()
    message = Mark(b"an id", b"an event!", Action.COMPLETED, "erp")
    edge.claim(mark(b"d" * 16))
    edge.claim(message)
    command = FileWindows(tmp_path, entries=None)
    assert command.open()
    assert command.find(mark(b"d" * 16)) == mark(b"d" * 16)
    assert command.find(message) == message
    command.close()
    edge.close()


def test_memory_reads_the_files_and_writes_nothing_into_them(tmp_path: Path) -> None:
    window = FileWindows(tmp_path, entries=ENTRIES)
    window.claim(mark(b"d" * 16))
    memory = MemoryWindow(window)
    assert memory.claim(mark(b"d" * 16, 2)) == mark(b"d" * 16)
    assert memory.claim(mark(b"e" * 16)) is None
    assert memory.claim(mark(b"e" * 16, 2)) == mark(b"e" * 16)
    assert memory.claim(Mark(b"e" * 16, b"an event!", Action.CREATED, "erp")) is None, "a message of another sender"
    assert window.find(mark(b"e" * 16)) is None
    window.close()


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


CLAIMING = f"""
import hashlib, sys
from pathlib import Path
from taskbridge.edge.verification.replays import FileWindow
from taskbridge.edge.verification.replays import Mark
from taskbridge.schemas.events import Action

window = FileWindow(Path(sys.argv[1]), entries={1 << 17})
for number in range(20_000):
    window.claim(Mark(hashlib.md5(str(number).encode()).digest(), bytes(9), Action.CREATED))
    print(number, flush=True)
"""


@pytest.mark.parametrize("killed_after", [1, 100, 1000])
def test_what_a_killed_worker_had_claimed_is_known_and_its_lock_is_free(path: Path, killed_after: int) -> None:
    program = [sys.executable, "-c", CLAIMING, str(path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        numbers = [worker.stdout.readline() for _ in range(killed_after)]
        worker.kill()
        numbers += [line for line in worker.stdout if line.endswith("\n")]  # the last may be cut
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    window = FileWindow(path, entries=1 << 17)
    for number in map(int, numbers):
        assert found_in(window, digest_of(number)) == mark(digest_of(number), 0)
    window.close()


def test_a_worker_that_stopped_with_the_lock_does_not_stop_the_others(path: Path, window: FileWindow) -> None:
    window.open()
    with path.open("rb") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        assert window.claim(mark(b"d" * 16)) is None
        assert window.claim(mark(b"d" * 16)) == mark(b"d" * 16)
