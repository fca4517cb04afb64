"""The metrics of the services."""

from __future__ import annotations

import pytest

from reference_pages.metrics import (
    approvals_metrics,
    center_metrics,
    edge_metrics,
    reconcile_metrics,
    streams_metrics,
    webhooks_metrics,
)

_ENDINGS = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    """The series of all metrics of edge, spool, worker, task center and webhooks; nothing has to answer."""
    return _series(edge_metrics() + streams_metrics() + center_metrics() + webhooks_metrics())


@pytest.fixture(scope="module")
def reconcile_series() -> set[str]:
    return _series(reconcile_metrics() + approvals_metrics())


def _series(found: list[tuple[str, str, str]]) -> set[str]:
    # A counter also exposes the time since when it counts.
    told = [each for each in found if not each[0].endswith("_created")]
    return {name + ending for name, kind, _ in told for ending in _ENDINGS.get(kind, ("",))}
