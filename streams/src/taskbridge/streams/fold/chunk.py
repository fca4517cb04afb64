"""One chunk of a partition's records: decoded, folded, and turned into what must be written. Does no I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taskbridge.schemas.errors import RecordError
from taskbridge.streams.fold.acceptance import accept
from taskbridge.streams.fold.lifecycle import fold
from taskbridge.streams.fold.rejections import Refusal
from taskbridge.streams.fold.remembered_offsets import with_offset
from taskbridge.streams.fold.views import Shown, difference, show

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Sequence

    from taskbridge.schemas.events import Action, TaskEvent, TaskNotification
    from taskbridge.streams.records import Record


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that could not be decoded or folded, and why."""

    record: Record
    reason: RecordError


@dataclass(slots=True)
class ChunkResult:
    """What a chunk comes to. ``instances`` holds every instance it met, by record key, as it stands at the end."""

    instances: dict[bytes, Shown] = field(default_factory=dict[bytes, "Shown"])
    told: list[tuple[Record, list[TaskNotification]]] = field(
        default_factory=list["tuple[Record, list[TaskNotification]]"]
    )
    """What each record that was folded has people told."""
    rejected: list[Rejected] = field(default_factory=list[Rejected])
    actions: Counter[Action] = field(default_factory=Counter["Action"])
    """Events that were folded, by what they say happened."""


def fold_chunk(
    records: Iterable[Record],
    *,
    decode: Callable[[bytes | None], TaskEvent],
    load: Callable[[list[bytes]], Sequence[Shown | None]],
    too_large: Container[int] = (),
    form_fields: Collection[str] = (),
) -> ChunkResult:
    """Fold the records in their order. Events of one instance fold together: it is loaded, and will be written, once.

    ``load`` is called once, with the record keys of all instances that the chunk meets, and answers in their order.
    ``too_large``: offsets of records that their instance cannot take: what would come of it fits into no record.
    ``form_fields``: of forms, what stands in states.
    A record that cannot be decoded or folded is set aside with its reason and changes nothing. Any other error leaves
    no trace at all: the chunk can be tried again.
    """
    result = ChunkResult()
    read = [(record, _read(record, decode)) for record in records]
    # An id that is none is not looked for: it might be the name under which the store keeps something else.
    keys = list(dict.fromkeys(event.instance_id.encode() for _, event in read if not isinstance(event, RecordError)))
    known = dict(zip(keys, load(keys), strict=True))
    for record, event in read:
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
            offsets = with_offset(before.offsets if before is not None else (), record.offset)
            if before is not None and instance is before.instance:
                after = Shown(instance, before.lines, offsets)
            else:
                after = show(instance, offsets)
            known[key] = result.instances[key] = after
            result.told.append((record, difference(before, after, event)))
            result.actions[event.action] += 1
    return result


def _read(record: Record, decode: Callable[[bytes | None], TaskEvent]) -> TaskEvent | RecordError:
    try:
        event = accept(decode(record.value))
        if record.key != event.instance_id.encode():
            raise Refusal.MISPLACED_KEY.error()
    except RecordError as reason:
        return reason
    else:
        return event
