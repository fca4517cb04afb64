"""The instances made anew on this machine's disk, beside what the live version and the published states say of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from schemas.cloudevents import state_headers
from schemas.topics import TASK_EVENTS, TASK_STATES
from streams.commit.homes import home_of
from streams.fold.stored_instance import (
    HEAD_BYTES,
    StoreUnreadable,
    age_of,
    event_offsets,
    pack,
    state_value,
    unpack,
    with_event_offsets,
)
from streams.fold.views import show
from streams.rebuild.comparison import GONE, from_published, is_whole, side_by_side, told
from streams.rebuild.copies import Copy, Kept, Ticker, TopicCopy, unfold_kept
from streams.rebuild.folding import EventFold
from streams.retention import is_expired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from schemas.cloudevents import type_header
    from schemas.codec import Codec
    from schemas.events import TaskNotification, TaskState
    from streams.fold.folding import Folding
    from streams.fold.views import Shown
    from streams.tables.offsets import Offsets


class Sources(NamedTuple):
    """Where everything is read from."""

    consumer: Mapping[str, object]
    offsets: Offsets
    positions: Callable[[], Mapping[int, int]]
    """How far the live version's workers are in the events."""
    changelog: str | None
    """Of the live version; None where it is lost."""
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
    from_published: int = 0
    """Of the two above: those that the live version could not tell, so that their published state was taken."""
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
    headers: list[type_header]
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

    def close(self) -> None:
        self._fold.close()
        for copy in (self._old, self._published, self.new):
            if copy is not None:
                copy.close()

    def catch_up(self) -> None:
        """Read on as far as the live version is by now, and complete what the events do not tell any more.

        In this order: an instance that the events do not tell of then has none, and is not merely not folded yet.
        """
        sources = self._sources
        if self._old is not None:
            self._old.catch_up(sources.partitions[self._old.topic], self._ticker("live states"))
        self._published.catch_up(sources.partitions.get(TASK_STATES.name, 0), self._ticker("published states"))
        self._fold.catch_up(sources.partitions[TASK_EVENTS.name], self._ticker("events"))
        self.counts.events, self.counts.rejected = self._fold.folded, self._fold.rejected
        self.counts.lost = self.counts.instances = 0
        now_ms = time.time_ns() // 1_000_000
        compare = self._ticker("instances")
        for number, (key, old, published, new) in enumerate(self._side_by_side()):
            compare(number, number)
            if new is None:
                self._carry_over(key, old, published)
            elif old is None and published is None and is_expired(age_of(new.value), now_ms=now_ms, days=self._days):
                self.counts.let_go += 1
                self.new.write({key: None})
                continue
            self.counts.instances += 1

    def outcomes(self, version: int, *, everything: bool = False) -> Iterator[Outcome]:
        """What is to be published so that everybody who followed the old version sees the new one.

        ``everything``: also of what came out the same, for those who have nothing yet.
        """
        compare = self._ticker("compared")
        for number, (key, old, published, new) in enumerate(self._side_by_side()):
            compare(number, self.counts.instances)
            if new is None:
                continue
            state = None if age_of(new.value).is_deleted else state_value(new.value)
            publish_state = everything or state != (None if published is None else published.value)
            notifications = self._told(old, published, new, version, everything=everything)
            if publish_state or notifications:
                self.counts.states += publish_state
                self.counts.notifications += len(notifications)
                headers = state_headers(self._sources.states.decode(state_value(new.value)), deleted=state is None)
                yield Outcome(key, publish_state, state, headers, notifications)

    @property
    def _days(self) -> int:
        return self._sources.retention_days

    def _told(
        self, old: Kept | None, published: Kept | None, new: Kept, version: int, *, everything: bool
    ) -> list[TaskNotification]:
        if not everything and old is not None and old.value[HEAD_BYTES:] == new.value[HEAD_BYTES:]:
            return []
        states = self._sources.states
        after = show(unpack(new.value, states))
        before = self._shown(old)
        if before is not None:
            return told(before, after, version=version, certain=not everything)
        if published is not None:
            before = show(from_published(states.decode(published.value)))
        certain = not everything and old is None and published is None
        return told(before, after, version=version, certain=certain)

    def _base(self, key: bytes) -> bytes | None:
        """What the events of an instance are folded onto: nothing, where all of them are still there."""
        first = self._fold.first
        if not any(first.values()):
            return None
        old = None if self._old is None else self._old.get(key)
        known = self._shown(old)
        if old is not None and known is not None:
            # Never 0, although the partition may begin there: other events of the instance may stand on another one.
            if is_whole(known.offsets, first_offset=max(first.get(old.partition, 0), 1)):
                return None
            self.counts.built_upon += 1
            return self._moved(key, old).value
        published = self._published.get(key)
        if published is None:
            return None
        self.counts.built_upon += 1
        return self._stand_in(published.value)

    def _stand_in(self, published: bytes) -> bytes:
        """What is stored of an instance of which only the published state is left."""
        self.counts.from_published += 1
        instance = from_published(self._sources.states.decode(published))
        return pack(published, instance, GONE, now_ms=instance.state.updated_at)

    def _carry_over(self, key: bytes, old: Kept | None, published: Kept | None) -> None:
        if old is not None and self._shown(old) is not None:
            self.new.write({key: self._moved(key, old)})
        elif published is not None:
            self.new.write({key: Kept(self._home(key), self._stand_in(published.value))})
        else:
            self.counts.lost += 1
            return
        self.counts.carried_over += 1

    def _home(self, key: bytes) -> int:
        return home_of(key, self._sources.homes)

    def _moved(self, key: bytes, old: Kept) -> Kept:
        """What is stored, where its key belongs. Where its events stand is known of the partition that it was on."""
        home = self._home(key)
        return old if home == old.partition else Kept(home, with_event_offsets(old.value, GONE))

    def _shown(self, kept: Kept | None) -> Shown | None:
        """An instance of the live version; None where it is of a format that this program cannot read."""
        if kept is None:
            return None
        try:
            return show(unpack(kept.value, self._sources.states), event_offsets(kept.value))
        except StoreUnreadable:
            return None

    def _side_by_side(self) -> Iterator[tuple[bytes, Kept | None, Kept | None, Kept | None]]:
        old = () if self._old is None else self._old.items()
        for key, values in side_by_side(old, self._published.items(), self.new.items()):
            found = [None if value is None else unfold_kept(value) for value in values]
            yield key, found[0], found[1], found[2]

    def _topic_copy(self, path: Path, topic: str) -> TopicCopy:
        return TopicCopy(path, topic, consumer=self._sources.consumer, offsets=self._sources.offsets)

    def _ticker(self, what: str) -> Ticker:
        return Ticker(self._say, what, stopping=self._stopping)
