"""The instances made anew on this machine's disk, beside what the live version and the published states say of them."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from taskbridge.schemas.cloudevents import state_headers
from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES
from taskbridge.streams.fold.stored_instance import HEAD_BYTES, age_of, event_offsets, state_value, unpack
from taskbridge.streams.fold.views import show
from taskbridge.streams.folding.choice import choose_folding
from taskbridge.streams.positions.changelog_topic import instances_changelog
from taskbridge.streams.processing.retention import is_expired
from taskbridge.streams.rebuild.comparison import side_by_side, told
from taskbridge.streams.rebuild.folding import EventFold
from taskbridge.streams.rebuild.sources.copies import Copy
from taskbridge.streams.rebuild.sources.known import Knowledge, Source
from taskbridge.streams.rebuild.sources.local_stores import LocalStores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from taskbridge.schemas.cloudevents import Header
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.rebuild.operation import Operation
    from taskbridge.streams.rebuild.sources.copies import Kept
    from taskbridge.streams.rebuild.sources.known import Known

_Copy = TypeVar("_Copy", bound=Copy)


@dataclass(slots=True)
class Counts:
    """What a rebuild came to, for people."""

    events: int = 0
    rejected: int = 0
    """Records on the events topic that cannot be folded; they are on the dead-letter topic already."""
    instances: int = 0
    carried_over: int = 0
    """Instances of which no event is left on the topic, taken from the live version as they are."""
    built_upon: int = 0
    """Instances of which the first events are gone: the others were folded onto what the live version had."""
    from_stores: int = 0
    """Of the two above: those that the live version's changelog could not tell, so that a local store was asked."""
    from_published: int = 0
    """Of the two above: those that not even a store could tell, so that their published state was taken."""
    let_go: int = 0
    """Instances that the events still tell of, and whose retention is over."""
    lost: int = 0
    """Instances of which neither events nor anything that can be read is left."""
    states: int = 0
    """States that are published, because they came out another."""
    notifications: int = 0


class Outcome(NamedTuple):
    """What is to be published of one instance."""

    key: bytes
    publish_state: bool
    state: bytes | None
    headers: list[Header]
    """Of the state."""
    notifications: list[TaskNotification]


class Rebuilding:
    """Brought up to date again and again, each time with less to do, until nothing changes any more."""

    def __init__(self, run: Operation, registry: Registry, folder: Path, *, live: int, homes: int) -> None:
        """``live`` is the version that is live, and ``homes`` how many partitions the new one has."""
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
        self.new = self._kept(Copy(folder / "new"))
        self._old = self._kept(run.copy_of(changelog, folder / "old")) if changelog in ids else None
        self._published = self._kept(run.copy_of(TASK_STATES.name, folder / "published"))
        self._stores = self._kept(LocalStores(folder / "stores", retention_days=run.settings.retention_days))
        settings = run.settings
        folding = choose_folding(registry, cached_instances=settings.live_instances, form_fields=settings.form_fields)
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
        """Read all that there is.

        Raises:
            StoreInUse: a worker has a store open that is needed.
        """
        run = self._run
        if not self._is_sound:
            changelog = instances_changelog(self._live).name
            run.tell(
                f"{changelog} is lost or cut: what the events do not tell is taken from local and published states"
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

    def catch_up(self) -> None:
        """Read on as far as the live version is by now, and complete what the events do not tell any more.

        In this order: what is published is in the changelog too, unless that has lost it; and an instance that the
        events do not tell of then has none, and is not merely not folded yet.
        """
        there, ticker = self._partitions, self._run.ticker
        self._published.catch_up(there.get(TASK_STATES.name, 0), ticker("published states"))
        if self._old is not None:
            self._old.catch_up(there[self._old.topic], ticker("live states"))
        self._fold.catch_up(there[TASK_EVENTS.name])
        self.counts.events, self.counts.rejected = self._fold.folded, self._fold.rejected
        self.counts.lost = self.counts.instances = 0
        now_ms, days = time.time_ns() // 1_000_000, self._run.settings.retention_days
        compare = ticker("instances")
        for number, (key, (old, left, published, new)) in enumerate(self._side_by_side()):
            compare(number, number)
            if new is None:
                known = self._known.best(key, old, left, published)
                if known is None:
                    # Of a store alone it is gone, and not lost.
                    self.counts.lost += old is not None
                    continue
                self.new.write({key: self._taken(known)})
                self.counts.carried_over += 1
            elif is_expired(age_of(new.value), now_ms=now_ms, days=days) and not (old or left or published):
                self.counts.let_go += 1
                self.new.write({key: None})
                continue
            self.counts.instances += 1

    def outcomes(self, version: int, *, everything: bool = False) -> Iterator[Outcome]:
        """What is to be published so that everybody who followed the old version sees the new one.

        ``everything``: also of what came out the same, for those who have nothing yet.
        """
        compare = self._run.ticker("compared")
        for number, (key, (old, left, published, new)) in enumerate(self._side_by_side()):
            compare(number, self.counts.instances)
            if new is None:
                continue
            state = None if age_of(new.value).is_deleted else state_value(new.value)
            publish_state = everything or state != (None if published is None else published.value)
            notifications: list[TaskNotification] = []
            if everything or old is None or old.value[HEAD_BYTES:] != new.value[HEAD_BYTES:]:
                known = self._known.best(key, old, left, published)
                notifications = self._told(old, known, new, version, everything=everything)
            if publish_state or notifications:
                self.counts.states += publish_state
                self.counts.notifications += len(notifications)
                headers = state_headers(self._states.decode(state_value(new.value)), deleted=state is None)
                yield Outcome(key, publish_state, state, headers, notifications)

    @property
    def reached(self) -> Mapping[int, int]:
        """Behind the last event of each partition that is in it."""
        return self._fold.reached

    def _told(
        self, old: Kept | None, known: Known | None, new: Kept, version: int, *, everything: bool
    ) -> list[TaskNotification]:
        after = show(unpack(new.value, self._states), event_offsets(new.value))
        if known is None:
            return told(None, after, version=version, certain=not everything and old is None)
        # Only the changelog says for certain what people were told.
        certain = not everything and known.source is Source.CHANGELOG
        return told(known.shown, after, version=version, certain=certain)

    def _base(self, key: bytes) -> bytes | None:
        """What the events of an instance are folded onto: nothing, where all of them are still there."""
        known = self._known.of(key)
        if known is None or self._known.is_whole(known):
            return None
        self.counts.built_upon += 1
        return self._taken(known).value

    def _taken(self, known: Known) -> Kept:
        self.counts.from_stores += known.source is Source.STORE
        self.counts.from_published += known.source is Source.PUBLISHED
        return self._known.moved(known)

    def _side_by_side(self) -> Iterator[tuple[bytes, list[Kept | None]]]:
        """Of each instance: what the changelog has, what a store has, what is published, and how it came out."""
        old = () if self._old is None else self._old.items()
        return side_by_side(old, self._stores.items(), self._published.items(), self.new.items())

    def _kept(self, copy: _Copy) -> _Copy:
        return self._resources.enter_context(closing(copy))
