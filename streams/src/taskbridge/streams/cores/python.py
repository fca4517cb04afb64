"""The core in Python: the specification of the native core, and its fallback where that is not built."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from taskbridge.schemas.cloudevents import state_headers
from taskbridge.schemas.events import Lifecycle
from taskbridge.streams.cores.core import NONE, Core, Folded, notification_record
from taskbridge.streams.fold.chunk import fold_chunk
from taskbridge.streams.fold.stored_instance import pack, shown

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from taskbridge.schemas.events import Change, View
    from taskbridge.streams.cores.core import Read
    from taskbridge.streams.fold.chunk import ChunkResult
    from taskbridge.streams.fold.views import Shown
    from taskbridge.streams.records import Chunk, RecordWithHeaders


class PythonCore(Core):
    """Caches instances as structs, with their view entries."""

    name = "python"

    def fold(self, records: Chunk, read: Read, *, generation: int, too_large: AbstractSet[int] = NONE) -> Folded:
        def load(keys: list[bytes]) -> list[Shown | None]:
            return self._cache.find(keys, lambda missing: map(self._shown, read(missing)), generation=generation)

        decode, form_fields = self.events.decode, self.form_fields
        return self._encoded(
            fold_chunk(records, decode=decode, load=load, too_large=too_large, form_fields=form_fields)
        )

    def _shown(self, stored: bytes | None) -> Shown | None:
        return None if stored is None else shown(stored, self.states)

    def _encoded(self, result: ChunkResult) -> Folded:
        now_ms = self.now_ms()
        stored: dict[bytes, bytes] = {}
        states: list[RecordWithHeaders] = []
        for key, each in result.instances.items():
            instance = each.instance
            state = self.states.encode(instance.state)
            stored[key] = pack(state, instance, now_ms=now_ms, events_lost=each.events_lost)
            deleted = instance.state.lifecycle is Lifecycle.DELETED
            states.append((key, None if deleted else state, state_headers(instance.state, deleted=deleted)))
        notifications: list[RecordWithHeaders] = []
        causes: list[int] = []
        changes: Counter[tuple[View, Change]] = Counter()
        unpublished: set[int] = set()
        for record, published in result.published:
            size = 0
            for each in published:
                encoded = notification_record(each, self.notifications)
                size += len(encoded[1] or b"")
                if size > self.max_published_bytes:
                    unpublished.add(record.offset)
                    break
                notifications.append(encoded)
                causes.append(record.offset)
                changes[each.view, each.change] += 1
        values = [*stored.values(), *(value or b"" for _, value, _ in notifications)]
        return Folded(
            stored=stored,
            changelog=[(key, value, []) for key, value in stored.items()],
            states=states,
            notifications=notifications,
            causes=lambda: causes,
            rejected=result.rejected,
            actions=result.actions,
            changes=changes,
            instances=result.instances,
            largest=max(map(len, values), default=0),
            unpublished=unpublished,
        )
