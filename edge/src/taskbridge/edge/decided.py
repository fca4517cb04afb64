"""What is decided of a callback: the verified event, as Kafka takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from taskbridge.schemas.cloudevents import event_headers
from taskbridge.schemas.codec import task_event_bodies
from taskbridge.schemas.events import SOURCE_YIDA, Action, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.schemas.cloudevents import Header

_BODIES = task_event_bodies()
_EVENT_DIGITS = len("01234567-89ab-cdef")


class Mark(Struct, frozen=True, gc=False):
    """One verified digest, and the event that it proved."""

    digest: bytes
    event: bytes
    """The first eight bytes of its id, which covers the action and every parameter."""
    action: Action

    @classmethod
    def of(cls, digest: bytes, event_id: str, action: Action) -> Mark:
        return cls(digest, bytes.fromhex(event_id[:_EVENT_DIGITS].replace("-", "")), action)


class Decided(Struct, frozen=True, kw_only=True, gc=False):
    """A verified event, ready for ``taskbridge.task-events.v1``. Both implementations of the decision come to the same.

    It counts once its mark is claimed: ``verification.replays.claim``.
    """

    event_id: str
    app_type: str
    sender: str
    """What proved it: the app, or the other system."""
    key: bytes
    headers: Sequence[Header]
    """Without the context of a trace."""
    body: bytes
    """Avro, without the frame."""
    mark: Mark | None
    """What its signature is spent by; None for what has none to be copied, and where it is spent already."""
    other_scheme: bool = False
    """It carries the signature of another feature of Yida, too."""

    @classmethod
    def of(cls, event: TaskEvent, mark: Mark | None = None, *, other_scheme: bool = False) -> Decided:
        return cls(
            event_id=event.event_id,
            app_type=event.app_type,
            sender=event.app_type if event.source == SOURCE_YIDA else event.source,
            key=event.instance_id.encode(),
            headers=event_headers(event),
            body=_BODIES.encode_body(event),
            mark=mark,
            other_scheme=other_scheme,
        )

    @property
    def instance_id(self) -> str:
        return self.key.decode()

    def event(self) -> TaskEvent:
        """Read from the body: for whoever looks into it, which the path of a callback does not."""
        return _BODIES.decode_body(self.body)
