"""After any power failure, the disk holds every record that was acknowledged and not delivered.

The real spool runs under strace. Every state of the disk that its writes allow is made, and opened as at a start.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import needs
from support.edge.crash_states import Disk, Recorder, State, Step
from support.edge.spool import SCHEMA, number_of, record
from taskbridge.edge.kafka.record import record_of, row_of
from taskbridge.edge.spool.recovery import open_or_recover
from taskbridge.edge.spool.store import BROKEN_MARK

if TYPE_CHECKING:
    from collections.abc import Generator

TIMES = int(os.environ.get("TASKBRIDGE_POWER_FAILURES", "1"))
"""How many times as long as in the default run."""

SHORT_LOG = 30_000
"""So that it is checkpointed and used again within a short history."""


def put(*sizes: int) -> Step:
    """Records that come at once."""
    return "put", list(sizes)


def deliver(count: int) -> Step:
    return "deliver", [count]


RESTART: Step = ("restart", [])

HISTORIES: dict[str, list[Step]] = {
    "one after the other": [put(100), put(600), deliver(1), put(900), put(50)],
    "commits of many": [put(*[300] * 9), put(2000, 2000, 2000), deliver(5), put(*[400] * 6)],
    "larger than a page": [put(9000), put(100, 5000), deliver(1), put(14_000), put(10)],
    "emptied": [put(3000), put(100), deliver(9), put(700), deliver(9), put(20)],
    "closed and opened": [put(100), RESTART, put(200), deliver(1), RESTART, put(9)],
    "a log used again": [put(3000), put(3000), put(3000, 9000), put(9), put(9), deliver(2)],
}


@pytest.fixture(scope="module")
def recorder() -> Generator[Recorder]:
    needs.program("strace")
    with Recorder() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def memory() -> Generator[Path]:
    """A folder in memory where there is one: thousands of states are written."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of its own within
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


def check(state: State, folder: Path, *, damaged: bool = False) -> None:
    """Open what the failure left, as a start does, and ask for the records."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in state.files.items():
        (folder / name).write_bytes(content)
    opened = open_or_recover(folder / "0.db", [SCHEMA])
    try:
        rows = opened.store.read(-1, count=10_000)
        numbers = [number_of(record_of(row)) for row in rows]
        assert state.required <= set(numbers) <= state.allowed
        assert len(numbers) == len(set(numbers)), "none twice"
        assert damaged or opened.damaged is None, "a power failure is no damage"
        assert opened.rows_damaged == 0
        opened.store.write([row_of(record(0), position=opened.store.next_position, created_at=1)])
        assert len(opened.store.read(-1, count=10_000)) == len(rows) + 1
    finally:
        opened.store.close()


@pytest.mark.parametrize("name", HISTORIES)
def test_every_state_after_a_short_history_holds_what_was_acknowledged(
    recorder: Recorder, tmp_path: Path, memory: Path, name: str
) -> None:
    calls = recorder.record(tmp_path / "0", HISTORIES[name], checkpoint_bytes=SHORT_LOG)
    tried = 0
    for state in Disk().states(calls, random.Random(1), at_random=3 * TIMES):
        check(state, memory / "spool")
        tried += 1
    assert tried > 100


def test_a_power_failure_while_a_broken_file_is_replaced_loses_none_of_its_rows(
    recorder: Recorder, tmp_path: Path, memory: Path
) -> None:
    calls = recorder.record(tmp_path / "0", [put(100, 9000), put(3000), put(*[200] * 9)], checkpoint_bytes=SHORT_LOG)
    *_, whole = Disk().states(calls, random.Random(1), at_random=0)
    assert whole.required == frozenset(range(1, 13))
    disk = Disk.after(replace(whole, files=whole.files | {f"0.db{BROKEN_MARK}": b""}))
    folder = tmp_path / "broken"
    folder.mkdir()
    for name, content in disk.files.items():
        (folder / name).write_bytes(content)
    calls = recorder.record(folder, [put(50)], checkpoint_bytes=SHORT_LOG, first=disk.next_number)
    tried = 0
    for state in disk.states(calls, random.Random(1), at_random=3 * TIMES):
        check(state, memory / "spool", damaged=True)
        tried += 1
    assert tried > 100


SIZES = st.integers(1, 10_000)
STEPS = st.one_of(
    st.lists(SIZES, min_size=1, max_size=8).map(lambda sizes: put(*sizes)),
    st.integers(1, 20).map(deliver),
    st.just(RESTART),
)


@settings(
    max_examples=5 * TIMES,
    deadline=None,
    derandomize=TIMES == 1,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    lives=st.lists(st.lists(STEPS, min_size=5, max_size=25), min_size=1, max_size=3),
    checkpoint_bytes=st.sampled_from([10_000, 60_000, 1 << 20]),
    seed=st.integers(0, 1 << 30),
)
def test_states_after_long_lives_with_several_failures_hold_what_was_acknowledged(
    recorder: Recorder, memory: Path, lives: list[list[Step]], checkpoint_bytes: int, seed: int
) -> None:
    chance = random.Random(seed)
    disk, folder = Disk(), memory / "life"
    for life in lives:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in disk.files.items():
            (folder / name).write_bytes(content)
        calls = recorder.record(folder, life, checkpoint_bytes=checkpoint_bytes, first=disk.next_number)
        states = list(disk.states(calls, chance, at_random=3))
        for state in chance.sample(states, min(40, len(states))):
            check(state, memory / "spool")
        disk = Disk.after(chance.choice(states))
