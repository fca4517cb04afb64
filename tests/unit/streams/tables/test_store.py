"""Values and their position are written together, despite kills; unreadable values name the remedy."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from support.streams.faust_app import faust_app
from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.fold.stored_instance import StoreUnreadable
from taskbridge.streams.table_versions import REBUILD, instances_changelog
from taskbridge.streams.tables.store import (
    PartitionNotHeld,
    Store,
    StoreDamaged,
    explaining_unreadable,
    instances_table,
)
from taskbridge.streams.transactions.positions import PositionUnreadable

if TYPE_CHECKING:
    from collections.abc import Callable


def open_store(folder: Path, *, partitions: tuple[int, ...] = (0,)) -> Store:
    app = faust_app(folder, partitions=2)
    store, _ = instances_table(app, partitions=2)
    store.follow("first")
    for partition in partitions:
        store.hold(partition)
    return store


_WRITES_FOR_EVER = """
import sys
from pathlib import Path
from test_store import open_store
store = open_store(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    values = {b"key-%d" % (number % 7): b"%09d" % number + b"x" * 50_000, b"both": b"%09d" % number}
    store.write_chunk(0, values, changelog_offset=number)
    if number == 100:
        store._open[0].flush()  # so that the test need not wait for RocksDB to do it
    print(number, flush=True)
"""


@pytest.mark.parametrize("writes", [3, 400])
def test_after_a_kill_the_store_is_as_it_was_after_some_batch_and_says_which(tmp_path: Path, writes: int) -> None:
    """With 400 writes RocksDB has flushed some of them; with 3 it has flushed none."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    child = subprocess.Popen(
        [sys.executable, "-c", _WRITES_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    )
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= writes:
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    store = open_store(tmp_path)
    position = store.position(0)
    if position is None:
        assert writes == 3
        assert not store.scan(0, b"", limit=1)
    else:
        assert store.read(0, b"both") == b"%09d" % position.offset
        for back in range(min(7, position.offset)):
            number = position.offset - back
            assert cast("bytes", store.read(0, b"key-%d" % (number % 7)))[:9] == b"%09d" % number
    store.release(0)


def test_a_clean_stop_loses_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write_chunk(0, {b"a": b"1", b"b": b"2"}, changelog_offset=7)
    store.write_chunk(0, {b"a": None}, changelog_offset=9)
    store.release(0)
    with pytest.raises(PartitionNotHeld):
        store.read(0, b"b")
    store.hold(0)
    assert store.read(0, b"a") is None
    assert store.read(0, b"b") == b"2"
    position = store.position(0)
    assert position is not None
    assert (position.offset, position.changelog_id) == (9, "first")


def test_a_wiped_partition_is_empty_and_the_others_are_not(tmp_path: Path) -> None:
    store = open_store(tmp_path, partitions=(0, 1))
    for partition in (0, 1):
        store.write_chunk(partition, {b"a": b"1"}, changelog_offset=0)
    store.wipe(0)
    assert not store.scan(0, b"", limit=1)
    assert store.position(0) is None
    assert store.read(1, b"a") == b"1"


def test_a_damaged_store_is_emptied(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write_chunk(0, {b"a": b"1" * 1000}, changelog_offset=0)
    store.release(0)
    for each in store.partition_path(0).glob("*.sst"):
        each.write_bytes(b"")
    store.hold(0)
    assert not store.scan(0, b"", limit=1)
    store.release(0)


def test_damage_found_while_reading_is_reported_and_the_store_is_emptied_when_reopened(
    tmp_path: Path,
) -> None:
    """Read by a key, a batch of keys, or a range, which would otherwise silently end there."""
    store = open_store(tmp_path)
    chance = random.Random(1)
    keys = [b"%05d" % number for number in range(2000)]
    reads: list[Callable[[], object]] = [
        lambda: [store.read(0, key) for key in keys],
        lambda: store.read_many(0, keys),
        lambda: store.scan(0, keys[0], b"9", limit=5000),
        lambda: store.scan(0, b"", limit=5000),
    ]
    reported: list[StoreDamaged] = []
    emptied: list[None] = []
    store.report_to(damaged=reported.append, emptied=lambda: emptied.append(None))
    for number, read in enumerate(reads, 1):
        store.write_chunk(0, {key: chance.randbytes(500) for key in keys}, changelog_offset=0)
        read()
        store.release(0)
        [table] = store.partition_path(0).glob("*.sst")
        with table.open("r+b") as file:
            file.seek(table.stat().st_size // 2)
            file.write(b"\xff" * 9000)
        store.hold(0)
        with pytest.raises(StoreDamaged, match="restores"):
            read()
        assert len(reported) == number
        store.release(0)
        store.hold(0)
        assert not store.scan(0, b"", limit=1)
        assert len(emptied) == number
        store.write_chunk(0, {keys[0]: b"again"}, changelog_offset=0)
        store.release(0)
        store.hold(0)
        assert store.read(0, keys[0]) == b"again"
        store.wipe(0)


@pytest.mark.parametrize(
    "error", [StoreUnreadable("why"), PositionUnreadable("why"), struct.error("why"), msgspec.DecodeError("why")]
)
def test_an_unreadable_value_names_its_changelog_and_the_rebuild_command(error: Exception) -> None:
    changelog = instances_changelog(2).name
    with pytest.raises(OperatorError) as reported, explaining_unreadable(changelog, 3):
        raise error
    assert str(reported.value).startswith(f"{changelog}, partition 3: why. ")
    assert str(reported.value).endswith(REBUILD)
