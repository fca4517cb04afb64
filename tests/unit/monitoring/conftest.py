"""What there is to be watched."""

from __future__ import annotations

import pytest

from reference_pages.metrics import edge_metrics, streams_metrics

_ENDINGS = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    """The series of all metrics of an edge, with its spool, and of a worker; nothing needs to answer for that."""
    # A counter tells beside its figure since when it counts.
    found = [each for each in edge_metrics() + streams_metrics() if not each[0].endswith("_created")]
    return {name + ending for name, kind, _ in found for ending in _ENDINGS.get(kind, ("",))}
