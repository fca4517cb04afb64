"""A table's store: one RocksDB a partition, written by the batch together with the changelog offset it reaches.

Found by Faust as the ``chunks://`` scheme of a table's store, an entry point in the group ``faust.stores``. Faust only
declares it; partitions are opened and closed by ``streams.tables.recovery``, and one party at a time writes to each:
the changelog's reader while it is restored or on standby, the agent while it is active.

RocksDB's own log is off: the changelog is the log. All keys share one column family, so what is left after a kill is
the state after some batch, with the offset of that batch, and the changelog has the rest.
"""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import rocksdict
import structlog

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.engine.table_store import TableStore
from taskbridge.streams.positions.kept_position import POSITION_KEY
from taskbridge.streams.tables.store_files import (
    OFFSET_KEY,
    WITHOUT_WAL,
    StoreDamaged,
    StoreLocked,
    damage_mark,
    is_damage,
    is_lock,
    items_of,
    position_now,
    read_store_position,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from taskbridge.streams.tables.store_files import StorePosition

log = structlog.get_logger(__name__)

_LOCKED_S = 30.0
_RETRY_S = 0.2


class PartitionNotHeld(OperatorError):
    """The partition's store is not open here: the partition belongs to another worker by now."""


class Store(TableStore):
    """Values and the offset that they stand for are written in one atomic batch.

    Raises, from whatever reads or writes a partition:
        PartitionNotHeld: it is not this worker's.
    """

    _changelog_id: str = ""
    _on_damage: Callable[[StoreDamaged], None] | None = None
    _on_emptied: Callable[[], None] | None = None

    def report_to(self, *, damaged: Callable[[StoreDamaged], None], emptied: Callable[[], None]) -> None:
        """``damaged`` is notified, from any thread, of damage that is met: the worker has to start again.

        ``emptied`` is notified when a damaged store was emptied.
        """
        self._on_damage, self._on_emptied = damaged, emptied

    def follow(self, changelog_id: str) -> None:
        """Every position that is written from now on is one in this topic. Before the first partition is opened."""
        self._changelog_id = changelog_id

    def read(self, partition: int, key: bytes) -> bytes | None:
        """The value of a key on this partition."""
        with self._sound(partition) as held:
            return held.get(key)

    def read_many(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        """The values of these keys, in their order, in one call."""
        with self._sound(partition) as held:
            return held.get(keys) if keys else []

    def slice(self, partition: int, start: bytes, end: bytes, *, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` keys from ``start`` on and before ``end``, with their values. Nothing else is looked at."""
        bounded = rocksdict.ReadOptions()
        # Without it, what was deleted behind the end would be walked over too.
        bounded.set_iterate_upper_bound(end)
        with self._sound(partition) as held:
            found: list[tuple[bytes, bytes]] = list(islice(held.items(from_key=start, read_opt=bounded), limit))
            if len(found) < limit:
                # The library's own items, which take half the time, end where they cannot be read, too.
                behind = found[-1][0] + b"\x00" if found else start
                found += items_of(held, behind, bounded)
            return found

    def scan(self, partition: int, after: bytes, *, limit: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """Up to ``limit`` keys behind ``after``, with their values; and the last of them, None where it is the end."""
        found: list[tuple[bytes, bytes]] = []
        for key, value in self._items(partition, after):
            if key not in (after, OFFSET_KEY, POSITION_KEY):
                found.append((key, value))
                if len(found) == limit:
                    return found, key
        return found, None

    def write_chunk(self, partition: int, values: Mapping[bytes, bytes | None], *, changelog_offset: int) -> None:
        """Put these values, and remember that the changelog is applied up to this offset: both or neither.

        None takes a key away. Both survive the process as far as RocksDB has flushed, and always as a whole.
        """
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in values.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(OFFSET_KEY, position_now(changelog_offset, self._changelog_id))
        with self._sound(partition) as held:
            held.write(batch, WITHOUT_WAL)

    def position(self, partition: int) -> StorePosition | None:
        """How far the changelog is applied; None in an empty store, and where it cannot be told."""
        return read_store_position(self.read(partition, OFFSET_KEY))

    def hold(self, partition: int) -> None:
        """Open the partition's store. Blocks while another process still has it.

        A store that RocksDB finds damaged is emptied, loudly: its changelog has all of it.

        Raises:
            StoreLocked: another process keeps it.
        """
        deadline = time.monotonic() + _LOCKED_S
        while partition not in self.held:
            try:
                if damage_mark(self.partition_path(partition)).exists():
                    self._empty(partition, "it was found damaged while it was read")
                self.open_partition(partition)
            except Exception as error:
                if is_lock(error):
                    if time.monotonic() > deadline:
                        raise StoreLocked(f"{self.partition_path(partition)} is in use: {error}") from error
                    time.sleep(_RETRY_S)
                elif "Corruption" in str(error):
                    self._empty(partition, str(error))
                else:
                    raise

    def wipe(self, partition: int) -> None:
        """Empty the partition's store, which is open before and after."""
        self.release(partition)
        shutil.rmtree(self.partition_path(partition), ignore_errors=True)
        self.hold(partition)

    def touch(self, partition: int) -> None:
        """Say that the position still holds, and bring it to the disk. Only where nobody else writes."""
        found = self.position(partition)
        if found is not None:
            self.write_chunk(partition, {}, changelog_offset=found.offset)
            with self._sound(partition) as held:
                held.flush(wait=False)

    def is_empty(self, partition: int) -> bool:
        """Whether nothing was ever written to the partition's store."""
        return next(self._items(partition), None) is None

    def _items(self, partition: int, start: bytes = b"", options: Any = None) -> Iterator[tuple[bytes, bytes]]:
        """Keys from ``start`` on, with their values.

        Raises:
            StoreDamaged: there are more, and they cannot be read.
        """
        with self._sound(partition) as held:
            yield from items_of(held, start, options)

    @contextmanager
    def _sound(self, partition: int) -> Generator[Any]:
        """The open store, for one piece of work. Damage that comes to light is remembered on the disk, and told."""
        held = self._held(partition)
        try:
            yield held
        except Exception as error:
            if not is_damage(error):
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
        # Afterwards: killed in between, the store is emptied again.
        damage_mark(path).unlink(missing_ok=True)
        if self._on_emptied is not None:
            self._on_emptied()

    def _held(self, partition: int) -> Any:
        held = self.opened(partition)
        if held is None:
            raise PartitionNotHeld(f"the store of partition {partition} is not open on this worker")
        return held
