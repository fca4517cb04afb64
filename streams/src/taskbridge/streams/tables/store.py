"""A table's store: one RocksDB per partition, written by the batch together with the changelog offset it reaches.

``streams.tables.recovery`` opens and closes partitions, and one party at a time writes to each. That is the changelog's
reader during restoration and standby, and the agent while the partition is active.

RocksDB's own log is off, because the changelog is the log. All keys share one column family: after a kill, a store has
the state after some batch with the offset of that batch, and the changelog has the rest.
"""

from __future__ import annotations

import shutil
import struct
import time
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import rocksdict
import structlog

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.engine.app import declare_table
from taskbridge.streams.fold.stored_instance import StoreUnreadable
from taskbridge.streams.table_versions import FIRST_VERSION, REBUILD_HINT, instances_changelog, instances_table_name
from taskbridge.streams.transactions.positions import POSITION_KEY, PositionUnreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path

    import faust

OFFSET_KEY = b"__faust\0offset__"

WITHOUT_WAL: Any = rocksdict.WriteOptions()
WITHOUT_WAL.disable_wal = True  # its type stub declares a method

_DAMAGE = ("Corruption", "IO error: No such file or directory")
"""Prefixes of the library's errors, which have no classes, for missing or changed files."""
_UNREADABLE = (StoreUnreadable, PositionUnreadable, struct.error, msgspec.DecodeError)

log = structlog.get_logger(__name__)


class StoreDamaged(OperatorError):
    """A partition's store is not as it was written. When it is opened again, it is emptied and restored."""


class PartitionNotHeld(OperatorError):
    """The partition's store is not open here: another worker has the partition."""


class StorePosition(NamedTuple):
    """How far a partition's store follows its changelog."""

    offset: int
    changelog_id: str
    at_ms: int


def position_now(offset: int, changelog_id: str) -> bytes:
    return f"{offset} {changelog_id} {time.time_ns() // 1_000_000}".encode()


def read_store_position(stored: bytes | None) -> StorePosition | None:
    try:
        offset, changelog_id, at_ms = (stored or b"").decode("ascii", "replace").split(" ")
        return StorePosition(int(offset), changelog_id, int(at_ms))
    except ValueError:
        return None


def damage_mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def items_of(db: Any, start: bytes = b"", options: Any = None) -> Iterator[tuple[bytes, bytes]]:
    """Keys from ``start`` on in their order, with their values.

    Raises the library's own error if the rest cannot be read; its own ``items`` would silently end there.
    """
    found = db.iter(options or rocksdict.ReadOptions())
    try:
        found.seek(start)
        while found.valid():
            yield found.key(), found.value()
            found.next()
        found.status()
    finally:
        # Otherwise a reference to the error would keep the store open.
        del found


def _options() -> rocksdict.Options:
    """The options of each partition: the library's defaults need gigabytes for a dozen partitions."""
    blocks = rocksdict.BlockBasedOptions()
    blocks.set_block_cache(rocksdict.Cache(16 << 20))
    blocks.set_bloom_filter(3, block_based=True)
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)  # noqa: FBT003 - its only parameter
    options.set_max_open_files(128)
    options.set_write_buffer_size(8 << 20)
    options.set_max_write_buffer_number(3)
    options.set_block_based_table_factory(blocks)
    return options


