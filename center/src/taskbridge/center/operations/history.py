"""Samples of the last hour, for plots. Does no I/O."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from taskbridge.schemas.cloudevents import iso

SAMPLE_S = 10
SAMPLES = 360
_A_MINUTE = 60 // SAMPLE_S


class EdgeTotals(NamedTuple):
    """What the edges have counted since they started, all together, and what waits in their spools."""

    accepted: float
    rejected: float
    spool_records: float


class _Sample(NamedTuple):
    at_s: float
    lag_records: int
    edges: EdgeTotals | None


class History:
    """A ring of an hour."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)

    def add(self, *, now_s: float, lag_records: int, edges: EdgeTotals | None) -> None:
        """``edges`` is None if none could be reached."""
        self._samples.append(_Sample(now_s, lag_records, edges))

    def shown(self) -> dict[str, Any]:
        samples = list(self._samples)
        edges = [each.edges for each in samples]
        return {
            "times": [iso(round(each.at_s * 1000)) for each in samples],
            "lag_records": [each.lag_records for each in samples],
            "spool_records": [0 if each is None else round(each.spool_records) for each in edges],
            "accepted_per_minute": _rates([None if each is None else each.accepted for each in edges]),
            "rejected_per_minute": _rates([None if each is None else each.rejected for each in edges]),
        }


def _rates(totals: list[float | None]) -> list[int]:
    """What a counter grew by in the minute before each sample. One that fell was restarted, and counts from zero."""
    grown = [0.0]
    last = totals[0] if totals else None
    for total in totals[1:]:
        grown.append(0.0 if total is None or last is None else total - last if total >= last else total)
        last = last if total is None else total
    return [round(sum(grown[max(0, at + 1 - _A_MINUTE) : at + 1])) for at in range(len(totals))]
