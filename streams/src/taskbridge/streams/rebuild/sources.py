"""What is known of an instance apart from its events: the live changelog, workers' local stores, published states.

Local stores matter when the changelog has lost records. The published states lack deleted instances, assignees of the
instance itself, and what decides between late events. After a restored backup, only the stores have the states of the
events that Kafka received after that backup (docs/adr/0024-rebuild-while-workers-run.md).
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import rocksdict

from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Lifecycle
from taskbridge.streams.cores.core import target_partition
from taskbridge.streams.fold.instance import from_published
from taskbridge.streams.fold.stored_instance import StoreUnreadable, age_of, pack, shown, with_events_lost
from taskbridge.streams.fold.views import show
from taskbridge.streams.instances.pending_notifications import (
    PENDING_PREFIX,
    PendingNotifications,
    pending_key,
    read_pending,
)
from taskbridge.streams.instances.upkeep import is_expired
from taskbridge.streams.positions import POSITION_KEY, Bounds, is_after_loss, position_if_readable
from taskbridge.streams.rebuild.copies import Copy, Located
from taskbridge.streams.table_versions import instances_table_name
from taskbridge.streams.tables.store import OFFSET_KEY, is_damage, is_lock, items_of, read_store_position

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskState
    from taskbridge.streams.fold.views import Shown
    from taskbridge.streams.positions import RecordedPosition
    from taskbridge.streams.rebuild.copies import TopicCopy
    from taskbridge.streams.tables.store import StorePosition

_position = lru_cache(position_if_readable)
_TOGETHER = 1000
_WHERE = ("v*/tables", "*/v*/tables")
"""Below a worker's data folder, or below a folder of several of them. The names are Faust's."""


class StoreInUse(OperatorError):
    """A worker uses a store that is needed, because other sources have lost its contents."""


class _OpenStore(NamedTuple):
    path: Path
    partition: int
    db: Any
    position: StorePosition


class LocalStores(Copy):
    """The contents of all local stores of one version; for each partition the most recent store wins."""

    def __init__(self, path: Path, *, retention_days: int) -> None:
        """``path`` is the folder of this copy. Instances whose retention is over are skipped."""
        super().__init__(path)
        self._retention_days = retention_days
        self.positions: dict[int, StorePosition] = {}
        """The changelog position of each partition's store."""
        self.reached: dict[int, RecordedPosition | None] = {}
        """The position in the events, if the store has it."""

    def read(
        self,
        data_dir: Path,
        version: int,
        *,
        changelogs: Collection[str],
        needed: bool,
        report: Callable[[str], None],
        tick: Callable[[int, int], None],
    ) -> None:
        """Read all stores. A store that a worker uses is skipped, unless it is ``needed``.

        ``changelogs``: the ids in the group's positions; if there are any, a store of another changelog is outdated.

        Raises:
            StoreInUse: stop that worker first.
        """
        with ExitStack() as stack:
            found: list[_OpenStore] = []
            for path, partition in stores_in(data_dir, version):
                store = _opened(path, partition, needed=needed, report=report)
                if store is None:
                    continue
                stack.callback(store.db.close)
                if changelogs and store.position.changelog_id not in changelogs:
                    report(f"skipping {path}: it belongs to a replaced changelog")
                else:
                    found.append(store)
            # The most recent store is read last, and overwrites the others.
            for number, store in enumerate(sorted(found, key=lambda each: each.position.offset)):
                tick(number, len(found))
                self._copy(store, report)
        if found:
            report(f"read {len(found)} local stores: {', '.join(str(each.path) for each in found)}")
        elif needed:
            report(f"no local stores of version {version} in {data_dir}: check STREAMS_DATA_DIR")

    def _copy(self, store: _OpenStore, report: Callable[[str], None]) -> None:
        now_ms = time.time_ns() // 1_000_000
        reached: RecordedPosition | None = None
        together: dict[bytes, Located | None] = {}
        try:
            for key, value in items_of(store.db):
                if key == POSITION_KEY:
                    reached = position_if_readable(value)
                elif key != OFFSET_KEY and (key.startswith(PENDING_PREFIX) or self._is_current(value, now_ms)):
                    together[key] = Located(store.partition, value)
                if len(together) >= _TOGETHER:
                    self.write(together)
                    together = {}
        except Exception as error:
            if not is_damage(error):
                raise
            # Each block has a checksum: what was read is correct. Only the position is unknown.
            report(f"{store.path} is damaged: its readable part is used")
        else:
            self.positions[store.partition], self.reached[store.partition] = store.position, reached
        self.write(together)

    def _is_current(self, value: bytes, now_ms: int) -> bool:
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


def _opened(path: Path, partition: int, *, needed: bool, report: Callable[[str], None]) -> _OpenStore | None:
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(False)  # noqa: FBT003 - its only parameter
    options.set_max_open_files(128)
    db: Any = None
    try:
        db = rocksdict.Rdict(str(path), options)
        position = read_store_position(db.get(OFFSET_KEY))
    except Exception as error:
        # The library's errors have no classes.
        if db is not None:
            db.close()
        if db is None and is_lock(error):
            if needed:
                raise StoreInUse(
                    f"{path} is needed, but a worker uses it: stop that worker, and run this again"
                ) from error
            report(f"skipping {path}: a worker uses it")
        elif is_damage(error):
            report(f"skipping {path}: cannot open it: {error}")
        else:
            raise
        return None
    if position is None:
        db.close()
        return None
    return _OpenStore(path, partition, db, position)


