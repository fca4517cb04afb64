"""The core claims as Python does, to the byte; both beside each other in one window, and killed at any moment."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installed_parts import WHERE_CARGO_BUILDS
from taskbridge.edge.verification import replay_windows
from taskbridge.edge.verification.replay_windows import WAYS, FileWindow
from taskbridge.edge.verification.replays import Mark
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from taskbridge.native._native import ReplayWindow

pytestmark = WHERE_CARGO_BUILDS

SETS = 2
SLOTS_AT, SLOT_BYTES = 4096, 24


@dataclass(frozen=True)
class Claim:
    mark: Mark
    second: int


@dataclass(frozen=True)
class Damage:
    """Bytes of the file that turn out others."""

    at: int
    becomes: bytes


@dataclass(frozen=True)
class Cut:
    """The file ends here, for once."""

    at: int


DIGESTS = [bytes([number]) * 8 + bytes([number % (SETS + 1)]) + bytes(7) for number in range(3 * WAYS)]
"""More than have a place, among them what an empty slot looks like."""

marks = st.builds(
    Mark, st.sampled_from(DIGESTS), st.binary(min_size=8, max_size=8) | st.just(bytes(8)), st.sampled_from(Action)
)
seconds = st.integers(0, 40) | st.sampled_from([0, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
places = st.integers(SLOTS_AT, SLOTS_AT + SETS * WAYS * SLOT_BYTES - 1)
steps = st.one_of(
    st.builds(Claim, marks, seconds),
    st.builds(Claim, marks, seconds),
    st.builds(Claim, marks, seconds),
    st.builds(Damage, places, st.binary(min_size=1, max_size=SLOT_BYTES)),
    st.builds(Cut, places),
)


def opened(path: Path, *, entries: int = SETS * WAYS, natively: bool) -> FileWindow:
    window = FileWindow(path, entries=entries)
    with pytest.MonkeyPatch.context() as patched:
        if not natively:
            patched.setattr(replay_windows, "Core", None)
        window.open()
    assert (core_of(window) is not None) is natively
    return window


def core_of(window: FileWindow) -> ReplayWindow | None:
    return window.core


@given(st.lists(steps, max_size=60))
def test_both_come_to_the_same_and_write_the_same_bytes(steps: list[Claim | Damage | Cut]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        paths = [Path(folder) / "python", Path(folder) / "native"]
        windows = [opened(path, natively=path.name == "native") for path in paths]
        for step in steps:
            match step:
                case Claim(mark, second):
                    patched.setattr(replay_windows.time, "time", lambda second=second: second + 0.5)
                    python, native = (window.claim(mark) for window in windows)
                    assert python == native
                case Damage(at, becomes):
                    for path in paths:
                        with path.open("r+b") as file:
                            file.seek(at)
                            file.write(becomes)
                case Cut(at):
                    for path in paths:
                        os.truncate(path, at)
            assert paths[0].read_bytes() == paths[1].read_bytes()
        for window in windows:
            assert window.problem is None
            window.close()


@pytest.mark.parametrize("natively", [False, True])
def test_what_the_other_way_claimed_is_known(tmp_path: Path, *, natively: bool) -> None:
    one, other = (opened(tmp_path / "window", natively=each) for each in (natively, not natively))
    for number, digest in enumerate(DIGESTS[: SETS * 4]):
        mark = Mark(digest, number.to_bytes(8, "big"), Action.COPIED)
        assert one.claim(mark) is None
        assert other.claim(Mark(digest, b"another.", Action.CREATED)) == mark
    for window in (one, other):
        window.close()


def test_the_core_and_python_keep_each_other_out(tmp_path: Path) -> None:
    window = opened(tmp_path / "window", natively=True)
    core = core_of(window)
    assert core is not None
    with (tmp_path / "window").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert core.claim(bytes(16), bytes(8), 1, 1) is None
        fcntl.flock(other, fcntl.LOCK_UN)
        assert core.claim(bytes(16), bytes(8), 1, 1) is True
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    window.close()


ENTRIES = 1 << 17
"""So many that none of a test's digests makes room for another."""


def digest_of(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()[:16]


CLAIMING = f"""
import hashlib, os, sys, time
from pathlib import Path
from taskbridge.edge.verification import replay_windows
from taskbridge.edge.verification.replays import Mark
from taskbridge.schemas.events import Action

path, way, event = sys.argv[1:]
replay_windows._LOCK_ATTEMPTS = 1_000_000  # on a crowded machine, who holds the lock may not run for a while
if way == "python":
    replay_windows.Core = None
    write = os.pwrite
    def slowly(*arguments):
        time.sleep(0.0001)  # between looking and writing, for the others to get in
        return write(*arguments)
    replay_windows.os.pwrite = slowly
window = replay_windows.FileWindow(Path(path), entries={ENTRIES})
window.open()
print("ready", flush=True)
for line in sys.stdin:
    for number in range(*map(int, line.split())):
        digest = hashlib.sha256(str(number).encode()).digest()[:16]
        known = window.claim(Mark(digest, event.encode(), Action.CREATED))
        print(number, event if known is None else known.event.decode(), flush=True)
"""


class Worker:
    """A process that claims digests for its event, and says whose each is."""

    def __init__(self, path: Path, way: str, event: str) -> None:
        program = [sys.executable, "-c", CLAIMING, str(path), way, event]
        self.process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.line() == "ready\n"

    def claim(self, since: int, until: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{since} {until}\n")
        self.process.stdin.flush()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def test_of_workers_with_and_without_the_core_exactly_one_wins_each_signature(tmp_path: Path) -> None:
    ways, rounds, at_once = ("native", "python", "native", "python"), 30, 10
    workers = [Worker(tmp_path / "window", way, f"worker-{number}") for number, way in enumerate(ways)]
    for since in range(0, rounds * at_once, at_once):
        for worker in workers:
            worker.claim(since, since + at_once)
        told = [[worker.line() for _ in range(at_once)] for worker in workers]
        assert told == [told[0]] * len(workers)
    for worker in workers:
        worker.process.communicate()
        assert worker.process.returncode == 0


@pytest.mark.parametrize("way", ["python", "native"])
def test_what_a_killed_worker_had_claimed_is_known_and_its_lock_is_free(tmp_path: Path, way: str) -> None:
    path = tmp_path / "window"
    for killed_after in (1, 100, 1000):
        worker = Worker(path, way, f"kill{killed_after:04}")
        worker.claim(0, 20_000)
        told = [worker.line() for _ in range(killed_after)]
        worker.process.kill()
        # The last may be cut. Not by ``communicate``, which passes over what was read ahead.
        told += [line for line in iter(worker.line, "") if line.endswith("\n")]
        worker.process.communicate()
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert all(is_whole_or_empty(slot) for slot in slots_of(path.read_bytes()))
        for natively in (False, True):
            window = opened(path, entries=ENTRIES, natively=natively)
            for number, event in map(str.split, told):
                known = window.claim(Mark(digest_of(int(number)), b"copied!!", Action.CANCELLED))
                assert known == Mark(digest_of(int(number)), event.encode(), Action.CREATED)
            window.close()


def slots_of(content: bytes) -> list[bytes]:
    return [content[at : at + SLOT_BYTES] for at in range(SLOTS_AT, len(content), SLOT_BYTES)]


def is_whole_or_empty(slot: bytes) -> bool:
    return not any(slot) or zlib.crc32(slot[:-3]).to_bytes(4, "little")[:3] == slot[-3:]
