"""What was set aside, as it stands on its topics: dead letters and quarantined callbacks, and what lists show."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from taskbridge.schemas.cloudevents import rfc3339

if TYPE_CHECKING:
    from confluent_kafka import Message

    from taskbridge.schemas.events import QuarantinedCallback

_PREFIX = "dlq_"

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One record of the dead-letter topic."""

    id: str
    """Its place there, as ``partition-offset``."""
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    def said(self, name: str) -> str | None:
        """What the header says that the stream added; None where there is none."""
        return next((text_of(value) for key, value in reversed(self.headers) if key == _PREFIX + name), None)

    @property
    def was_left(self) -> bool:
        """Too large to be parked: its value and headers are still where they were received, if they are kept there."""
        return self.said("left") is not None

    @property
    def received_headers(self) -> Headers:
        return [each for each in self.headers if not each[0].startswith(_PREFIX)]


def dead_letter_of(message: Message) -> DeadLetter:
    return DeadLetter(
        id=f"{message.partition()}-{message.offset()}",
        at_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=headers_of(message),
    )


def quarantined_summary(entry: QuarantinedCallback) -> dict[str, Any]:
    """What a list shows of a quarantined callback: nothing that a stranger wrote but ids, and no secrets."""
    return {
        "id": entry.quarantine_id,
        "received_at": rfc3339(entry.received_at),
        "action": entry.action,
        "reason": entry.reason,
        "app_type": entry.app_type,
        "remote_address": entry.remote_address,
    }


def headers_of(message: Message) -> Headers:
    return [(name, value or b"") for name, value in cast("list[tuple[str, bytes | None]]", message.headers() or [])]


def text_of(value: Any) -> str | None:
    """Bytes as text, or as base64 where they are none."""
    if value is None or isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()
