"""Traces are sent only if the environment names a receiver. No error in them stops a service."""

from __future__ import annotations

import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from support.tracing import TRACE
from taskbridge.runtime.tracing import (
    traceparent_of,
    tracing_from_environment,
    valid_traceparent,
)

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
EDGE = "taskbridge-edge"


@pytest.mark.parametrize(
    ("environment", "enabled"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "edge", "OTEL_TRACES_SAMPLER": "always_on"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "console"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, False),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
    ],
)
def test_there_are_traces_where_the_environment_names_a_receiver(environment: dict[str, str], *, enabled: bool) -> None:
    tracing = tracing_from_environment(environment, EDGE)
    assert (tracing is not None) == enabled
    if tracing is not None:
        tracing.close()


def test_without_the_extra_the_log_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "taskbridge.runtime.otel", None)
    with capture_logs() as lines:
        assert tracing_from_environment(ENDPOINT, EDGE) is None
    assert [(each["event"], each["remedy"]) for each in lines] == [
        ("tracing_not_installed", "install taskbridge-edge[otel]")
    ]


def test_without_traces_nothing_of_the_sdk_is_imported() -> None:
    """By either service, with all that it imports; FastAPI brings the API, which does nothing by itself."""
    program = """
import sys
import taskbridge.edge.app, taskbridge.streams.app, taskbridge.streams.worker
from taskbridge.runtime.tracing import tracing_from_environment
assert tracing_from_environment({}, "taskbridge-edge") is None
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


BEFORE = ("ce_id", b"e-1")


@pytest.mark.parametrize(
    ("header", "valid"), [(TRACE, True), (None, False), ("", False), ("ff" + TRACE[2:], False), (TRACE + "-x", False)]
)
def test_only_a_trace_context_that_can_be_handed_on_is(header: str | None, *, valid: bool) -> None:
    assert valid_traceparent(header) == (header if valid else None)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([BEFORE, ("traceparent", TRACE.encode())], TRACE),
        ([], None),
        ([BEFORE], None),
        ([BEFORE, ("traceparent", b"\xff\x00")], None),
        ([BEFORE, ("traceparent", None)], None),
    ],
)
def test_a_record_has_it_last(headers: list[tuple[str, bytes | None]], found: str | None) -> None:
    assert traceparent_of(headers) == found
