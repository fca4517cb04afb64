"""What stands in headers: handed on where it is a trace context, and nothing else."""

from __future__ import annotations

import pytest

from support.tracing import NOT_SAMPLED, TRACE, TRACE_ID
from taskbridge.runtime.tracing.traceparent import (
    flags_of,
    is_sampled,
    span_id_of,
    trace_id_of,
    traceparent_of,
    valid_traceparent,
)

BEFORE = ("ce_id", b"e-1")


@pytest.mark.parametrize(
    ("header", "valid"), [(TRACE, True), (None, False), ("", False), ("ff" + TRACE[2:], False), (TRACE + "-x", False)]
)
def test_only_a_trace_context_that_can_be_handed_on_is(header: str | None, *, valid: bool) -> None:
    assert valid_traceparent(header) == (header if valid else None)


def test_a_trace_context_is_taken_apart() -> None:
    assert (trace_id_of(TRACE), span_id_of(TRACE)) == (TRACE_ID, "00f067aa0ba902b7")
    assert [is_sampled(TRACE), is_sampled(NOT_SAMPLED), is_sampled(f"{TRACE[:-2]}03")] == [True, False, True]
    assert [flags_of(f"{TRACE[:-2]}{flags}") for flags in ("00", "01", "03", "ff")] == [0, 1, 3, 3]


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
