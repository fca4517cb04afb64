"""Choose what is known of an instance apart from its events: the source with the most recent data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.schemas.events import Lifecycle
from taskbridge.streams.cores.core import target_partition
from taskbridge.streams.fold.chunk import EVENTS_LOST, has_all_events
from taskbridge.streams.fold.instance import from_published
from taskbridge.streams.fold.stored_instance import StoreUnreadable, pack, with_event_offsets
from taskbridge.streams.fold.views import show
from taskbridge.streams.positions.kept_position import position_if_readable
from taskbridge.streams.positions.offsets import Bounds
from taskbridge.streams.positions.standing import is_after_loss
from taskbridge.streams.processing.untold import Untold, read_untold, shown, untold_key
from taskbridge.streams.rebuild.sources.copies import Kept

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskState
    from taskbridge.streams.fold.views import Shown
    from taskbridge.streams.rebuild.sources.copies import TopicCopy
    from taskbridge.streams.rebuild.sources.local_stores import LocalStores


class Source(Enum):
    """Where it is from."""

    CHANGELOG = "changelog"
    STORE = "store"
    PUBLISHED = "published"


class Known(NamedTuple):
    """An instance, and how it stands."""

    source: Source
    kept: Kept
    """As it is stored, on the partition that it was on."""
    shown: Shown


@dataclass(eq=False)
class Knowledge:
    """Chooses.

    The changelog and a store are of one history: whichever was written further has all that the other has. Each has
    more than the published state, which tells nothing of deleted instances and not what decided between events. Only
    a store that ends before the first event that is left has not seen what came in between, and the published states
    have: there, a newer one counts, and an instance that is not among them is gone.
    """

    changelog: TopicCopy | None
    changelog_id: str | None
    stores: LocalStores
    published: TopicCopy
    is_sound: bool
    """Nothing says that the changelog has lost anything."""
    states: Codec[TaskState]
    events_id: str
    bounds: Mapping[int, Bounds]
    """Of each partition of events; they may come later."""
    homes: int

    def of(self, key: bytes) -> Known | None:
        """The best known state by key."""
        old = None if self.changelog is None else self.changelog.get(key)
        return self.best(key, old, self.stores.get(key), self.published.get(key))

    def best(self, key: bytes, old: Kept | None, left: Kept | None, published: Kept | None) -> Known | None:
        """The best of the changelog, a store and the published state; None if none is usable."""
        candidates = [(Source.CHANGELOG, old), (Source.STORE, left)]
        if left is not None and self._is_further(left.partition):
            candidates.reverse()
        elif old is None and self.is_sound:
            # Its retention has ended since.
            candidates = []
        for source, kept in candidates:
            found = self._shown(key, kept)
            if kept is None or found is None:
                continue
            known = Known(source, kept, found)
            if source is Source.STORE and self._misses_events(kept.partition):
                return self._newer(known, published)
            return known
        return None if published is None else self._stand_in(published)

    def untold(self, key: bytes, left: Kept | None) -> Untold | None:
        """The pending notifications of the last rebuild; ``left`` is the value in a store."""
        is_left = left is not None and self._is_further(left.partition)
        source = self.stores if is_left or self.changelog is None else self.changelog
        found = source.get(untold_key(key))
        try:
            return None if found is None else read_untold(found.value)
        except StoreUnreadable:
            return Untold(is_published=False, is_certain=False, notifications=0, before=None)

    def is_whole(self, known: Known) -> bool:
        """Whether every event of it is still on its partition."""
        first_offset = self._bounds_of(known.kept.partition).first
        return self._is_of_these_events(known) and has_all_events(known.shown.offsets, first_offset=first_offset)

    def moved(self, known: Known) -> Kept:
        """The state on the partition of its key. Offsets are valid only for the partition and topic where they were."""
        home = target_partition(known.shown.instance.state.instance_id.encode(), self.homes)
        kept = known.kept
        if home == kept.partition and self._is_of_these_events(known):
            return kept
        return Kept(home, with_event_offsets(kept.value, EVENTS_LOST))

    def _is_further(self, partition: int) -> bool:
        """Whether the store has what the changelog has lost."""
        position = self.stores.positions.get(partition)
        if position is None:
            return False
        if self.changelog is None or position.changelog_id != self.changelog_id:
            return True
        return position.offset >= self.changelog.reached(partition)

    def _misses_events(self, partition: int) -> bool:
        """Whether events came and went that the store has not seen."""
        reaches = self.stores.reaches.get(partition)
        if reaches is None or reaches.topic_id != self.events_id:
            return True
        return reaches.offset < self._bounds_of(partition).first

    def _is_of_these_events(self, known: Known) -> bool:
        """Whether the offsets that it remembers are certainly of these events, and not of others that were lost."""
        partition = known.kept.partition
        reaches = self.stores.reaches.get(partition)
        if known.source is Source.CHANGELOG and self.changelog is not None:
            reaches = position_if_readable(self.changelog.positions.get(partition))
        end = self._bounds_of(partition).end
        return reaches is not None and not is_after_loss(reaches, source_id=self.events_id, end=end)

    def _bounds_of(self, partition: int) -> Bounds:
        return self.bounds.get(partition, Bounds(0, 0))

    def _newer(self, stored: Known, published: Kept | None) -> Known | None:
        state = stored.shown.instance.state
        if published is None:
            is_gone = state.lifecycle is not Lifecycle.DELETED and not self.published.is_empty()
            return None if is_gone else stored
        stand_in = self._stand_in(published)
        return stand_in if stand_in.shown.instance.state.revision > state.revision else stored

    def _stand_in(self, published: Kept) -> Known:
        """The stored form of an instance of which only the published state is left."""
        instance = from_published(self.states.decode(published.value))
        value = pack(published.value, instance, EVENTS_LOST, now_ms=instance.state.updated_at)
        home = target_partition(instance.state.instance_id.encode(), self.homes)
        return Known(Source.PUBLISHED, Kept(home, value), show(instance, EVENTS_LOST))

    def _shown(self, key: bytes, kept: Kept | None) -> Shown | None:
        """An instance of the live version; None if it is unreadable, or has another key."""
        if kept is None:
            return None
        try:
            found = shown(kept.value, self.states)
        except StoreUnreadable:
            return None
        return found if found.instance.state.instance_id.encode() == key else None
