"""How an instance stands in the store and its changelog: the published state, where its events stand, the fold's marks.

A head: the format's version, whether the instance is active, finished or deleted, when it was written, and the
lengths of the two parts behind it (see ``_HEAD``). Then the ``TaskState`` in the Confluent wire format, byte for byte
the value of its record on ``taskbridge.task-states.v1``; then where its last events stand
(``streams.fold.remembered_offsets``); then the marks in MessagePack, arrays in the order of their fields: more may be
added at the end, with a default.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Lifecycle
from taskbridge.streams.fold.instance import DETAILS, FACTS, LATEST, Instance, Marks, earliest_known
from taskbridge.streams.fold.remembered_offsets import read_offsets, write_offsets
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


def pack(state_value: bytes, instance: Instance, offsets: Sequence[int] = (), *, now_ms: int) -> bytes:
    """The stored form of an instance whose state was already encoded for its topic.

    ``offsets``: of its last events, growing, at most MAX_OFFSETS.
    """
    kind = _FINISHED if is_finished(instance) else _LIVE
    if instance.state.lifecycle is Lifecycle.DELETED:
        kind = _DELETED
    written = write_offsets(offsets)
    head = _HEAD.pack(_VERSION, kind, now_ms, len(state_value), len(written))
    return head + state_value + written + _write_marks(instance.marks)


def age_of(stored: bytes) -> Age:
    """The age of what ``pack`` stored, from its first HEAD_BYTES.

    Raises:
        StoreUnreadable: of another version, or damaged.
    """
    _, kind, written_ms, _, _ = _head(stored)
    return Age(kind == _DELETED, kind == _FINISHED, written_ms)


def event_offsets(stored: bytes) -> tuple[int, ...]:
    """Where the instance's last events stand on its partition of the events topic, oldest first, at most MAX_OFFSETS.

    Raises:
        StoreUnreadable: of another version, or damaged.
    """
    *_, state_length, length = _head(stored)
    begin = _HEAD.size + state_length
    written = stored[begin : begin + length]
    if len(written) != length:
        raise StoreUnreadable("a stored instance cannot be read: it ends within its offsets")
    try:
        return read_offsets(written)
    except ValueError as error:
        raise StoreUnreadable(f"a stored instance cannot be read: {error}") from error


def restamped(stored: bytes, *, written_ms: int) -> bytes:
    """The same instance, as if it had been written then.

    Raises:
        StoreUnreadable: of another version, or damaged.
    """
    version, kind, _, *lengths = _head(stored)
    return _HEAD.pack(version, kind, written_ms, *lengths) + stored[_HEAD.size :]


def with_event_offsets(stored: bytes, offsets: Sequence[int]) -> bytes:
    """The same instance, with its events there.

    Raises:
        StoreUnreadable: of another version, or damaged.
    """
    *head, state_length, length = _head(stored)
    begin, written = _HEAD.size + state_length, write_offsets(offsets)
    state, marks = stored[_HEAD.size : begin], stored[begin + length :]
    return _HEAD.pack(*head, state_length, len(written)) + state + written + marks


def state_value(stored: bytes) -> bytes:
    """The instance's state as it is published.

    Raises:
        StoreUnreadable: of another version, or damaged.
    """
    *_, length, _ = _head(stored)
    return stored[_HEAD.size : _HEAD.size + length]


def unpack(stored: bytes, codec: Codec[TaskState]) -> Instance:
    """The instance that ``pack`` stored.

    Raises:
        StoreUnreadable: of another version, or damaged. It is never taken for an unknown instance.
    """
    *_, state_length, offsets_length = _head(stored)
    end = _HEAD.size + state_length
    try:
        state = codec.decode(stored[_HEAD.size : end])
        marks = _read_marks(stored[end + offsets_length :])
    except OperatorError:
        raise
    except Exception as error:
        # Damaged bytes surface as anything.
        raise StoreUnreadable(f"a stored instance cannot be read: {type(error).__name__}: {error}") from error
    if (len(marks.tasks), len(marks.facts), len(marks.details)) != (len(state.tasks), len(FACTS), len(DETAILS)):
        raise StoreUnreadable("a stored instance cannot be read: its marks are of another state")
    if marks.began_at == LATEST:  # a version wrote it that did not remember this
        marks = replace(marks, began_at=earliest_known(state))
    return Instance(state, marks)


def _head(stored: bytes) -> tuple[int, bytes, int, int, int]:
    if stored[:1] != _VERSION_BYTE:
        raise StoreUnreadable(_OTHER_VERSION if stored else "a stored instance cannot be read: it is empty")
    try:
        return _HEAD.unpack_from(stored)
    except struct.error as error:
        raise StoreUnreadable(f"a stored instance cannot be read: {error}") from error
