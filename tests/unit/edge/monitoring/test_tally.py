"""What is counted without locks is told to Prometheus as its own histograms and counters would tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from taskbridge.edge.monitoring.tally import Durations, Outcomes

if TYPE_CHECKING:
    from collections.abc import Sequence

BOUNDS = (0.0005, 0.001, 0.5, 1, 10)
SECONDS = st.sampled_from([0.0, *BOUNDS, 11.0]) | st.floats(0, 20)
ACTIONS = st.sampled_from(["create", "complete"])


def series(registry: CollectorRegistry) -> set[str]:
    """Without the moments at which series began, which no rule or panel of ours asks for."""
    return {line for line in generate_latest(registry).decode().splitlines() if "_created" not in line}


@given(st.lists(st.tuples(ACTIONS, SECONDS)))
def test_durations_read_as_a_histogram(observed: Sequence[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    durations = Durations("name_seconds", "What it is.", BOUNDS)
    ours.register(durations)
    histogram = Histogram("name_seconds", "What it is.", ["action"], buckets=BOUNDS, registry=theirs)
    for action, seconds in observed:
        durations.observe(action, seconds)
        histogram.labels(action).observe(seconds)
    assert series(ours) == series(theirs)


@given(st.lists(st.tuples(ACTIONS, st.sampled_from(["kafka", 'odd"\n']))))
def test_outcomes_read_as_a_counter(counted: Sequence[tuple[str, str]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    outcomes = Outcomes("name", "What it is.")
    ours.register(outcomes)
    counter = Counter("name", "What it is.", ["action", "outcome"], registry=theirs)
    for action, outcome in counted:
        outcomes.count(action, outcome)
        counter.labels(action, outcome).inc()
    assert series(ours) == series(theirs)
