"""Samples of the last hour, for plots. Does no I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SAMPLE_S = 10
SAMPLES = 360
_A_MINUTE = 60 // SAMPLE_S


class EdgeTotals(NamedTuple):
    """What the edges have counted since they started, all together, and what waits in their spools."""

    accepted: float
    rejected: float
    spool_records: float


class Sample(NamedTuple):
    """One look. Its ``slot`` is its time in tens of seconds, the same for all workers."""

    slot: int
    lag_records: int
    edges: EdgeTotals | None


class History:
    """A ring of an hour."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)

    def add(self, *, now_s: float, lag_records: int, edges: EdgeTotals | None) -> None:
        self.samples.append(Sample(int(now_s // SAMPLE_S), lag_records, edges))

    def lag_share(self) -> dict[str, int]:
        return {str(each.slot): each.lag_records for each in self.samples}


def history_of(own: Iterable[Sample], lag_shares: Iterable[Mapping[str, int]]) -> dict[str, Any]:
    """The hour as this worker has seen the edges, and as all workers have seen their own lag."""
    samples = list(own)
    lag: dict[str, int] = {}
    for share in lag_shares:
        for slot, records in share.items():
            lag[slot] = lag.get(slot, 0) + records
    return {
        "times": [iso(each.slot * SAMPLE_S * 1000) for each in samples],
        "lag_records": [lag.get(str(each.slot), each.lag_records) for each in samples],
        "spool_records": [0 if each.edges is None else round(each.edges.spool_records) for each in samples],
        "accepted_per_minute": _rates([None if each.edges is None else each.edges.accepted for each in samples]),
        "rejected_per_minute": _rates([None if each.edges is None else each.edges.rejected for each in samples]),
    }


def _rates(totals: list[float | None]) -> list[int]:
    """What a counter grew by in the minute before each sample. One that fell was restarted, and counts from zero."""
    grown = [0.0]
    last = totals[0] if totals else None
    for total in totals[1:]:
        grown.append(0.0 if total is None or last is None else total - last if total >= last else total)
        last = last if total is None else total
    return [round(sum(grown[max(0, at + 1 - _A_MINUTE) : at + 1])) for at in range(len(totals))]
