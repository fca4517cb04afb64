"""Decides whether there are traces: only where the environment says where to send them, and the extra is installed."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.runtime.tracing.tracing import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"

log = structlog.stdlib.get_logger(__name__)


def tracing_from_environment(environment: Mapping[str, str], distribution: str) -> Tracing | None:
    """What makes spans in this process, or None; then nothing of OpenTelemetry's SDK is imported.

    Nothing that is wrong with it is a reason not to run: the log says what, and the service runs without traces.
    All but whether and how is read by the SDK itself, from ``OTEL_…`` of the process's own environment.
    """
    if not _is_wanted(environment):
        return None
    protocol = next((found for name in _PROTOCOLS if (found := environment.get(name))), _PROTOCOL)
    if protocol != _PROTOCOL:
        log.error("tracing_not_started", problem=f"OTLP goes by {_PROTOCOL}, not by {protocol}")
        return None
    try:
        from taskbridge.runtime.tracing.tracing import Tracing  # noqa: PLC0415 - it costs only those who want it
    except ImportError as error:
        log.warning("tracing_not_installed", problem=str(error), remedy=f"install {distribution}[otel]")
        return None
    try:
        tracing = Tracing.exporting(distribution, version(distribution))
    except Exception as error:  # noqa: BLE001 - whatever the SDK has against its settings
        log.error("tracing_not_started", problem=str(error))  # noqa: TRY400 - a value, perhaps with a password
        return None
    log.info("tracing_started")
    return tracing


def _is_wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporters:
        return "otlp" in exporters.split(",")
    return any(environment.get(name) for name in _ENDPOINTS)
