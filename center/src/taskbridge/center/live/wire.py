"""A person's event stream on the wire: frames, ids, and the position that an id stands for. Does no I/O.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

from typing import NamedTuple

from taskbridge.schemas.json_forms import to_json

MEDIA_TYPE = "text/event-stream; charset=utf-8"
RETRY_MS = 1000
OPENING = f"retry: {RETRY_MS}\n\n".encode()
"""How long a client waits before it connects again. First in each stream, so that headers are not held back either."""
ID_PATTERN = "^([0-9a-f]{1,32}-(0|[1-9][0-9]{0,17}))?$"
"""Of the last id that a client received; empty before any."""


class StreamPosition(NamedTuple):
    """What a client has received: a person's changes up to a number, in the epoch of that numbering."""

    epoch: str
    seq: int

    @property
    def event_id(self) -> str:
        return f"{self.epoch}-{self.seq}"


def position_of(event_id: str) -> StreamPosition:
    """The place that the id stands for; it matches ``ID_PATTERN``, and is not empty."""
    epoch, _, seq = event_id.partition("-")
    return StreamPosition(epoch, int(seq))


def notification_frame(place: StreamPosition, data: bytes) -> bytes:
    """A change, after which the client is at ``place``. JSON has no line breaks but escaped ones: one line of data."""
    return b"id: %b\nevent: notification\ndata: %b\n\n" % (place.event_id.encode(), data)


def heartbeat_frame(place: StreamPosition) -> bytes:
    """A comment, with the place up to which the client has seen everything.

    An id without data is no event to a client, but the client resumes from it: then little has to be read again.
    """
    return b": alive\nid: %b\n\n" % place.event_id.encode()


def reset_frame(reason: str) -> bytes:
    """Changes were missed that can no longer be sent: the client should load its lists again."""
    return b"event: reset\ndata: %b\n\n" % to_json({"reason": reason})


def end_frame(reason: str) -> bytes:
    """The last words of a stream, for people who read along; clients connect again by themselves."""
    return b": closed: %b\n\n" % reason.encode()
