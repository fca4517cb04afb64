"""How an instance stands in the store and its changelog: the published state as it was produced, then the fold's marks.

Byte 0 is the format's version, bytes 1-4 the length of the state (big endian); then the ``TaskState`` in the Confluent
wire format, byte for byte the value of its record on ``taskbridge.task-states.v1``; then the marks in
MessagePack, arrays in the order of their fields.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec

from schemas.errors import OperatorError
from streams.lifecycle import Instance, Marks

if TYPE_CHECKING:
    from schemas.codec import Codec
    from schemas.events import TaskState

_VERSION = 2
_HEAD = struct.Struct(">BI")

_write_marks = msgspec.msgpack.Encoder().encode
_read_marks = msgspec.msgpack.Decoder(Marks).decode


class StoreUnreadable(OperatorError):
    """The local store or its changelog holds bytes that this version cannot read: rebuild it from the events."""


def pack(state_value: bytes, marks: Marks) -> bytes:
    """The stored form of an instance whose state was already encoded for its topic."""
    return _HEAD.pack(_VERSION, len(state_value)) + state_value + _write_marks(marks)


def unpack(stored: bytes, codec: Codec[TaskState]) -> Instance:
    """The instance that ``pack`` stored.

    Raises:
        StoreUnreadable: of another version, or damaged. It is never taken for an unknown instance.
    """
    if stored[:1] != bytes([_VERSION]):
        raise StoreUnreadable(f"a stored instance is not of format {_VERSION}, which is the one this version reads")
    try:
        _, length = _HEAD.unpack_from(stored)
        end = _HEAD.size + length
        state = codec.decode(stored[_HEAD.size : end])
        return Instance(state, _read_marks(stored[end:]))
    except OperatorError:
        raise
    except Exception as error:
        # Damaged bytes surface as anything.
        raise StoreUnreadable(f"a stored instance cannot be read: {type(error).__name__}: {error}") from error
