"""How an instance stands in the store and its changelog: the published state as it was produced, then the fold's marks.

A head: the format's version, whether the instance is live, finished or deleted, when it was written, and the length of
the state (see ``_HEAD``). Then the ``TaskState`` in the Confluent wire format, byte for byte the value of its record on
``taskbridge.task-states.v1``; then the marks in MessagePack, arrays in the order of their fields.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from schemas.errors import OperatorError
from schemas.events import Lifecycle
from streams.lifecycle import Instance, Marks
from streams.views import is_finished

if TYPE_CHECKING:
    from schemas.codec import Codec
    from schemas.events import TaskState

_VERSION = 2
_HEAD = struct.Struct(">BcqI")
HEAD_BYTES = _HEAD.size

_LIVE, _FINISHED, _DELETED = b"L", b"F", b"D"

_OTHER_VERSION = f"a stored instance is not of format {_VERSION}, which is the one this version reads"

_write_marks = msgspec.msgpack.Encoder().encode
_read_marks = msgspec.msgpack.Decoder(Marks).decode


class StoreUnreadable(OperatorError):
    """The local store or its changelog holds bytes that this version cannot read: rebuild it from the events."""


class Age(NamedTuple):
    """What a stored instance tells without being decoded."""

    is_deleted: bool
    is_finished: bool
    """Not deleted, and nobody has anything to do."""
    written_ms: int


def pack(state_value: bytes, instance: Instance, *, now_ms: int) -> bytes:
    """The stored form of an instance whose state was already encoded for its topic."""
    kind = _FINISHED if is_finished(instance) else _LIVE
    if instance.state.lifecycle is Lifecycle.DELETED:
        kind = _DELETED
    return _HEAD.pack(_VERSION, kind, now_ms, len(state_value)) + state_value + _write_marks(instance.marks)


def age_of(stored: bytes) -> Age:
    """The age of what ``pack`` stored, from its first HEAD_BYTES.

    Raises:
        StoreUnreadable: of another version, or damaged.
    """
    try:
        version, kind, written_ms, _ = _HEAD.unpack_from(stored)
    except struct.error as error:
        raise StoreUnreadable(f"a stored instance cannot be read: {error}") from error
    if version != _VERSION:
        raise StoreUnreadable(_OTHER_VERSION)
    return Age(kind == _DELETED, kind == _FINISHED, written_ms)


def unpack(stored: bytes, codec: Codec[TaskState]) -> Instance:
    """The instance that ``pack`` stored.

    Raises:
        StoreUnreadable: of another version, or damaged. It is never taken for an unknown instance.
    """
    if stored[:1] != bytes([_VERSION]):
        raise StoreUnreadable(_OTHER_VERSION)
    try:
        *_, length = _HEAD.unpack_from(stored)
        end = _HEAD.size + length
        state = codec.decode(stored[_HEAD.size : end])
        return Instance(state, _read_marks(stored[end:]))
    except OperatorError:
        raise
    except Exception as error:
        # Damaged bytes surface as anything.
        raise StoreUnreadable(f"a stored instance cannot be read: {type(error).__name__}: {error}") from error
