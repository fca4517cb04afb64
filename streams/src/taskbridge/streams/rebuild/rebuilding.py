"""The instances made anew on this machine's disk, beside what the live version and the published states say of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.schemas.cloudevents import state_headers
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES
from taskbridge.streams.fold.stored_instance import HEAD_BYTES, age_of, event_offsets, state_value, unpack
from taskbridge.streams.fold.views import show
from taskbridge.streams.processing.retention import is_expired
from taskbridge.streams.rebuild.comparison import side_by_side, told
from taskbridge.streams.rebuild.folding import EventFold
from taskbridge.streams.rebuild.sources.copies import Copy, Kept, Ticker, TopicCopy, unfold_kept
from taskbridge.streams.rebuild.sources.known import Knowledge, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from taskbridge.schemas.cloudevents import Header
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification, TaskState
    from taskbridge.streams.folding.folding import Folding
    from taskbridge.streams.positions.offsets import Offsets
    from taskbridge.streams.rebuild.sources.known import Known
    from taskbridge.streams.rebuild.sources.local_stores import LocalStores


class Sources(NamedTuple):
    """Where everything is read from."""

    consumer: Mapping[str, object]
    offsets: Offsets
    positions: Callable[[], Mapping[int, int]]
    """How far the live version's workers are in the events."""
    changelog: str | None
    """Of the live version; None where it is lost."""
    is_sound: bool
    """Nothing says that it has lost anything."""
    topic_ids: Mapping[str, str]
    """Kafka's ids of the changelog and of the events."""
    stores: LocalStores
    """Read already."""
    partitions: Mapping[str, int]
    """How many each topic has; none of states that are about to be written anew."""
    homes: int
    """How many partitions the new version has."""
    folding: Folding
    notification_bytes: int
    """Of the largest that a worker tells: an event that comes to larger ones is refused by both."""
    states: Codec[TaskState]
    retention_days: int


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

    def __init__(
        self, folder: Path, sources: Sources, *, say: Callable[[str], None], stopping: Callable[[], None]
    ) -> None:
        self._sources = sources
        self._say = say
        self._stopping = stopping
        self.counts = Counts()
        self.new = Copy(folder / "new")
        self._old = self._topic_copy(folder / "old", sources.changelog) if sources.changelog else None
        self._published = self._topic_copy(folder / "published", TASK_STATES.name)
        self._fold = EventFold(
            self.new,
            consumer=sources.consumer,
            offsets=sources.offsets,
            positions=sources.positions,
            folding=sources.folding,
            notification_bytes=sources.notification_bytes,
            partitions=sources.homes,
            base=self._base,
        )
        self._known = Knowledge(
            self._old,
            sources.topic_ids.get(sources.changelog or ""),
            sources.stores,
            self._published,
            is_sound=sources.is_sound,
            states=sources.states,
            events_id=sources.topic_ids[TASK_EVENTS.name],
            bounds=self._fold.bounds,
            homes=sources.homes,
        )

    def close(self) -> None:
        self._fold.close()
        for copy in (self._old, self._published, self.new):
            if copy is not None:
                copy.close()

    def catch_up(self) -> None:
        """Read on as far as the live version is by now, and complete what the events do not tell any more.

        In this order: what is published is in the changelog too, unless that has lost it; and an instance that the
        events do not tell of then has none, and is not merely not folded yet.
        """
        sources = self._sources
        self._published.catch_up(sources.partitions.get(TASK_STATES.name, 0), self._ticker("published states"))
        if self._old is not None:
            self._old.catch_up(sources.partitions[self._old.topic], self._ticker("live states"))
        self._fold.catch_up(sources.partitions[TASK_EVENTS.name], self._ticker("events"))
        self.counts.events, self.counts.rejected = self._fold.folded, self._fold.rejected
        self.counts.lost = self.counts.instances = 0
        now_ms = time.time_ns() // 1_000_000
        compare = self._ticker("instances")
        for number, (key, old, left, published, new) in enumerate(self._side_by_side()):
            compare(number, number)
            if new is None:
                known = self._known.best(key, old, left, published)
                if known is None:
                    # Of a store alone it is gone, and not lost.
                    self.counts.lost += old is not None
                    continue
                self.new.write({key: self._taken(known)})
                self.counts.carried_over += 1
            elif is_expired(age_of(new.value), now_ms=now_ms, days=self._days) and not (old or left or published):
                self.counts.let_go += 1
                self.new.write({key: None})
                continue
            self.counts.instances += 1

    def outcomes(self, version: int, *, everything: bool = False) -> Iterator[Outcome]:
        """What is to be published so that everybody who followed the old version sees the new one.

        ``everything``: also of what came out the same, for those who have nothing yet.
        """
        compare = self._ticker("compared")
        for number, (key, old, left, published, new) in enumerate(self._side_by_side()):
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
                headers = state_headers(self._sources.states.decode(state_value(new.value)), deleted=state is None)
                yield Outcome(key, publish_state, state, headers, notifications)

    @property
    def reached(self) -> Mapping[int, int]:
        """Behind the last event of each partition that is in it."""
        return self._fold.reached

    @property
    def _days(self) -> int:
        return self._sources.retention_days

    def _told(
        self, old: Kept | None, known: Known | None, new: Kept, version: int, *, everything: bool
    ) -> list[TaskNotification]:
        after = show(unpack(new.value, self._sources.states), event_offsets(new.value))
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

    def _side_by_side(self) -> Iterator[tuple[bytes, Kept | None, Kept | None, Kept | None, Kept | None]]:
        """Of each instance: what the changelog has, what a store has, what is published, and how it came out."""
        old = () if self._old is None else self._old.items()
        found = side_by_side(old, self._sources.stores.items(), self._published.items(), self.new.items())
        for key, values in found:
            changelog, store, published, new = [None if value is None else unfold_kept(value) for value in values]
            yield key, changelog, store, published, new

    def _topic_copy(self, path: Path, topic: str) -> TopicCopy:
        return TopicCopy(path, topic, consumer=self._sources.consumer, offsets=self._sources.offsets)

    def _ticker(self, what: str) -> Ticker:
        return Ticker(self._say, what, stopping=self._stopping)
