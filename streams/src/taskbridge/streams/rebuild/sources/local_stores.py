"""The stores that workers have left on this machine, as one more source of a rebuild.

Where a changelog is lost, they alone still know what is not published, and what came of events that are gone.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import rocksdict

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.fold.stored_instance import StoreUnreadable, age_of
from taskbridge.streams.positions.changelog_topic import instances_table_name
from taskbridge.streams.positions.kept_position import POSITION_KEY, position_if_readable
from taskbridge.streams.processing.retention import is_expired
from taskbridge.streams.processing.untold import UNTOLD
from taskbridge.streams.rebuild.sources.copies import Copy, Kept
from taskbridge.streams.tables.store_files import OFFSET_KEY, is_damage, is_lock, items_of, read_store_position

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from taskbridge.streams.positions.kept_position import KeptPosition
    from taskbridge.streams.tables.store_files import StorePosition

_TOGETHER = 1000
_WHERE = ("v*/tables", "*/v*/tables")
"""Below a worker's data folder, or below a folder of several of them. The names are Faust's."""


class StoreInUse(OperatorError):
    """A worker uses a store that is needed, because other sources have lost its contents."""


class _Left(NamedTuple):
    """One store, open."""

    path: Path
    partition: int
    db: Any
    position: StorePosition


class LocalStores(Copy):
    """The contents of the stores of one version; of each partition the most recent store."""

    def __init__(self, path: Path, *, retention_days: int) -> None:
        """``path`` is the folder of this copy. Instances whose retention is over are skipped."""
        super().__init__(path)
        self._retention_days = retention_days
        self.positions: dict[int, StorePosition] = {}
        """The changelog position of each partition's store."""
        self.reaches: dict[int, KeptPosition | None] = {}
        """The position in the events, if the store has it."""

    def read(
        self,
        data_dir: Path,
        version: int,
        *,
        changelogs: Collection[str],
        needed: bool,
        tell: Callable[[str], None],
        tick: Callable[[int, int], None],
    ) -> None:
        """Read all stores. A store that a worker uses is skipped, unless it is ``needed``.

        ``changelogs``: the ids in the group's positions; if there are any, a store of another changelog is outdated.

        Raises:
            StoreInUse: stop that worker first.
        """
        with ExitStack() as stack:
            found: list[_Left] = []
            for path, partition in stores_in(data_dir, version):
                left = _opened(path, partition, needed=needed, tell=tell)
                if left is None:
                    continue
                stack.callback(left.db.close)
                if changelogs and left.position.changelog_id not in changelogs:
                    tell(f"skipping {path}: it belongs to a replaced changelog")
                else:
                    found.append(left)
            # The most recent store is read last, and overwrites the others.
            for number, left in enumerate(sorted(found, key=lambda each: each.position.offset)):
                tick(number, len(found))
                self._take(left, tell)
        if found:
            tell(f"read {len(found)} local stores: {', '.join(str(each.path) for each in found)}")
        elif needed:
            tell(f"no local stores of version {version} in {data_dir}: check STREAMS_DATA_DIR")

    def _take(self, left: _Left, tell: Callable[[str], None]) -> None:
        now_ms = time.time_ns() // 1_000_000
        reaches: KeptPosition | None = None
        together: dict[bytes, Kept | None] = {}
        try:
            for key, value in items_of(left.db):
                if key == POSITION_KEY:
                    reaches = position_if_readable(value)
                elif key != OFFSET_KEY and (key.startswith(UNTOLD) or self._is_wanted(value, now_ms)):
                    together[key] = Kept(left.partition, value)
                if len(together) >= _TOGETHER:
                    self.write(together)
                    together = {}
        except Exception as error:
            if not is_damage(error):
                raise
            # Each block has a checksum: what was read is correct. Only the position is unknown.
            tell(f"{left.path} is damaged: its readable part is used")
        else:
            self.positions[left.partition], self.reaches[left.partition] = left.position, reaches
        self.write(together)

    def _is_wanted(self, value: bytes, now_ms: int) -> bool:
        try:
            return not is_expired(age_of(value), now_ms=now_ms, days=self._retention_days)
        except StoreUnreadable:
            return False


def stores_in(data_dir: Path, version: int) -> Iterator[tuple[Path, int]]:
    """The stores of that version, with the partition of each."""
    name = instances_table_name(version)
    for where in _WHERE:
        for path in sorted(data_dir.glob(f"{where}/{name}-*.db")):
            table, _, partition = path.stem.rpartition("-")
            if table == name and partition.isdecimal():
                yield path, int(partition)


def _opened(path: Path, partition: int, *, needed: bool, tell: Callable[[str], None]) -> _Left | None:
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(False)  # noqa: FBT003 - its only parameter
    options.set_max_open_files(128)
    try:
        db = rocksdict.Rdict(str(path), options)
    except Exception as error:
        # The library's errors have no classes.
        if is_lock(error):
            if needed:
                raise StoreInUse(
                    f"{path} is needed, but a worker uses it: stop that worker, and run this again"
                ) from error
            tell(f"skipping {path}: a worker uses it")
            return None
        if is_damage(error):
            tell(f"skipping {path}: cannot open it: {error}")
            return None
        raise
    try:
        position = read_store_position(db.get(OFFSET_KEY))
    except Exception as error:
        db.close()
        if not is_damage(error):
            raise
        tell(f"skipping {path}: {error}")
        return None
    if position is None:
        db.close()
        return None
    return _Left(path, partition, db, position)
