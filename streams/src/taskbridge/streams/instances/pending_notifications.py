"""Notifications of instances that a rebuild or a republication left to the workers, which are pending until then. Pure.

They are stored in the changelog and the stores, one key per instance. The transaction that publishes them deletes the
key: they are published once, before anything that happens to the instance afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from taskbridge.schemas.cloudevents import state_headers
from taskbridge.schemas.events import SOURCE_TASKBRIDGE, Action, Change, Lifecycle, TaskEvent, event_id_for
from taskbridge.streams.fold.core import notification_record
from taskbridge.streams.fold.stored_instance import StoreUnreadable, shown, unpack
from taskbridge.streams.fold.views import Shown, difference

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification, TaskState
    from taskbridge.streams.fold.core import Read
    from taskbridge.streams.records import RecordWithHeaders

PENDING_PREFIX, PENDING_END = b"\x00untold\x00", b"\x00untold\x01"  # spellchecker:disable-line - a stored key
"""Prefix of these keys, and a key after all of them. No instance's key has it: ids have no control characters."""

FIRST_INSTANCE = b" "
"""Not after any instance's key, and after all other keys."""


class Pending(Struct, frozen=True, array_like=True, gc=False):
    number: int
    """Of the rebuild or republication: a part of the notifications' ids."""
    is_published: bool
    everything: bool
    """Every present entry is published again. Else only what differs from ``before``."""
    before: bytes | None
    """The stored instance from which the last notifications were published; None if there were none, or if everything
    of this instance is published again."""

    def last_published(self, stored: bytes | None) -> bytes | None:
        """The instance of the last notifications; ``stored`` is the one for which this is pending."""
        return stored if self.everything and self.before is None else self.before


def changed_notifications(
    before: Shown | None, after: Shown, *, number: int, everything: bool = False
) -> list[TaskNotification]:
    """The notifications that bring readers of ``before`` to ``after``.

    ``everything``: those of any earlier entries, or of none. The cause is the rebuild, as an event whose id is the same
    in each attempt.
    """
    # At the state's time, or all of this would seem to have happened just now.
    state = after.instance.state
    cause = own_event(state, "rebuilt", {"number": number}, at=state.updated_at)
    if not everything:
        return difference(before, after, cause)
    again = difference(after, after, cause)
    known = {each.notification_id for each in again}
    earlier = difference(before, after, cause)
    return [each for each in earlier if each.change is Change.REMOVED and each.notification_id not in known] + again


def own_event(
    state: TaskState,
    name: str,
    numbers: Mapping[str, int],
    *,
    at: int,
    action: Action = Action.UNKNOWN,
    source: str = SOURCE_TASKBRIDGE,
) -> TaskEvent:
    named = {"instance_id": state.instance_id, **{each: str(number) for each, number in numbers.items()}}
    return TaskEvent(
        event_id=event_id_for(SOURCE_TASKBRIDGE, name, named),
        source=source,
        action=action,
        corp_id=state.corp_id,
        app_type=state.app_type,
        instance_id=state.instance_id,
        occurred_at=at,
        received_at=at,
    )


def pending_key(key: bytes) -> bytes:
    return PENDING_PREFIX + key


def instance_key(name: bytes) -> bytes:
    return name.removeprefix(PENDING_PREFIX)


write_pending = msgspec.msgpack.Encoder().encode
_read_pending = msgspec.msgpack.Decoder(Pending).decode


def read_pending(written: bytes) -> Pending:
    try:
        return _read_pending(written)
    except msgspec.DecodeError as error:
        raise StoreUnreadable(f"pending notifications of an instance cannot be read: {error}") from error


def notifications_of(pending: Pending, stored: bytes, states: Codec[TaskState]) -> list[TaskNotification]:
    """The notifications that bring readers to this stored instance. Raises StoreUnreadable."""
    before = None if pending.before is None else shown(pending.before, states)
    return changed_notifications(before, shown(stored, states), number=pending.number, everything=pending.everything)


def state_record(key: bytes, stored: bytes, states: Codec[TaskState]) -> RecordWithHeaders:
    """The state of a stored instance as a record for its topic, with the fields that an older version did not write."""
    state = unpack(stored, states).state
    is_deleted = state.lifecycle is Lifecycle.DELETED
    return key, None if is_deleted else states.encode(state), state_headers(state, deleted=is_deleted)


class InstanceChanges(NamedTuple):
    gone: Collection[bytes] = ()
    states: Sequence[RecordWithHeaders] = ()
    notifications: Sequence[RecordWithHeaders] = ()


@dataclass(eq=False)
class PendingInstances:
    states: Codec[TaskState]
    notifications: Codec[TaskNotification]
    published: set[int] = field(default_factory=set[int])

    def of(self, partition: int, keys: Iterable[bytes], read: Read) -> InstanceChanges:
        """What is pending for these instances, which must be published before anything else about them."""
        if partition in self.published:
            return InstanceChanges()
        names = [pending_key(key) for key in dict.fromkeys(keys)]
        found = {name: written for name, written in zip(names, read(names), strict=True) if written is not None}
        stored = read([instance_key(name) for name in found])
        states: list[RecordWithHeaders] = []
        notifications: list[RecordWithHeaders] = []
        for (name, written), instance in zip(found.items(), stored, strict=True):
            if instance is None:
                continue
            pending = read_pending(written)
            if not pending.is_published:
                states.append(state_record(instance_key(name), instance, self.states))
            changed = notifications_of(pending, instance, self.states)
            notifications += [notification_record(each, self.notifications) for each in changed]
        return InstanceChanges(found, states, notifications)
