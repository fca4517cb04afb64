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

EVENT_BYTES = 9


class Mark(Struct, frozen=True, gc=False):
    """One verified digest, and the event that it proved."""

    digest: bytes
    """Or, of another system's message, its id."""
    event: bytes
    """72 bits of chance of the event's id, which covers the action and every parameter."""
    action: Action
    source: str = SOURCE_YIDA

    @classmethod
    def of(cls, digest: bytes, event_id: str, action: Action, source: str = SOURCE_YIDA) -> Mark:
        # Without the digits between, of which some are the same in every id.
        return cls(digest, bytes.fromhex(event_id[:6] + event_id[-12:]), action, source)


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
    """What its signature is spent by; None for what has none to be copied."""
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
