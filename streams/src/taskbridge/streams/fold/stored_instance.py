"""The format of an instance in the store and its changelog: its published state, its events' offsets, its marks.

1. A head (``_HEAD``): the format's version; whether the instance is active, finished or deleted; when it was written;
   the lengths of parts 2 and 3.
2. The ``TaskState`` in the Confluent wire format, byte for byte the value of its record on the states topic.
3. The offsets of its last events on their partition: see ``write_offsets``.
4. The marks in MessagePack, as arrays in the order of their fields. Fields with a default may be added at the end.

Every function that reads a stored instance raises ``StoreUnreadable`` if it is of another version, or damaged.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Lifecycle
from taskbridge.schemas.views import began_at_of
from taskbridge.streams.fold.instance import DETAILS, FACTS, LATEST, Instance, Marks, unnamed_assignees
from taskbridge.streams.fold.views import is_finished

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskState

_VERSION = 3
_VERSION_BYTE = bytes([_VERSION])
_HEAD = struct.Struct(">BcqIH")
HEAD_BYTES = _HEAD.size

_LIVE, _FINISHED, _DELETED = b"L", b"F", b"D"

_OTHER_VERSION = f"a stored instance is not of format {_VERSION}, the one that this version reads"

_MORE, _BITS, _LOW = 0x80, 7, 0x7F
_LARGEST_OFFSET = (1 << 63) - 1

_write_marks = msgspec.msgpack.Encoder().encode
_read_marks = msgspec.msgpack.Decoder(Marks).decode


class StoreUnreadable(OperatorError):
    """The local store or its changelog holds bytes that this version cannot read: rebuild it from the events."""


class Age(NamedTuple):
    """What is readable in a stored instance without decoding it."""

    is_deleted: bool
    is_finished: bool
    """Not deleted, and nothing is pending."""
    written_ms: int


def pack(state_value: bytes, instance: Instance, offsets: Sequence[int] = (), *, now_ms: int) -> bytes:
    """The stored form of an instance whose state is already encoded for its topic.

    ``offsets``: of its last events, growing, at most ``fold.chunk.MAX_OFFSETS``.
    """
    kind = _FINISHED if is_finished(instance.state) else _LIVE
    if instance.state.lifecycle is Lifecycle.DELETED:
        kind = _DELETED
    written = write_offsets(offsets)
    head = _HEAD.pack(_VERSION, kind, now_ms, len(state_value), len(written))
    return head + state_value + written + _write_marks(instance.marks)


def age_of(stored: bytes) -> Age:
    """The age of a stored instance; its first HEAD_BYTES are enough."""
    _, kind, written_ms, _, _ = _head(stored)
    return Age(kind == _DELETED, kind == _FINISHED, written_ms)


def event_offsets(stored: bytes) -> tuple[int, ...]:
    """The offsets of the instance's last events on its partition of the events topic, oldest first."""
    *_, state_length, length = _head(stored)
    start = _HEAD.size + state_length
    written = stored[start : start + length]
    if len(written) != length:
        raise StoreUnreadable("a stored instance cannot be read: it ends within its offsets")
    try:
        return read_offsets(written)
    except ValueError as error:
        raise StoreUnreadable(f"a stored instance cannot be read: {error}") from error


def restamped(stored: bytes, *, written_ms: int) -> bytes:
    """The same stored instance with another time of writing."""
    version, kind, _, *lengths = _head(stored)
    return _HEAD.pack(version, kind, written_ms, *lengths) + stored[_HEAD.size :]


def with_event_offsets(stored: bytes, offsets: Sequence[int]) -> bytes:
    """The same stored instance with other offsets of its events."""
    *head, state_length, length = _head(stored)
    start, written = _HEAD.size + state_length, write_offsets(offsets)
    state, marks = stored[_HEAD.size : start], stored[start + length :]
    return _HEAD.pack(*head, state_length, len(written)) + state + written + marks


def state_value(stored: bytes) -> bytes:
    """The instance's state, encoded as it is published."""
    *_, length, _ = _head(stored)
    return stored[_HEAD.size : _HEAD.size + length]


def unpack(stored: bytes, codec: Codec[TaskState]) -> Instance:
    """The instance that ``pack`` stored. An unreadable one is never treated as an unknown instance."""
    *_, state_length, offsets_length = _head(stored)
    end = _HEAD.size + state_length
    try:
        state = codec.decode(stored[_HEAD.size : end])
        marks = _read_marks(stored[end + offsets_length :])
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


def _head(stored: bytes) -> tuple[int, bytes, int, int, int]:
    if stored[:1] != _VERSION_BYTE:
        raise StoreUnreadable(_OTHER_VERSION if stored else "a stored instance cannot be read: it is empty")
    try:
        return _HEAD.unpack_from(stored)
    except struct.error as error:
        raise StoreUnreadable(f"a stored instance cannot be read: {error}") from error


def write_offsets(offsets: Sequence[int]) -> bytes:
    """Each as its distance from the one before, seven bits a byte, the lowest first."""
    written, before = bytearray(), 0
    for offset in offsets:
        rest, before = offset - before, offset
        while rest > _LOW:
            written.append(rest & _LOW | _MORE)
            rest >>= _BITS
        written.append(rest)
    return bytes(written)


def read_offsets(written: bytes) -> tuple[int, ...]:
    """The offsets that ``write_offsets`` wrote.

    Raises:
        ValueError: it ends within a number, or one is larger than any offset.
    """
    offsets: list[int] = []
    last = distance = shift = 0
    for byte in written:
        distance |= (byte & _LOW) << shift
        shift += _BITS
        if byte < _MORE:
            last += distance
            offsets.append(last)
            distance = shift = 0
    if shift:
        raise ValueError("it ends within an offset")
    if last > _LARGEST_OFFSET:
        raise ValueError("an offset of more than 63 bits")
    return tuple(offsets)
