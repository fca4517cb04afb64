"""How spans and their attributes are called: as OpenTelemetry's semantic conventions for HTTP and messaging call them.

The one place for it: https://opentelemetry.io/docs/specs/semconv/messaging/kafka/, those of version 1.44.
What they have no name for begins with ``taskbridge.``.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["SERVER", "PRODUCER", "CLIENT", "CONSUMER"]
Operation = Literal["create", "send", "process"]
Attributes = dict[str, "str | int | bool"]

METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"
ERROR = "error.type"

MESSAGE_ID = "messaging.message.id"
KEY = "messaging.kafka.message.key"
BATCH = "messaging.batch.message_count"
PARTITION = "messaging.destination.partition.id"
GROUP = "messaging.consumer.group.name"

APP_TYPE = "taskbridge.app_type"
DURABILITY = "taskbridge.durability"
"""What kept an event when its callback was answered: ``kafka`` or ``spool``."""
SPOOLED = "taskbridge.spooled"
"""The span begins when the event was put on the disk, and ends when Kafka has acknowledged it."""

EVENT_STREAM = "/v1/corps/{corp_id}/users/{user_id}/events"
"""Where somebody listens to server-sent events; never with whose it is."""


def request(method: str, route: str) -> str:
    """The name of a span."""
    return f"{method} {route}"


def message(operation: Operation, destination: str) -> str:
    """The name of a span."""
    return f"{operation} {destination}"


def messaging(operation: Operation, destination: str, *, system: str = "kafka") -> Attributes:
    return {
        "messaging.system": system,
        "messaging.destination.name": destination,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
