"""The page of all metrics, from the registries that the services are scraped from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.testclient import TestClient

from reference_pages.apis import NOWHERE, a_center
from reference_pages.markdown import code, listed, page, prose
from support.edge.fakes import write_credentials
from support.reconcile import local_data
from taskbridge.dingtalk.approvals.app import Metrics as ApprovalsMetrics
from taskbridge.edge.app import create_app
from taskbridge.edge.settings import EdgeSettings
from taskbridge.reconcile.status import Metrics as ReconcileMetrics
from taskbridge.streams.monitoring.metrics import Metrics
from taskbridge.webhooks.metrics import Metrics as WebhooksMetrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric

_INTRODUCTION = """\
Each service serves its metrics at `/metrics`, in Prometheus' text format, together with the usual `process_…` and
`python_gc_…`. Prometheus adds `_total` to the name of a counter, and `_bucket`, `_sum` and `_count` to that of a
histogram. The alerts of the [runbook](../runbook.md) use these metrics."""


def metrics_page() -> str:
    return page(
        "Metrics",
        _INTRODUCTION,
        "## The edge",
        listed(_rows(edge_metrics())),
        "## The streams service",
        listed(_rows(streams_metrics())),
        "## The task center",
        listed(_rows(center_metrics())),
        "## Webhooks",
        listed(_rows(webhooks_metrics())),
        "## Reconcile",
        listed(_rows(reconcile_metrics())),
        "## DingTalk's approvals",
        listed(_rows(approvals_metrics())),
    )


def edge_metrics() -> list[tuple[str, str, str]]:
    """Name, kind and meaning of each; scraped as by Prometheus, from an edge that reaches no Kafka."""
    with tempfile.TemporaryDirectory() as folder:
        credentials = Path(folder, "credentials.toml")
        write_credentials(credentials, "token")
        settings = EdgeSettings.model_validate(
            {**NOWHERE, "credentials_file": credentials, "data_dir": Path(folder, "edge")}
        )
        with TestClient(create_app(settings)) as client:
            return list(_described(client.get("/metrics").text))


def reconcile_metrics() -> list[tuple[str, str, str]]:
    with tempfile.TemporaryDirectory() as folder, local_data(Path(folder)) as data:
        return list(_collected(ReconcileMetrics(data, data.clock).registry.collect()))


def approvals_metrics() -> list[tuple[str, str, str]]:
    return list(_collected(ApprovalsMetrics(lambda: False).registry.collect()))


def streams_metrics() -> list[tuple[str, str, str]]:
    return list(_collected(Metrics().registry.collect()))


def webhooks_metrics() -> list[tuple[str, str, str]]:
    return list(_collected(WebhooksMetrics().registry.collect()))


def center_metrics() -> list[tuple[str, str, str]]:
    with a_center() as center:
        return list(_collected(center.metrics.registry.collect()))


def _collected(families: Iterable[Metric]) -> Iterator[tuple[str, str, str]]:
    for family in families:
        yield family.name, family.type, family.documentation


def _described(text: str) -> Iterator[tuple[str, str, str]]:
    meanings: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, meaning = line.split(" ", 3)
            meanings[name] = meaning
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ", 3)
            yield name.removesuffix("_total") if kind == "counter" else name, kind, meanings[name]


def _rows(found: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    # Of a counter's family there are two in the text: the second is the time since which it counts.
    ours = [each for each in found if each[0].startswith("taskbridge_") and not each[0].endswith("_created")]
    for name, _, meaning in ours:
        if not meaning.strip():
            raise ValueError(f"{name} is not documented")
    return [(f"{code(name)} ({kind})", prose(meaning)) for name, kind, meaning in sorted(ours)]