class Source(Enum):
    """Where a known state comes from."""

    CHANGELOG = "changelog"
    STORE = "store"
    PUBLISHED = "published"


class Known(NamedTuple):
    """The known state of an instance."""

    source: Source
    stored: Located
    """Its stored form, on the partition where it was found."""
    shown: Shown


@dataclass(eq=False)
class Sources:
    """Chooses the source with the most recent state of an instance.

    The changelog and a store have one history: the one that was written further has all that the other has. Each has
    more than the published state. A store that ends before the first event that is left has not seen the events in
    between, while the published states have: then a newer published state wins, and an instance that is not among them
    was deleted.
    """

    changelog: TopicCopy | None
    changelog_id: str | None
    stores: LocalStores
    published: TopicCopy
    is_sound: bool
    """Whether the changelog is known to be complete."""
    states: Codec[TaskState]
    events_id: str
    bounds: Mapping[int, Bounds]
    """Of each partition of events; filled later."""
    partitions: int
    """Of the new version."""

    def of(self, key: bytes) -> Known | None:
        """The best known state by key."""
        changelog = None if self.changelog is None else self.changelog.get(key)
        return self.best(key, changelog, self.stores.get(key), self.published.get(key))

    def best(
        self, key: bytes, changelog: Located | None, store: Located | None, published: Located | None
    ) -> Known | None:
        """The best of the values in the changelog, a store and the published states; None if none is usable."""
        candidates = [(Source.CHANGELOG, changelog), (Source.STORE, store)]
        if store is not None and self._is_store_further(store.partition):
            candidates.reverse()
        elif changelog is None and self.is_sound:
            # Its retention has ended since.
            candidates = []
        for source, stored in candidates:
            found = self._shown(key, stored)
            if stored is None or found is None:
                continue
            known = Known(source, stored, found)
            if source is Source.STORE and self._store_misses_events(stored.partition):
                return self._newer(known, published)
            return known
        return None if published is None else self._from_published(published)

    def pending(self, key: bytes, store: Located | None) -> PendingNotifications | None:
        """The pending notifications of the last rebuild; ``store`` is the instance's value in a store."""
        is_further = store is not None and self._is_store_further(store.partition)
        source = self.stores if is_further or self.changelog is None else self.changelog
        found = source.get(pending_key(key))
        try:
            return None if found is None else read_pending(found.value)
        except StoreUnreadable:
            return PendingNotifications(is_published=False, is_certain=False, notifications=0, before=None)

    def has_all_events(self, known: Known, *, complete_from: int) -> bool:
        """Whether every event of the instance is still on the topic, which has all events that happened later."""
        began_at = known.shown.instance.marks.began_at
        return began_at > complete_from and not known.shown.events_lost and not self._may_miss_events(known)

    def on_target_partition(self, known: Known) -> Located:
        """The state on the partition of its key; marked, if Kafka may have lost events of it."""
        target = target_partition(known.shown.instance.state.instance_id.encode(), self.partitions)
        value = known.stored.value
        return Located(target, with_events_lost(value) if self._may_miss_events(known) else value)

    def _is_store_further(self, partition: int) -> bool:
        """Whether the store has records that the changelog has lost."""
        position = self.stores.positions.get(partition)
        if position is None:
            return False
        if self.changelog is None or position.changelog_id != self.changelog_id:
            return True
        return position.offset >= self.changelog.reached(partition)

    def _store_misses_events(self, partition: int) -> bool:
        """Whether events were written and deleted that the store has not seen."""
        reached = self.stores.reached.get(partition)
        if reached is None or reached.topic_id != self.events_id:
            return True
        return reached.offset < self._bounds_of(partition).first

    def _may_miss_events(self, known: Known) -> bool:
        """Whether Kafka may have lost events that were folded into it, before their time.

        On any partition: when their number grew, an instance's later events went to another one.
        """
        reached = self.stores.reached
        if known.source is Source.CHANGELOG and self.changelog is not None:
            reached = {each: _position(written) for each, written in self.changelog.positions.items()}
        return reached.get(known.stored.partition) is None or any(
            is_after_loss(position, source_id=self.events_id, end=self._bounds_of(each).end)
            for each, position in reached.items()
        )

    def _bounds_of(self, partition: int) -> Bounds:
        return self.bounds.get(partition, Bounds(0, 0))

    def _newer(self, stored: Known, published: Located | None) -> Known | None:
        state = stored.shown.instance.state
        if published is None:
            is_deleted = state.lifecycle is not Lifecycle.DELETED and next(iter(self.published), None) is not None
            return None if is_deleted else stored
        found = self._from_published(published)
        return found if found.shown.instance.state.revision > state.revision else stored

    def _from_published(self, published: Located) -> Known:
        instance = from_published(self.states.decode(published.value))
        value = pack(published.value, instance, now_ms=instance.state.updated_at, events_lost=True)
        target = target_partition(instance.state.instance_id.encode(), self.partitions)
        return Known(Source.PUBLISHED, Located(target, value), show(instance, events_lost=True))

    def _shown(self, key: bytes, stored: Located | None) -> Shown | None:
        """An instance of the live version; None if it is unreadable, or has another key."""
        if stored is None:
            return None
        try:
            found = shown(stored.value, self.states)
        except StoreUnreadable:
            return None
        return found if found.instance.state.instance_id.encode() == key else None
