"""The core in Python: the specification of the native core, and its fallback where that is not built."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taskbridge.schemas.cloudevents import state_headers
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import Action, Change, Lifecycle, TaskEvent, TaskNotification, View
from taskbridge.streams.fold.core import NONE, Core, Folded, Read, notification_record
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.rejections import Refusal, Rejected, accept
from taskbridge.streams.fold.stored_instance import pack, shown
from taskbridge.streams.fold.views import Shown, difference, show

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from taskbridge.streams.records import Chunk, Record, RecordWithHeaders


@dataclass(slots=True)
class ChunkResult:
    """The result of a chunk. ``instances`` has the final version of every instance in it, by record key."""

    instances: dict[bytes, Shown] = field(default_factory=dict[bytes, "Shown"])
    published: list[tuple[Record, list[TaskNotification]]] = field(
        default_factory=list["tuple[Record, list[TaskNotification]]"]
    )
    rejected: list[Rejected] = field(default_factory=list[Rejected])
    actions: Counter[Action] = field(default_factory=Counter["Action"])


def fold_chunk(
    records: Iterable[Record],
    *,
    decode: Callable[[bytes | None], TaskEvent],
    load: Callable[[list[bytes]], Sequence[Shown | None]],
    too_large: Container[int] = (),
    form_fields: Collection[str] = (),
) -> ChunkResult:
    """Fold the records in their order. Each instance is loaded, and will be written, once.

    ``load`` is called once, with the record keys of all instances in the chunk; its result is in their order. The rest
    is as for ``Core.fold``: a record that cannot be decoded or folded is rejected with its reason and changes nothing.
    """
    result = ChunkResult()
    decoded = [(record, _decoded(record, decode)) for record in records]
    # An invalid id is not loaded: it might be the key of something else in the store.
    keys = list(dict.fromkeys(event.instance_id.encode() for _, event in decoded if not isinstance(event, RecordError)))
    known = dict(zip(keys, load(keys), strict=True))
    for record, event in decoded:
        try:
            if isinstance(event, RecordError):
                raise event
            before = known[key := event.instance_id.encode()]
            instance = fold(before.instance if before is not None else None, event, form_fields)
            if record.offset in too_large:
                raise Refusal.TOO_LARGE.error()
        except RecordError as reason:
            result.rejected.append(Rejected(record, reason))
        else:
            if before is not None and instance is before.instance:
                after = before
            else:
                after = show(instance, events_lost=before is not None and before.events_lost)
            known[key] = result.instances[key] = after
            result.published.append((record, difference(before, after, event)))
            result.actions[event.action] += 1
    return result


def _decoded(record: Record, decode: Callable[[bytes | None], TaskEvent]) -> TaskEvent | RecordError:
    try:
        event = accept(decode(record.value))
        if record.key != event.instance_id.encode():
            raise Refusal.MISPLACED_KEY.error()
    except RecordError as reason:
        return reason
    else:
        return event


class PythonCore(Core):
    name = "python"

    def fold(self, records: Chunk, read: Read, *, too_large: AbstractSet[int] = NONE) -> Folded:
        def load(keys: list[bytes]) -> list[Shown | None]:
            return [None if stored is None else shown(stored, self.states) for stored in read(keys)]

        decode, form_fields = self.events.decode, self.form_fields
        return self._encoded(
            fold_chunk(records, decode=decode, load=load, too_large=too_large, form_fields=form_fields)
        )

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
            largest=max(map(len, values), default=0),
            unpublished=unpublished,
        )
