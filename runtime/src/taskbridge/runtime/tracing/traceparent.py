"""W3C Trace Context, as it stands in the headers of HTTP and of Kafka's records. Needs nothing of OpenTelemetry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TRACEPARENT = "traceparent"

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SAMPLED, _RANDOM = 0x01, 0x02
_KNOWN = _SAMPLED | _RANDOM


def valid_traceparent(header: str | None) -> str | None:
    """A W3C trace context that can be handed on, or None."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None


def traceparent_of(headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    """Of a record of Kafka; None where it has none that can be handed on.

    Ours have it last, and it is looked for nowhere else: every record of a worker's comes by here.
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
    """Whoever made it has recorded its part of the trace."""
    return bool(flags_of(traceparent) & _SAMPLED)


def flags_of(traceparent: str) -> int:
    """Those that are known today: others must not be handed on."""
    return int(traceparent[53:], 16) & _KNOWN
