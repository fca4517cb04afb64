"""A person's stream of events as it goes over the wire: frames, ids, and what an id means. Does no I/O.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.schemas.errors import CallerError
from taskbridge.center.api.json_forms import nobody, notification_json, to_json

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.center.api.json_forms import Names

MEDIA_TYPE = "text/event-stream; charset=utf-8"

RETRY_MS = 1000
OPENING = f"retry: {RETRY_MS}\n\n".encode()
"""How long a client waits before it connects again. First in each stream, so that headers are not held back either."""

ID_PATTERN = "^(0|[1-9][0-9]{0,8})-(0|[1-9][0-9]{0,17})$"
_ID = re.compile(ID_PATTERN, re.ASCII)


class BrokenEventId(CallerError):
    """Last-Event-ID is none that this service gave: send the last id that was received, or none at all."""


class Place(NamedTuple):
    """Where a client goes on reading the notifications topic: what an id stands for."""

    partition: int
    next_offset: int

    @property
    def event_id(self) -> str:
        return f"{self.partition}-{self.next_offset}"


def place_of(event_id: str) -> Place:
    """The place that the id stands for.

    Raises:
        BrokenEventId: it was not made by us.
    """
    found = _ID.fullmatch(event_id)
    if found is None:
        raise BrokenEventId(str(BrokenEventId.__doc__))
    return Place(int(found[1]), int(found[2]))


def notification_frame(partition: int, offset: int, notification: TaskNotification, names: Names = nobody) -> bytes:
    """The notification at this offset. Its JSON has no line breaks but escaped ones, so it is one line of data."""
    event_id = Place(partition, offset + 1).event_id.encode()
    return b"id: %b\nevent: notification\ndata: %b\n\n" % (event_id, to_json(notification_json(notification, names)))


def heartbeat_frame(place: Place | None) -> bytes:
    """A comment; with a place, the client has seen everything before it.

    An id without data is no event to a client, and yet what it will resume from: little is to be read again then.
    """
    return b": alive\n\n" if place is None else b": alive\nid: %b\n\n" % place.event_id.encode()


def reset_frame(reason: str) -> bytes:
    """Tells the client that something was missed which no longer can be sent: it should load its lists again."""
    return b"event: reset\ndata: %b\n\n" % to_json({"reason": reason})


def end_frame(reason: str) -> bytes:
    """The last words of a stream, for people who read along; clients connect again by themselves."""
    return b": closed: %b\n\n" % reason.encode()
