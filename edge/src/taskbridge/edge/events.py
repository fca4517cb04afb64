"""The verified event of a callback as a record, the mark that claims its signature, and where the event is stored."""

from __future__ import annotations

from enum import StrEnum
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
    """The signature's digest; for a message of another system, its id."""
    event: bytes
    """72 bits of the event's id, which depends on the action and every parameter."""
    action: Action
    source: str = SOURCE_YIDA

    @classmethod
    def of(cls, digest: bytes, event_id: str, action: Action, source: str = SOURCE_YIDA) -> Mark:
        # Without the digits in between, some of which are the same in every id.
        return cls(digest, bytes.fromhex(event_id[:6] + event_id[-12:]), action, source)


class Decided(Struct, frozen=True, kw_only=True, gc=False):
    """A verified event, ready for ``taskbridge.task-events.v1``. The native core and Python produce the same.

    It may be published once its mark is claimed: ``verification.replays.claim``.
    """

    event_id: str
    app_type: str
    sender: str
    """The app, or the other system, that signed it."""
    key: bytes
    headers: Sequence[Header]
    """Without the trace context."""
    body: bytes
    """Avro, without the schema id."""
    mark: Mark | None
    """By which its signature is claimed; None if there is none that could be copied."""
    other_scheme: bool = False
    """It also has the signature of another feature of Yida."""

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


class Durability(StrEnum):
    """Where an event is stored when its callback is answered."""

    KAFKA = "kafka"
    """All in-sync replicas have acknowledged it."""
    SPOOL = "spool"
    """The edge's disk has it, fsynced, and sends it to Kafka as soon as possible."""
