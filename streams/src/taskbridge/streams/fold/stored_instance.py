"""The format of an instance in the store and its changelog: its published state, and its marks.

1. A head (``_HEAD``): the format's version; whether the instance is active, finished or deleted; when it was written;
   the lengths of parts 2 and 3.
2. The ``TaskState`` in the Confluent wire format, byte for byte the value of its record on the states topic.
3. EVENTS_LOST, if some of its events are not on the topic; else nothing. An older version wrote the offsets of its
   last events here, which begin with EVENTS_LOST in that case only.
4. The marks in MessagePack, as arrays in the order of their fields. Fields with a default may be added at the end.

Every function that reads a stored instance raises ``StoreUnreadable`` if it is of another version, or damaged.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Lifecycle, TaskState
from taskbridge.schemas.views import began_at_of
from taskbridge.streams.fold.instance import DETAILS, FACTS, LATEST, Instance, Marks, unnamed_assignees
from taskbridge.streams.fold.views import Shown, is_finished, show

if TYPE_CHECKING:
    from taskbridge.schemas.codec import Codec

_VERSION = 3
_VERSION_BYTE = bytes([_VERSION])
_HEAD = struct.Struct(">BcqIH")

_LIVE, _FINISHED, _DELETED = b"L", b"F", b"D"

_OTHER_VERSION = f"a stored instance is not of format {_VERSION}, the one that this version reads"

EVENTS_LOST = b"\0\0"
"""A rebuild folds later events onto the stored state, which the events that are left do not give."""

_write_marks = msgspec.msgpack.Encoder().encode
_read_marks = msgspec.msgpack.Decoder(Marks).decode


class StoreUnreadable(OperatorError):
    """The local store or its changelog holds bytes that this version cannot read: rebuild it from the events."""


class Age(NamedTuple):
    is_deleted: bool
    is_finished: bool
    """Not deleted, and nothing is pending."""
    written_ms: int


def pack(state_value: bytes, instance: Instance, *, now_ms: int, events_lost: bool = False) -> bytes:
    kind = _FINISHED if is_finished(instance.state) else _LIVE
    if instance.state.lifecycle is Lifecycle.DELETED:
        kind = _DELETED
    lost = EVENTS_LOST if events_lost else b""
    head = _HEAD.pack(_VERSION, kind, now_ms, len(state_value), len(lost))
    return head + state_value + lost + _write_marks(instance.marks)


def age_of(stored: bytes) -> Age:
    _, kind, written_ms, _, _ = _head(stored)
    return Age(kind == _DELETED, kind == _FINISHED, written_ms)


def are_events_lost(stored: bytes) -> bool:
    """Whether some events of the instance are not on the topic."""
    *_, state_length, length = _head(stored)
    start = _HEAD.size + state_length
    return stored[start : start + length].startswith(EVENTS_LOST)


def contents(stored: bytes) -> tuple[bytes, bytes]:
    *_, state_length, length = _head(stored)
    end = _HEAD.size + state_length
    return stored[_HEAD.size : end], stored[end + length :]


def restamped(stored: bytes, *, written_ms: int) -> bytes:
    version, kind, _, *lengths = _head(stored)
    return _HEAD.pack(version, kind, written_ms, *lengths) + stored[_HEAD.size :]


def with_events_lost(stored: bytes) -> bytes:
    """The same stored instance, of which some events are not on the topic."""
    *head, _ = _head(stored)
    state, marks = contents(stored)
    return _HEAD.pack(*head, len(EVENTS_LOST)) + state + EVENTS_LOST + marks


def state_value(stored: bytes) -> bytes:
    return contents(stored)[0]


def unpack(stored: bytes, codec: Codec[TaskState]) -> Instance:
    """The instance that ``pack`` stored. An unreadable one is never treated as an unknown instance."""
    encoded_state, encoded_marks = contents(stored)
    try:
        state = codec.decode(encoded_state)
        marks = _read_marks(encoded_marks)
    except OperatorError:
        raise
    except Exception as error:
        # Damaged bytes can raise any error.
        raise StoreUnreadable(f"a stored instance cannot be read: {type(error).__name__}: {error}") from error
    if (len(marks.tasks), len(marks.facts), len(marks.details)) != (len(state.tasks), len(FACTS), len(DETAILS)):
        raise StoreUnreadable("a stored instance cannot be read: its marks are of another state")
    if marks.began_at == LATEST:  # written by a version that did not store it
        marks = replace(marks, began_at=began_at_of(state))
    if state.began_at is None:  # written by a version that did not publish it
        state = replace(state, began_at=marks.began_at, assignee_ids=unnamed_assignees(state, marks))
    return Instance(state, marks)


def shown(stored: bytes, codec: Codec[TaskState]) -> Shown:
    return show(unpack(stored, codec), events_lost=are_events_lost(stored))


def _head(stored: bytes) -> tuple[int, bytes, int, int, int]:
    if stored[:1] != _VERSION_BYTE:
        raise StoreUnreadable(_OTHER_VERSION if stored else "a stored instance cannot be read: it is empty")
    try:
        return _HEAD.unpack_from(stored)
    except struct.error as error:
        raise StoreUnreadable(f"a stored instance cannot be read: {error}") from error
