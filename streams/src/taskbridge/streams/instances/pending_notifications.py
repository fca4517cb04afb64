"""Notifications of instances that a rebuild changed, which are pending until a worker publishes them. Pure.

They are stored in the changelog and the stores of the new version, one key per instance. The transaction that publishes
them deletes the key: they are published once, before anything that happens to the instance afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from taskbridge.schemas.cloudevents import state_headers
from taskbridge.schemas.events import SOURCE_TASKBRIDGE, Action, Change, Lifecycle, TaskEvent, event_id_for
from taskbridge.streams.fold.stored_instance import StoreUnreadable, shown, unpack
from taskbridge.streams.fold.views import difference

if TYPE_CHECKING:
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification, TaskState
    from taskbridge.streams.fold.views import Shown
    from taskbridge.streams.records import RecordWithHeaders

PENDING_PREFIX, PENDING_END = b"\x00untold\x00", b"\x00untold\x01"  # spellchecker:disable-line - a stored key
"""Prefix of these keys, and a key after all of them. No instance's key has it: ids have no control characters."""

FIRST_INSTANCE = b" "
"""Not after any instance's key, and after all other keys."""


def changed_notifications(before: Shown | None, after: Shown, *, version: int, certain: bool) -> list[TaskNotification]:
    """The notifications that bring readers of the old version to the new one.

    If it is not ``certain`` what the old version had published, all present entries are published again. The cause is
    the rebuild, as an event whose id is the same in each attempt.
    """
    because = cause(after.instance.state, "rebuilt", version=version)
    found = difference(before, after, because)
    if certain:
        return found
    again = difference(after, after, because)
    known = {each.notification_id for each in again}
    gone = [each for each in found if each.change is Change.REMOVED and each.notification_id not in known]
    return gone + again


def cause(state: TaskState, action: str, **numbers: int) -> TaskEvent:
    """An operator's command as the cause of notifications; its id is the same in each attempt."""
    named = {"instance_id": state.instance_id, **{name: str(number) for name, number in numbers.items()}}
    return TaskEvent(
        event_id=event_id_for(SOURCE_TASKBRIDGE, action, named),
        source=SOURCE_TASKBRIDGE,
        action=Action.UNKNOWN,
        corp_id=state.corp_id,
        app_type=state.app_type,
        instance_id=state.instance_id,
        # Not the time of the rebuild, or all of this would seem to have happened just now.
        occurred_at=state.updated_at,
        received_at=state.updated_at,
    )


class PendingNotifications(Struct, frozen=True, array_like=True, gc=False):
    """What is pending for one instance."""

    is_published: bool
    """Whether the published state remains correct."""
    is_certain: bool
    """Whether ``before`` is all that was published."""
    notifications: int
    """Number of notifications, if nothing happens before they are published."""
    before: bytes | None
    """The stored instance from which the last notifications were published; None if there were none."""


def pending_key(key: bytes) -> bytes:
    """The key of what is pending for the instance with this key."""
    return PENDING_PREFIX + key


def instance_key(name: bytes) -> bytes:
    """The opposite of ``pending_key``."""
    return name.removeprefix(PENDING_PREFIX)


write_pending = msgspec.msgpack.Encoder().encode
_read_pending = msgspec.msgpack.Decoder(PendingNotifications).decode


def read_pending(written: bytes) -> PendingNotifications:
    """The opposite of ``write_pending``.

    Raises:
        StoreUnreadable: ``write_pending`` did not write it.
    """
    try:
        return _read_pending(written)
    except msgspec.DecodeError as error:
        raise StoreUnreadable(f"pending notifications of an instance cannot be read: {error}") from error


def notifications_of(
    pending: PendingNotifications, stored: bytes, states: Codec[TaskState], *, version: int
) -> list[TaskNotification]:
    """The notifications that bring readers to this stored instance.

    Raises:
        StoreUnreadable: the instance, or its former version, cannot be read.
    """
    before = None if pending.before is None else shown(pending.before, states)
    return changed_notifications(before, shown(stored, states), version=version, certain=pending.is_certain)


def state_record(key: bytes, stored: bytes, states: Codec[TaskState]) -> RecordWithHeaders:
    """The state of a stored instance as a record for its topic, with the fields that an older version did not write.

    Raises:
        StoreUnreadable: it is of another version, or damaged.
    """
    state = unpack(stored, states).state
    is_deleted = state.lifecycle is Lifecycle.DELETED
    return key, None if is_deleted else states.encode(state), state_headers(state, deleted=is_deleted)
