r"""The format of inboxes in the store and its changelog: every entry has a key of its own, newest first in a view.

========================================  =====================================================================
key                                       value
========================================  =====================================================================
``E`` user view inverted-time line        the item, see ``Item``
``L`` user view line                      the time at which the line entered the view, as in the key above
``C`` user                                how many lines each view has: four numbers, in the order of ``VIEWS``
``P``                                     how far the notifications of this partition are applied, see ``Applied``
========================================  =====================================================================

``user`` is corp and user id, ``line`` is instance and task id. Ids come from outside, and may hold any character; each
ends with a zero byte, and a zero byte within one is followed by 0xFF, so that no id reaches into another's range and
entries of one moment are in the order of their ids. Pure.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from taskbridge.schemas.events import SOURCE_YIDA, View
from taskbridge.schemas.inbox import Line as LineId

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskNotification

VIEWS = (View.CREATED, View.PENDING, View.HANDLED, View.COPIED)

_CODES = {view: bytes([number]) for number, view in enumerate(VIEWS, 1)}
_VIEWS_BY_CODE = {code: view for view, code in _CODES.items()}
_TIME = struct.Struct(">Q")
TIME_BYTES = _TIME.size
_NEWEST = (1 << 63) - 1
_COUNTS = struct.Struct(">4Q")
_NO_COUNTS = (0, 0, 0, 0)

APPLIED_KEY = b"P"

ViewCounts = tuple[int, int, int, int]


class Item(Struct, frozen=True, gc=False, array_like=True, omit_defaults=False):
    """One line as it is stored. Fields may be added at the end, with a default; none may go."""

    instance_id: str
    task_id: str | None
    title: str | None
    url: str | None
    app_type: str
    originator_id: str | None
    originator_name: str | None
    status: str
    created_at: int
    """When it entered the view."""
    updated_at: int
    process_name: str | None = None
    actor_id: str | None = None
    source: str = SOURCE_YIDA
    outcome: str | None = None
    finished_at: int | None = None
    result: str | None = None


class Applied(Struct, frozen=True, array_like=True):
    """The notifications that an inbox partition contains."""

    topic_id: str
    """Kafka's id of the topic: in a recreated one, offsets begin again."""
    offset: int
    """Of the last one that is applied."""


class Line(NamedTuple):
    """The place of a line within a view, in the order in which people see them."""

    entered_at: int
    suffix: bytes
    """Its instance and task, as in keys."""


write_item = msgspec.msgpack.Encoder().encode
read_item = msgspec.msgpack.Decoder(Item).decode
write_applied = msgspec.msgpack.Encoder().encode
read_applied = msgspec.msgpack.Decoder(Applied).decode


def user_part(corp_id: str, user_id: str) -> bytes:
    return _ended(corp_id) + _ended(user_id)


def line_part(instance_id: str, task_id: str | None) -> bytes:
    """A line about the whole instance comes before those about its tasks."""
    return _ended(instance_id) + (b"" if task_id is None else b"\x01" + _ended(task_id))


def entries_prefix(user: bytes, view: View) -> bytes:
    """What all keys of a view's items begin with."""
    return b"E" + user + _CODES[view]


def behind(prefix: bytes) -> bytes:
    """The first key that no longer begins with this prefix, which ends with a view's code."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def entry_key(user: bytes, view: View, line: Line) -> bytes:
    return entries_prefix(user, view) + place(line)


def place(line: Line) -> bytes:
    """The part of an entry's key that is its place in the view."""
    return _TIME.pack(_NEWEST - line.entered_at) + line.suffix


def line_key(user: bytes, view: View, suffix: bytes) -> bytes:
    return b"L" + user + _CODES[view] + suffix


def counts_key(user: bytes) -> bytes:
    return b"C" + user


def read_line_key(key: bytes) -> LineId | None:
    """What ``line_key`` was made of; None where it is another key, or not one that we wrote."""
    if key[:1] != b"L":
        return None
    try:
        corp_id, rest = _first(key[1:])
        user_id, rest = _first(rest)
        instance_id, task = _first(rest[1:])
        return LineId(corp_id, user_id, _VIEWS_BY_CODE[rest[:1]], instance_id, _first(task[1:])[0] if task else None)
    except (ValueError, KeyError):
        return None


def write_time(entered_at: int) -> bytes:
    return _TIME.pack(_NEWEST - entered_at)


def read_time(stored: bytes) -> int:
    return _NEWEST - _TIME.unpack(stored)[0]


def read_counts(stored: bytes | None) -> ViewCounts:
    """How many lines each view has, in the order of ``VIEWS``."""
    return _NO_COUNTS if stored is None else _COUNTS.unpack(stored)


def write_counts(counts: ViewCounts) -> bytes | None:
    """None for a person without entries, who needs no record."""
    return _COUNTS.pack(*counts) if any(counts) else None


def item_of(notification: TaskNotification, *, entered_at: int) -> Item:
    originator = notification.originator
    return Item(
        notification.instance_id,
        notification.task_id,
        notification.title,
        notification.url,
        notification.app_type,
        None if originator is None else originator.user_id,
        None if originator is None else originator.name,
        notification.status,
        entered_at,
        notification.occurred_at if notification.updated_at is None else notification.updated_at,
        notification.process_name,
        notification.actor_id,
        notification.source,
        notification.outcome,
        notification.finished_at,
        notification.result,
    )


def _ended(text: str) -> bytes:
    return text.encode().replace(b"\x00", b"\x00\xff") + b"\x00"


def _first(joined: bytes) -> tuple[str, bytes]:
    """The text that ``_ended`` put first, and what is behind it."""
    end = joined.index(b"\x00")
    while joined[end + 1 : end + 2] == b"\xff":
        end = joined.index(b"\x00", end + 1)
    return joined[:end].replace(b"\x00\xff", b"\x00").decode(), joined[end + 1 :]