class Store:
    """Values and the offset that they represent are written in one atomic batch.

    Each method that reads or writes a partition raises PartitionNotHeld if it is not open.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._open: dict[int, Any] = {}
        self._changelog_id = ""
        self._on_damage: Callable[[StoreDamaged], None] | None = None
        self._on_emptied: Callable[[], None] | None = None

    @property
    def held(self) -> frozenset[int]:
        return frozenset(self._open)

    def partition_path(self, partition: int) -> Path:
        return self._folder / f"{self._name}-{partition}.db"

    def report_to(self, *, damaged: Callable[[StoreDamaged], None], emptied: Callable[[], None]) -> None:
        """``damaged`` is called, from any thread, when damage is found: the worker must restart.

        ``emptied`` is called when a damaged store was emptied.
        """
        self._on_damage, self._on_emptied = damaged, emptied

    def follow(self, changelog_id: str) -> None:
        """Positions that are written from now on belong to this topic. Must be called before a partition is opened."""
        self._changelog_id = changelog_id

    def read(self, partition: int, key: bytes) -> bytes | None:
        with self._checked(partition) as held:
            return held.get(key)

    def read_many(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        with self._checked(partition) as held:
            return held.get(keys) if keys else []

    def scan(self, partition: int, start: bytes, end: bytes | None = None, *, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` keys from ``start`` on and before ``end``, with their values; without positions."""
        bounded = rocksdict.ReadOptions()
        if end is not None:
            # Without this, deleted keys after the end would be read too.
            bounded.set_iterate_upper_bound(end)
        with self._checked(partition) as held:
            found = (item for item in items_of(held, start, bounded) if item[0] not in (OFFSET_KEY, POSITION_KEY))
            return list(islice(found, limit))

    def write_chunk(self, partition: int, values: Mapping[bytes, bytes | None], *, changelog_offset: int) -> None:
        """Write these values, and the offset up to which the changelog is now applied: both or neither.

        None deletes a key. After a kill, what RocksDB had flushed remains, always whole batches.
        """
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in values.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(OFFSET_KEY, position_now(changelog_offset, self._changelog_id))
        with self._checked(partition) as held:
            held.write(batch, WITHOUT_WAL)

    def position(self, partition: int) -> StorePosition | None:
        """The offset up to which the changelog is applied; None in an empty store, and if it is unreadable."""
        return read_store_position(self.read(partition, OFFSET_KEY))

    def hold(self, partition: int) -> None:
        """Open the partition's store. One that is damaged is emptied, with an error in the log."""
        while partition not in self.held:
            try:
                if damage_mark(self.partition_path(partition)).exists():
                    self._empty(partition, "it was found damaged while it was read")
                self._folder.mkdir(parents=True, exist_ok=True)
                self._open[partition] = rocksdict.Rdict(str(self.partition_path(partition)), _options())
            except Exception as error:
                if "Corruption" not in str(error):
                    raise
                self._empty(partition, str(error))

    def release(self, partition: int) -> None:
        held = self._open.pop(partition, None)
        if held is not None:
            held.close()

    def close(self) -> None:
        for partition in self.held:
            self.release(partition)

    def wipe(self, partition: int) -> None:
        """Empty the partition's store, which is open before and after."""
        self.release(partition)
        shutil.rmtree(self.partition_path(partition), ignore_errors=True)
        self.hold(partition)

    @contextmanager
    def _checked(self, partition: int) -> Generator[Any]:
        """The open store for one piece of work. Damage is recorded on the disk and reported."""
        held = self._open.get(partition)
        if held is None:
            raise PartitionNotHeld(f"the store of partition {partition} is not open on this worker")
        try:
            yield held
        except Exception as error:
            if not str(error).startswith(_DAMAGE):
                raise
            path = self.partition_path(partition)
            with suppress(OSError):
                damage_mark(path).touch()
            damage = StoreDamaged(f"{path} is damaged; the next start restores it from its changelog: {error}")
            log.error("store_damaged", partition=partition, path=str(path), problem=str(error))  # noqa: TRY400
            if self._on_damage is not None:
                self._on_damage(damage)
            raise damage from error

    def _empty(self, partition: int, because: str) -> None:
        path = self.partition_path(partition)
        log.error("store_emptied", path=str(path), because=because)
        shutil.rmtree(path, ignore_errors=True)
        # Afterwards: after a kill in between, the store is emptied again.
        damage_mark(path).unlink(missing_ok=True)
        if self._on_emptied is not None:
            self._on_emptied()


@contextmanager
def explaining_unreadable(changelog: str, partition: int) -> Generator[None]:
    """Add the table and the command that rebuilds it to errors of the block, which reads only its values."""
    try:
        yield
    except _UNREADABLE as error:
        raise OperatorError(f"{changelog}, partition {partition}: {error}. {REBUILD_HINT}") from error


def instances_table(app: faust.App, *, partitions: int, version: int = FIRST_VERSION) -> tuple[Store, str]:
    changelog = instances_changelog(version).name
    # The topic exists before Faust could create it, with the cluster's default replication.
    assert declare_table(app, instances_table_name(version), partitions=partitions) == changelog
    return Store(app.conf.tabledir, instances_table_name(version)), changelog


def remove_other_versions(app: faust.App, *, version: int) -> None:
    """Delete the stores of versions that are not live. Blocks."""
    live = instances_table_name(version)
    others = [path for path in app.conf.tabledir.glob("instances*-*.db") if path.name.rpartition("-")[0] != live]
    for path in others:
        shutil.rmtree(path, ignore_errors=True)
    if others:
        log.info("stores_removed", stores=len(others), live=version)
