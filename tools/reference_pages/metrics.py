"""The page of all metrics, from the registries that the services are scraped from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from reference_pages.apis import NOWHERE, a_center
from reference_pages.markdown import code, listed, page, prose
from support.edge.fakes import write_credentials
from support.reconcile import local_data
from taskbridge.dingtalk.approvals.app import Metrics as ApprovalsMetrics
from taskbridge.edge.app import create_app
from taskbridge.edge.monitoring import Metrics as EdgeMetrics
from taskbridge.edge.settings import EdgeSettings
from taskbridge.landing.app import PREFIX as LAND_PREFIX
from taskbridge.landing.app import Metrics as LandMetrics
from taskbridge.reconcile.status import Metrics as ReconcileMetrics
from taskbridge.runtime.follow.metrics import FollowerCollector
from taskbridge.streams.monitoring.metrics import Metrics
from taskbridge.webhooks.metrics import Metrics as WebhooksMetrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client import CollectorRegistry, Metric

_INTRODUCTION = """\
Each service serves its metrics at `/metrics`, in Prometheus' text format, together with the usual `process_…` and
`python_gc_…`. Prometheus adds `_total` to the name of a counter, and `_bucket`, `_sum` and `_count` to that of a
histogram. The alerts of the [runbook](../runbook.md) use these metrics."""


EDGE, STREAMS, CENTER = "The edge", "The streams service", "The task center"


class Described(NamedTuple):
    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def metrics_page() -> str:
    parts = [part for heading, found in metrics().items() for part in (f"## {heading}", listed(map(_row, ours(found))))]
    return page("Metrics", _INTRODUCTION, *parts)


def metrics() -> Mapping[str, list[Described]]:
    """Those of each service, by its heading on the page, with those of its process."""
    return {
        EDGE: _edge(),
        STREAMS: list(_collected(Metrics().registry)),
        CENTER: _center(),
        "Webhooks": list(_collected(WebhooksMetrics().registry)),
        "Reconcile": _reconcile(),
        "Land": _land(),
        "DingTalk's approvals": list(_collected(ApprovalsMetrics(lambda: False, lambda: 0).registry)),
    }


def _land() -> list[Described]:
    found = LandMetrics()
    found.registry.register(FollowerCollector(LAND_PREFIX, list))
    return list(_collected(found.registry))


def ours(found: Iterable[Described]) -> list[Described]:
    """Those without its process, by name."""
    # Of a counter's family there are two in the text: the second is the time since which it counts.
    named = [each for each in found if each.name.startswith("taskbridge_") and not each.name.endswith("_created")]
    for each in named:
        if not each.meaning.strip():
            raise ValueError(f"{each.name} is not documented")
    return sorted(named)


def _edge() -> list[Described]:
    """The text has no labels of what has counted nothing: those are the registry's."""
    labels = {each.name: each.labels for each in _collected(EdgeMetrics().registry)}
    scraped = _described(text_string_to_metric_families(_edge_text()))
    return [each._replace(labels=labels.get(each.name) or each.labels) for each in scraped]


def _edge_text() -> str:
    """As Prometheus scrapes it, from an edge that reaches no Kafka."""
    with tempfile.TemporaryDirectory() as folder:
        credentials = Path(folder, "credentials.toml")
        write_credentials(credentials, "token")
        settings = EdgeSettings.model_validate(
            {**NOWHERE, "credentials_file": credentials, "data_dir": Path(folder, "edge")}
        )
        with TestClient(create_app(settings)) as client:
            return client.get("/metrics").text


def _center() -> list[Described]:
    with a_center() as center:
        return list(_collected(center.metrics.registry))


def _reconcile() -> list[Described]:
    with tempfile.TemporaryDirectory() as folder, local_data(Path(folder)) as data:
        return list(_collected(ReconcileMetrics(data, data.clock).registry))


def _collected(registry: CollectorRegistry) -> Iterator[Described]:
    # A metric that has counted nothing has no series, which would have its labels.
    for collector in [*registry._collector_to_names]:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - see above
        yield from _described(collector.collect(), getattr(collector, "_labelnames", ()))


def _described(families: Iterable[Metric], labels: Iterable[str] = ()) -> Iterator[Described]:
    for family in families:
        named = (
            labels or getattr(family, "_labelnames", ()) or {name for each in family.samples for name in each.labels}
        )
        yield Described(family.name, family.type, tuple(sorted({*named} - {"le"})), family.documentation)


def _row(found: Described) -> tuple[str, str]:
    by = f" by {', '.join(map(code, found.labels))}" if found.labels else ""
    return f"{code(found.name)} ({found.kind}{by})", prose(found.meaning)
