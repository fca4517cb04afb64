"""Results of a run of the streams service, and its ratios to its peers with their targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from tests.bench.spreads import Bound, Estimate, Spread, estimate, spread
from tests.bench.streams.contenders import KAFKA_STREAMS, KAFKA_STREAMS_EXACTLY_ONCE, TASKBRIDGE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.bench.spreads import Estimate
    from tests.bench.streams.latency import Latency
    from tests.bench.streams.recovery import Restored
    from tests.bench.streams.scaling import Scaled
    from tests.bench.streams.throughput import Window


T = TypeVar("T")


@dataclass(slots=True)
class Results:
    windows: dict[str, list[Window]] = field(default_factory=dict[str, "list[Window]"])
    restored: dict[str, list[Restored]] = field(default_factory=dict[str, "list[Restored]"])
    latencies: dict[str, list[Latency]] = field(default_factory=dict[str, "list[Latency]"])
    scaled: dict[int, list[Scaled]] = field(default_factory=dict[int, "list[Scaled]"])


def of(found: list[T], figure: Callable[[T], float]) -> Spread:
    return spread(map(figure, found))


def ratio(one: list[T], other: list[T], figure: Callable[[T], float]) -> Estimate:
    """``one`` over ``other``, each pair from one round."""
    return estimate(figure(mine) / figure(theirs) for mine, theirs in zip(one, other, strict=True))


def _least(limit: float) -> Bound:
    return Bound(limit, is_least=True)


Figures: TypeAlias = "tuple[tuple[str, str, Mapping[str, Bound]], ...]"
"""The attribute, its title, and the target by peer."""

THROUGHPUT: Figures = (
    ("per_cpu_second", "events per CPU second", {KAFKA_STREAMS: _least(1.2)}),
    ("per_second", "events/s", {KAFKA_STREAMS: _least(1)}),
)
RECOVERY: Figures = (("per_second", "states/s", {KAFKA_STREAMS: _least(1)}),)
LATENCY: Figures = (
    ("p50_ms", "p50", {KAFKA_STREAMS_EXACTLY_ONCE: Bound(0.67)}),
    ("p99_ms", "p99", {KAFKA_STREAMS_EXACTLY_ONCE: Bound(1)}),
)


def ratios(found: Mapping[str, list[Any]], figures: Figures) -> list[tuple[str, str, Estimate, Bound | None]]:
    """Peer, figure, ratio of ours to theirs, and its target."""
    ours = found.get(TASKBRIDGE)
    if ours is None:
        return []
    return [
        (peer, title, ratio(ours, theirs, attrgetter(figure)), bounds.get(peer))
        for figure, title, bounds in figures
        for peer, theirs in found.items()
        if peer != TASKBRIDGE
    ]


def watched(found: Mapping[str, list[Any]], figures: Figures) -> dict[str, Estimate]:
    """The estimates that rounds must narrow: the ratios with a target, or all where none has one."""
    compared = ratios(found, figures)
    bounds = [each for each in compared if each[3] is not None] or compared
    return {f"{title} over {peer}": estimate for peer, title, estimate, _ in bounds}
