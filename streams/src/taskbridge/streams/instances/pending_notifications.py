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
from taskbridge.streams.fold.stored_instance import StoreUnreadable, event_offsets, state_value, unpack
from taskbridge.streams.fold.views import difference, show

if TYPE_CHECKING:
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification, TaskState
    from taskbridge.streams.fold.views import Shown
    from taskbridge.streams.records import RecordWithHeaders


def told(before: Shown | None, after: Shown, *, version: int, certain: bool) -> list[TaskNotification]:
    """What brings everyone who followed the old version to what the new one shows.

    Where it is not ``certain`` what the old one had shown, everyone who ever had a line is told how it stands now.
    The cause is no callback but the rebuild, as an event with an id that is the same whenever it is tried again.
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
    """No callback, but what an operator did; with an id that is the same whenever it is tried again."""
    named = {"instance_id": state.instance_id, **{name: str(number) for name, number in numbers.items()}}
    return TaskEvent(
        event_id=event_id_for(SOURCE_TASKBRIDGE, action, named),
        source=SOURCE_TASKBRIDGE,
        action=Action.UNKNOWN,
        corp_id=state.corp_id,
        app_type=state.app_type,
        instance_id=state.instance_id,
        # Not the time of the rebuild, or it would seem to people that all of this happened just now.
        occurred_at=state.updated_at,
        received_at=state.updated_at,
    )


UNTOLD, UNTOLD_END = b"\x00untold\x00", b"\x00untold\x01"
"""How these keys begin, and what is behind all of them. No instance's key begins so: ids have no control characters."""

FIRST_INSTANCE = b" "
"""No instance's key is before it, and every key that is no instance's is."""


class Untold(Struct, frozen=True, array_like=True, gc=False):
    """Of one instance."""

    is_published: bool
    """Whether the state that is published stays right."""
    is_certain: bool
    """Whether ``before`` is all that people have been told."""
    notifications: int
    """How many they are, should nothing happen until they are told."""
    before: bytes | None
    """The instance of which they were told, as it was stored; None where they were told nothing."""


def untold_key(key: bytes) -> bytes:
    """By the instance's key."""
    return UNTOLD + key


def instance_key(name: bytes) -> bytes:
    """By the key of what is untold of it."""
    return name.removeprefix(UNTOLD)


write_untold = msgspec.msgpack.Encoder().encode
_read_untold = msgspec.msgpack.Decoder(Untold).decode


def read_untold(written: bytes) -> Untold:
    """What ``write_untold`` wrote.

    Raises:
        StoreUnreadable: something else did.
    """
    try:
        return _read_untold(written)
    except msgspec.DecodeError as error:
        raise StoreUnreadable(f"pending notifications of an instance cannot be read: {error}") from error


def told_of(untold: Untold, stored: bytes, states: Codec[TaskState], *, version: int) -> list[TaskNotification]:
    """What brings everyone to an instance that is ``stored`` so.

    Raises:
        StoreUnreadable: it, or what it was before.
    """
    before = None if untold.before is None else shown(untold.before, states)
    return told(before, shown(stored, states), version=version, certain=untold.is_certain)


def shown(stored: bytes, states: Codec[TaskState]) -> Shown:
    """What people see of an instance that is stored so.

    Raises:
        StoreUnreadable: of another version, or damaged.
    """
    return show(unpack(stored, states), event_offsets(stored))


def state_record(key: bytes, stored: bytes, states: Codec[TaskState]) -> RecordWithHeaders:
    """The state of an instance that is stored so, for its topic.

    Raises:
        StoreUnreadable: of another version, or damaged.
    """
    value = state_value(stored)
    state = states.decode(value)
    is_deleted = state.lifecycle is Lifecycle.DELETED
    return key, None if is_deleted else value, state_headers(state, deleted=is_deleted)
