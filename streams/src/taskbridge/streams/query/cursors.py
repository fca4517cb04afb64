"""Where a page ended, as a text for the client to hand back: a place in the view, so that pages stay stable. Pure.

The place is the time of entering and the line's id, not a number of lines: what comes or goes meanwhile moves nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING

from taskbridge.streams.api.refusals import BadQuery
from taskbridge.streams.inbox.layout import TIME_BYTES

if TYPE_CHECKING:
    from taskbridge.schemas.events import View

_BOUND_BYTES = 8
_VERSION = b"\x01"

_NOT_OURS = "cursor: does not belong to this view of this user; start again without it"


def write_cursor(user: bytes, view: View, place: bytes) -> str:
    """``user`` as ``streams.inbox.layout`` writes it; ``place`` as it stands in an entry's key."""
    return base64.urlsafe_b64encode(_VERSION + _bound_to(user, view) + place).decode().rstrip("=")


def read_cursor(cursor: str, user: bytes, view: View) -> bytes:
    """The place.

    Raises:
        BadQuery: damaged, or given for another user or view.
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadQuery(_NOT_OURS) from error
    begin = len(_VERSION) + _BOUND_BYTES
    if raw[:begin] != _VERSION + _bound_to(user, view) or len(raw) <= begin + TIME_BYTES or raw[-1] != 0:
        raise BadQuery(_NOT_OURS)
    return raw[begin:]


def _bound_to(user: bytes, view: View) -> bytes:
    return hashlib.sha256(b"taskbridge cursor\0" + user + view.encode()).digest()[:_BOUND_BYTES]
