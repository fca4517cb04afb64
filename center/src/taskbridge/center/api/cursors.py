"""Where a page ended, as a text for the client to send back: a place in the view, so that pages stay stable. Pure.

The place is the time of entering and the ids, not a number of entries: those that come or go meanwhile move nothing.
"""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

import msgspec

from taskbridge.runtime.refusals import BadQuery

_BOUND_BYTES = 8
_VERSION = b"\x02"
_HEAD = len(_VERSION) + _BOUND_BYTES
_INT64 = range(-(1 << 63), 1 << 63)

_NOT_OURS = "cursor: does not belong to this view of this user; start again without it"


class PageCursor(NamedTuple):
    """The place of an entry in its view."""

    entered_at: int
    instance_id: str
    task_id: str


_read = msgspec.msgpack.Decoder(PageCursor).decode


def write_cursor(corp_id: str, user_id: str, view: int, place: PageCursor) -> str:
    """``view`` is its code in the database."""
    raw = _VERSION + _bound_to(corp_id, user_id, view) + msgspec.msgpack.encode(place)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def read_cursor(cursor: str, corp_id: str, user_id: str, view: int) -> PageCursor:
    """The place; raises BadQuery if the cursor is damaged, or of another user or view."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        if raw[:_HEAD] != _VERSION + _bound_to(corp_id, user_id, view):
            raise BadQuery(_NOT_OURS)
        place = _read(raw[_HEAD:])
    except (ValueError, msgspec.DecodeError) as error:
        raise BadQuery(_NOT_OURS) from error
    if "\0" in place.instance_id + place.task_id or place.entered_at not in _INT64:
        raise BadQuery(_NOT_OURS)
    return place


def _bound_to(corp_id: str, user_id: str, view: int) -> bytes:
    bound = msgspec.msgpack.encode((corp_id, user_id, view))
    return hashlib.sha256(b"taskbridge cursor\0" + bound).digest()[:_BOUND_BYTES]
