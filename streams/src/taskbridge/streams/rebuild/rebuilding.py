"""Rebuild the instances on this machine's disk, and compare them with the live version and the published states."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from msgspec.structs import replace

from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES
from taskbridge.streams.cores.native import choose_core
from taskbridge.streams.fold.stored_instance import HEAD_BYTES, age_of, state_value
from taskbridge.streams.positions.changelog_topic import instances_changelog
from taskbridge.streams.processing.retention import is_expired
from taskbridge.streams.processing.untold import (
    FIRST_INSTANCE,
    Untold,
    instance_key,
    read_untold,
    told_of,
    untold_key,
    write_untold,
)
from taskbridge.streams.rebuild.comparison import side_by_side
from taskbridge.streams.rebuild.counts import Counts
from taskbridge.streams.rebuild.folding import EventFold
from taskbridge.streams.rebuild.sources.copies import Copy, Kept
from taskbridge.streams.rebuild.sources.known import Knowledge, Source
from taskbridge.streams.rebuild.sources.local_stores import LocalStores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from taskbridge.schemas.events import TaskNotification
    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.rebuild.operation import Operation
    from taskbridge.streams.rebuild.sources.known import Known

_Copy = TypeVar("_Copy", bound=Copy)


class Outcome(NamedTuple):
    """The new state of one instance, and its pending notifications."""

    key: bytes
    new: Kept
    untold: Untold
    notifications: list[TaskNotification]


class Rebuilding:
    """The rebuilt instances; ``catch_up`` is repeated, each time with fewer new events."""

    def __init__(self, run: Operation, registry: Registry, folder: Path, *, live: int, homes: int) -> None:
        """``live`` is the live version, and ``homes`` the number of partitions of the new one."""
        self._run = run
        self._live = live
        self._states = task_state_codec(registry)
        self._resources = ExitStack()
        self.counts = Counts()
        changelog = instances_changelog(live).name
        self._partitions = there = run.topics()
        described = run.offsets.topics([changelog, TASK_EVENTS.name])
        ids = {name: each.topic_id for name, each in described.items()}
        self._named = run.workers.changelogs(live)
        self._is_sound = changelog in ids and self._named <= {ids[changelog]}
        if self._is_sound:
            self._is_sound = not any(run.offsets.begins(changelog, range(there[changelog])).values())
        self._is_untold = False
        """Whether the last rebuild has left pending notifications."""
        self.new = self._kept(Copy(folder / "new"))
        self._old = self._kept(run.copy_of(changelog, folder / "old")) if changelog in ids else None
        self._published = self._kept(run.copy_of(TASK_STATES.name, folder / "published"))
        self._stores = self._kept(LocalStores(folder / "stores", retention_days=run.settings.retention_days))
        settings = run.settings
        folding = choose_core(registry, cached_instances=settings.live_instances, form_fields=settings.form_fields)
        self._fold = EventFold(run, self.new, folding=folding, homes=homes, base=self._base)
        self._resources.callback(self._fold.close)
        self._known = Knowledge(
            self._old,
            ids.get(changelog),
            self._stores,
            self._published,
            is_sound=self._is_sound,
            states=self._states,
            events_id=ids[TASK_EVENTS.name],
            bounds=self._fold.bounds,
            homes=homes,
        )

    def close(self) -> None:
        self._resources.close()

    def read(self) -> None:
        """Read all sources.

        Raises:
            StoreInUse: a worker uses a store that is needed.
        """
        run = self._run
        if not self._is_sound:
            changelog = instances_changelog(self._live).name
            run.tell(
                f"{changelog} is missing or truncated: local stores and published states complete what events lack"
            )
        self._stores.read(
            run.settings.data_dir,
            self._live,
            changelogs=self._named,
            needed=not self._is_sound,
            tell=run.tell,
            tick=run.ticker("local stores"),
        )
        self.catch_up()
        copies = [copy for copy in (self._old, self._stores) if copy is not None]
        self._is_untold = any(next(iter(copy), FIRST_INSTANCE) < FIRST_INSTANCE for copy in copies)

    def catch_up(self) -> None:
        """Read up to the positions of the live version, and add instances without events from the other sources.

        In this order: what is published is in the changelog too, unless that has lost it; and an instance that is not
        folded by then has no events left.
        """
        there, ticker = self._partitions, self._run.ticker
        self._published.catch_up(there.get(TASK_STATES.name, 0), ticker("published states"))
        if self._old is not None:
            self._old.catch_up(there[self._old.topic], ticker("live states"))
        self._fold.catch_up(there[TASK_EVENTS.name])
        self.counts.events, self.counts.rejected = self._fold.folded, self._fold.rejected
        is_first = self.new.changed is None
        if is_first:
            self.counts.lost = self.counts.instances = 0
        now_ms, days = time.time_ns() // 1_000_000, self._run.settings.retention_days
        look = ticker("instances")
        for number, (key, (old, left, published, new)) in enumerate(self._rows()):
            look(number, number)
            if new is None:
                known = self._known.best(key, old, left, published)
                if known is None:
                    # Present in a store only: deleted, not lost.
                    self.counts.lost += is_first and old is not None
                    continue
                self.new.write({key: self._taken(known)})
                self.counts.carried_over += 1
            elif is_expired(age_of(new.value), now_ms=now_ms, days=days) and not (old or left or published):
                self.counts.let_go += 1
                self.new.write({key: None})
                continue
            self.counts.instances += 1

    def compare(self, version: int) -> None:
        """Store the pending notifications of each changed instance next to it."""
        is_first = self.new.changed is None
        for outcome in self.outcomes(version):
            if outcome.notifications or not outcome.untold.is_published:
                self.new.write({untold_key(outcome.key): Kept(outcome.new.partition, write_untold(outcome.untold))})
            elif not is_first:
                self.new.write({untold_key(outcome.key): None})
        for copy in (self._old, self._published):
            if copy is not None:
                copy.changed = {}

    def outcomes(self, version: int, *, everything: bool = False) -> Iterator[Outcome]:
        """Compare the instances with the old version.

        ``everything``: of all instances, for readers without any earlier notification.
        """
        compare = self._run.ticker("compared")
        for number, (key, row) in enumerate(self._side_by_side() if everything else self._rows()):
            compare(number, max(number, self.counts.instances))
            if row[-1] is None:
                continue
            outcome = self._outcome(key, row, row[-1], version, everything=everything)
            if everything:
                self.counts.states += 1
                self.counts.notifications += len(outcome.notifications)
            yield outcome

    def _outcome(self, key: bytes, row: Sequence[Kept | None], new: Kept, version: int, *, everything: bool) -> Outcome:
        old, left, published, _ = row
        state = None if age_of(new.value).is_deleted else state_value(new.value)
        is_published = not everything and state == (None if published is None else published.value)
        earlier = self._known.untold(key, left) if self._is_untold else None
        if not everything and earlier is None and old is not None and old.value[HEAD_BYTES:] == new.value[HEAD_BYTES:]:
            return Outcome(key, new, Untold(is_published, is_certain=True, notifications=0, before=old.value), [])
        known = self._known.best(key, old, left, published)
        # Only the changelog is certain about earlier notifications.
        is_certain = old is None if known is None else known.source is Source.CHANGELOG
        before = None if known is None else known.kept.value
        if earlier is not None:
            before, is_certain = earlier.before, earlier.is_certain and is_certain
        untold = Untold(is_published, is_certain and not everything, 0, before)
        told = told_of(untold, new.value, self._states, version=version)
        return Outcome(key, new, replace(untold, notifications=len(told)), told)

    def count(self) -> None:
        """Count the complete result."""
        self.counts.instances = 0
        for key, kept in self.new.items():
            if key < FIRST_INSTANCE:
                untold = read_untold(kept.value)
                self.counts.states += not untold.is_published
                self.counts.notifications += untold.notifications
            else:
                self.counts.instances += 1

    @property
    def reached(self) -> Mapping[int, int]:
        """The offset after the last folded event of each partition."""
        return self._fold.reached

    def _base(self, key: bytes) -> bytes | None:
        """The state onto which events are folded; None if all events of the instance are still there."""
        known = self._known.of(key)
        if known is None or self._known.is_whole(known):
            return None
        self.counts.built_upon += 1
        return self._taken(known).value

    def _taken(self, known: Known) -> Kept:
        self.counts.from_stores += known.source is Source.STORE
        self.counts.from_published += known.source is Source.PUBLISHED
        return self._known.moved(known)

    def _rows(self) -> Iterator[tuple[bytes, Sequence[Kept | None]]]:
        """The values of each source by instance; after the first comparison, of changed instances only."""
        if self.new.changed is None:
            yield from self._side_by_side()
            return
        sources = (self._old, self._stores, self._published, self.new)
        changed = {instance_key(key) for copy in sources if copy is not None for key in copy.changed or ()}
        for key in sorted(changed):
            yield key, [None if copy is None else copy.get(key) for copy in sources]

    def _side_by_side(self) -> Iterator[tuple[bytes, Sequence[Kept | None]]]:
        """By instance: the values in the changelog, a store, the published states, and the new version."""
        sources = (self._old, self._stores, self._published, self.new)
        return side_by_side(*(() if copy is None else copy.items(FIRST_INSTANCE) for copy in sources))

    def _kept(self, copy: _Copy) -> _Copy:
        return self._resources.enter_context(closing(copy))
