"""Traces: whether the process makes any, how spans are named, and W3C Trace Context. Imports nothing of OpenTelemetry.

Names follow OpenTelemetry's semantic conventions for HTTP and messaging, version 1.44:
https://opentelemetry.io/docs/specs/semconv/messaging/kafka/. Names of our own begin with ``taskbridge.``.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskbridge.runtime.otel import Tracing

_log = structlog.stdlib.get_logger(__name__)


# Whether there are traces.

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


def tracing_from_environment(environment: Mapping[str, str], distribution: str) -> Tracing | None:
    """Traces where the environment names a receiver and the extra ``otel`` is installed; None otherwise.

    Without traces nothing of OpenTelemetry's SDK is imported. A wrong setting never stops the service: the log says
    what is wrong, and the service runs without traces. The SDK reads all other ``OTEL_…`` variables by itself.
    """
    if not _is_enabled(environment):
        return None
    protocol = next((found for name in _PROTOCOLS if (found := environment.get(name))), _PROTOCOL)
    if protocol != _PROTOCOL:
        _log.error("tracing_not_started", problem=f"OTLP goes by {_PROTOCOL}, not by {protocol}")
        return None
    try:
        from taskbridge.runtime.otel import Tracing  # noqa: PLC0415 - its import is slow, and most run without
    except ImportError as error:
        _log.warning("tracing_not_installed", problem=str(error), remedy=f"install {distribution}[otel]")
        return None
    try:
        tracing = Tracing.exporting(distribution, version(distribution))
    except Exception as error:  # noqa: BLE001 - the SDK rejects its settings with many classes
        _log.error("tracing_not_started", problem=str(error))
        return None
    _log.info("tracing_started")
    return tracing


def _is_enabled(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporters:
        return "otlp" in exporters.split(",")
    return any(environment.get(name) for name in _ENDPOINTS)


# Names of spans and their attributes.

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
"""Where an event was stored when its callback was answered: ``kafka`` or ``spool``."""
SPOOLED = "taskbridge.spooled"
"""The span begins when the event is written to disk, and ends when Kafka has acknowledged it."""


def request(method: str, route: str) -> str:
    return f"{method} {route}"


def message(operation: Operation, destination: str) -> str:
    return f"{operation} {destination}"


def messaging(operation: Operation, destination: str) -> Attributes:
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": destination,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }


# W3C Trace Context in the headers of HTTP and of Kafka's records.

TRACEPARENT = "traceparent"

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SAMPLED, _RANDOM = 0x01, 0x02
_KNOWN = _SAMPLED | _RANDOM


def valid_traceparent(header: str | None) -> str | None:
    """The trace context if it may be passed on, else None."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None


def traceparent_of(headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    """The trace context of a Kafka record; None if there is none that may be passed on.

    Only the last header is checked, where taskbridge writes it: a worker calls this for every record.
    """
    if not headers or headers[-1][0] != TRACEPARENT:
        return None
    value = headers[-1][1]
    return None if value is None else valid_traceparent(value.decode("latin-1"))


def trace_id_of(traceparent: str) -> str:
    return traceparent[3:35]


def span_id_of(traceparent: str) -> str:
    return traceparent[36:52]


def is_sampled(traceparent: str) -> bool:
    """Whether the sender has recorded its part of the trace."""
    return bool(flags_of(traceparent) & _SAMPLED)


def flags_of(traceparent: str) -> int:
    """The flags that are known today: unknown ones must not be passed on."""
    return int(traceparent[53:], 16) & _KNOWN
