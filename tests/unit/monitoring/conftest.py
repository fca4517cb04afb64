"""The metrics of the services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reference_pages.metrics import metrics as metrics_by_service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reference_pages.metrics import Described

_ENDINGS = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


@pytest.fixture(scope="session")
def metrics() -> set[str]:
    """The series of all metrics of all services; nothing has to answer."""
    return {name for found in metrics_by_service().values() for name in _series(found)}


def _series(found: Iterable[Described]) -> set[str]:
    # A counter also exposes the time since when it counts.
    told = [each for each in found if not each.name.endswith("_created")]
    return {each.name + ending for each in told for ending in _ENDINGS.get(each.kind, ("",))}
