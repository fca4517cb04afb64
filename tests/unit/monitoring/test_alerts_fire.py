"""Each alert fires on its outage, computed from real metrics; no other alert fires, and none before."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from reference_pages.apis import a_center
from support.alerts import ALERTS, Outage, firing, series_of
from support.edge.client import EdgeClient
from support.edge.fakes import APP_TYPE, CORP_ID, SYSTEM_TOKEN, write_credentials
from support.reconcile import local_data
from taskbridge.dingtalk.approvals.app import Metrics as ApprovalsMetrics
from taskbridge.edge.app import create_app
from taskbridge.edge.settings import EdgeSettings
from taskbridge.edge.verification.credentials import fingerprint
from taskbridge.landing.app import PREFIX
from taskbridge.reconcile.status import Metrics as ReconcileMetrics
from taskbridge.runtime.follow.follower import FollowerHealth, PartitionHealth
from taskbridge.runtime.follow.metrics import FollowerCollector
from taskbridge.schemas.topics import TASK_STATES
from taskbridge.streams.monitoring.metrics import Metrics
from taskbridge.streams.monitoring.progress import Snapshot
from taskbridge.webhooks.metrics import Metrics as WebhooksMetrics
from taskbridge.webhooks.store import Waiting

if TYPE_CHECKING:
    from collections.abc import Mapping

EDGE, STREAMS, CENTER, WEBHOOKS, RECONCILE, APPROVALS, LAND = (
    f"taskbridge-{part}" for part in ("edge", "streams", "center", "webhooks", "reconcile", "approvals", "land")
)
DAY = 24 * 60
PARTITIONS = 12


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[str, float]]:
    """What an edge with its spool, a worker and a task center expose while nothing is wrong."""
    folder = tmp_path_factory.mktemp("edge")
    write_credentials(folder / "credentials.toml", SYSTEM_TOKEN)
    settings = EdgeSettings(
        kafka_bootstrap_servers="127.0.0.1:1",
        schema_registry_url="http://127.0.0.1:1",
        credentials_file=folder / "credentials.toml",
        data_dir=folder / "edge",
    )
    with EdgeClient(create_app(settings)) as client:
        # One callback of each action, for the histograms.
        client.post("/yida/tasks/create", data={})
        edge = series_of(client.get("/metrics").text, job=EDGE)
    metrics = Metrics()
    each = dict.fromkeys(range(PARTITIONS), 0)
    now = Snapshot(
        active=[*range(PARTITIONS)],
        standby=[0],
        lag=each,
        lag_seconds=dict.fromkeys(each, 0.0),
        restoring=each,
        standby_lag={0: 0},
    )
    metrics.partitions.set(PARTITIONS)
    metrics.progress(now, rebalances=3)
    streams = series_of(generate_latest(metrics.registry).decode(), job=STREAMS)
    # This edge reaches no Kafka.
    for name in ("kafka_up", "kafka_usable", "registry_up"):
        told, _ = edge[f"taskbridge_edge_{name}"]
        edge[f"taskbridge_edge_{name}"] = (told, 1)
    # What no test changes and is one of hundreds alike, such as a reason's counter, would only take time.
    used = {name for each in OUTAGES.values() for name in (*each.values, *each.rises, *each.rates)}
    told_by = edge, streams, center_series(), webhooks_series(), reconcile_series(), approvals_series(), land_series()
    return {told: rest for each in told_by for told, rest in each.items() if "{" not in told or told in used}


def center_series() -> dict[str, tuple[str, float]]:
    """What a task center exposes whose followers write, and whose queries are answered."""
    with a_center() as center:
        cast("Any", center).followers = [SimpleNamespace(health=lambda: well_followed("lists"))]
        center.metrics.filled.set_function(lambda: 1)
        center.metrics.reminders.labels("email", "digest", "given_up")
        for status in (200, 503):
            center.metrics.queries.labels("/v1/tasks", status).observe(0.01)
        return series_of(generate_latest(center.metrics.registry).decode(), job=CENTER)


def well_followed(group: str) -> FollowerHealth:
    followed, counts = PartitionHealth(TASK_STATES.name, 0, 7, 7, complete=True), {TASK_STATES.name: 7}
    return FollowerHealth(group, problem=None, partitions=(followed,), records=counts,
                          skipped={TASK_STATES.name: 0}, retries=0, last_commit_at=1)  # fmt: skip


def land_series() -> dict[str, tuple[str, float]]:
    """What land exposes whose followers write."""
    registry = CollectorRegistry()
    registry.register(FollowerCollector(PREFIX, lambda: [well_followed("names"), well_followed("values")]))
    return series_of(generate_latest(registry).decode(), job=LAND)


def webhooks_series() -> dict[str, tuple[str, float]]:
    """What webhooks expose of an endpoint for which nothing waits."""
    metrics = WebhooksMetrics()
    metrics.state("erp", Waiting(), disabled=False)
    metrics.attempts.labels("erp", "given_up")
    return series_of(generate_latest(metrics.registry).decode(), job=WEBHOOKS)


def reconcile_series() -> dict[str, tuple[str, float]]:
    """What reconcile tells of an app whose last callback came, and of which nothing is missing since."""
    with tempfile.TemporaryDirectory() as folder, local_data(Path(folder)) as data:
        data.store.callbacks.watch(CORP_ID, APP_TYPE, now_ms=data.clock.now_ms())
        return series_of(generate_latest(ReconcileMetrics(data, data.clock).registry).decode(), job=RECONCILE)


def approvals_series() -> dict[str, tuple[str, float]]:
    """What the service for DingTalk's approvals exposes while it is connected."""
    metrics = ApprovalsMetrics(lambda: True, lambda: 0)
    return series_of(generate_latest(metrics.registry).decode(), job=APPROVALS)


def callbacks(outcome: str, action: str = "complete") -> str:
    return f'taskbridge_edge_callbacks_total{{action="{action}",outcome="{outcome}"}}'


def bucket(upper: str) -> str:
    return f'taskbridge_edge_callback_seconds_bucket{{action="create",le="{upper}"}}'


def query(status: int, name: str = "count", rest: str = "") -> str:
    return f'taskbridge_center_query_seconds_{name}{{{rest}route="/v1/tasks",status="{status}"}}'


def outage(*alerts: str, minutes: int = 5, slow: bool = False, **changes: Mapping[str, float]) -> Outage:
    return Outage(frozenset(alerts), minutes, slow=slow, **changes)


EDGE_GAUGE, STREAMS_GAUGE, CENTER_GAUGE = "taskbridge_edge_", "taskbridge_streams_", "taskbridge_center_"
GIVEN_UP = CENTER_GAUGE + 'reminders_total{channel="email",kind="digest",result="given_up"}'
TOKEN = (
    f'taskbridge_edge_token_last_used_seconds{{app_type="{APP_TYPE}",token="{fingerprint(APP_TYPE, SYSTEM_TOKEN)}"}}'
)
RECREATED = "recreated"
OUTAGES = {
    "an edge is gone": outage("EdgeDown", values={f'up{{job="{EDGE}"}}': 0}),
    "one callback was answered 503": outage("EdgeCallbacksLost", minutes=3, rises={callbacks("not-durable"): 1}),
    "one callback was larger than Kafka takes": outage(
        "EdgeCallbacksLost", minutes=3, rises={callbacks("record-size"): 1}
    ),
    "one callback went to a wrong path": outage(
        "EdgeCallbacksNotTaken", rises={callbacks("unknown-path", "unknown"): 1}
    ),
    "Kafka is away": outage("EdgeKafkaDown", values={EDGE_GAUGE + "kafka_up": 0}),
    "Kafka refuses a partition": outage(
        "EdgePartitionsRefuse",
        minutes=8,
        values={EDGE_GAUGE + 'kafka_failing_partitions{topic="taskbridge.task-events.v1"}': 1},
    ),
    "the registry was never reached": outage("EdgeRegistryUnknown", values={EDGE_GAUGE + "registry_up": 0}),
    "the spool does not empty": outage(
        "EdgeSpoolNotDraining",
        minutes=8,
        values={EDGE_GAUGE + "spool_depth": 10, EDGE_GAUGE + "spool_oldest_seconds": 900},
    ),
    "the spool fills up": outage("EdgeSpoolFillsUp", values={EDGE_GAUGE + "spool_bytes": 0.8 * 2**30}),
    "the spool is full": outage("EdgeSpoolFull", values={EDGE_GAUGE + "spool_full": 1}),
    "the disk is broken": outage("EdgeSpoolBroken", values={EDGE_GAUGE + "spool_broken": 1}),
    "the disk was broken for a moment": outage("EdgeSpoolBroken", rises={EDGE_GAUGE + "spool_failures_total": 1}),
    "a spool file does not open": outage("EdgeSpoolUnopened", values={EDGE_GAUGE + "spool_unopened_files": 1}),
    "a record cannot be delivered": outage("EdgeSpoolSetAside", rises={EDGE_GAUGE + "spool_set_aside_total": 1}),
    "the credentials file was broken": outage("EdgeCredentialsBroken", values={EDGE_GAUGE + "credentials_broken": 1}),
    "no app is known": outage("EdgeWithoutApps", values={EDGE_GAUGE + "credentials_apps": 0}),
    "a token was rotated at the sender": outage(
        "EdgeCallbacksUnverified", minutes=8, rates={callbacks("wrong-sign"): 2}
    ),
    "a rejected callback waits": outage(
        "EdgeQuarantineGrows", rises={'taskbridge_edge_quarantine_total{outcome="kept",reason="wrong-sign"}': 1}
    ),
    "callbacks are slow": outage(
        "EdgeSlow", minutes=20, rates={bucket("5.0"): 60, bucket("10.0"): 60, bucket("+Inf"): 60}
    ),
    "somebody holds all connections": outage(
        "EdgeConnectionsRefused",
        minutes=12,
        rates={'taskbridge_edge_connections_refused_total{reason="too-many-connections"}': 30},
    ),
    "the sender is silent": outage("EdgeCallbacksMissing", minutes=4 * DAY, slow=True),
    "a retired token is still configured": outage(
        "EdgeTokenUnused", minutes=31 * DAY, values={TOKEN: 60}, rates={callbacks("kafka"): 0.01}, slow=True
    ),
    "an app's connector is dead": outage(
        "ReconcileAppSilent",
        values={f'taskbridge_reconcile_missing_since_callback{{app_type="{APP_TYPE}",corp_id="{CORP_ID}"}}': 3},
    ),
    "DingTalk refuses the connection": outage("ApprovalsNotReceived", values={"taskbridge_approvals_connected": 0}),
    "the service for approvals is gone": outage("ApprovalsNotReceived", values={f'up{{job="{APPROVALS}"}}': 0}),
    "the database of land is away": outage(
        "LandNotFollowing", minutes=15, values={PREFIX + 'follower_running{group="values"}': 0}
    ),
    "land is gone": outage("LandNotFollowing", minutes=15, values={f'up{{job="{LAND}"}}': 0}),
    "a worker is gone": outage("StreamsDown", values={f'up{{job="{STREAMS}"}}': 0}),
    "a topic was lost": outage(
        "StreamsPositionsLost", rises={f'taskbridge_streams_positions_lost_total{{reason="{RECREATED}"}}': 1}
    ),
    "a store is damaged": outage("StreamsStoreDamaged", rises={STREAMS_GAUGE + "damaged_stores_total": 1}),
    "events wait": outage("StreamsLagging", minutes=8, values={STREAMS_GAUGE + 'lag_seconds{partition="3"}': 90}),
    "a worker took no partitions": outage(
        "StreamsPartitionsUnowned", values={STREAMS_GAUGE + 'assigned_partitions{role="active"}': PARTITIONS - 1}
    ),
    "a worker stalled": outage("StreamsStalled", rises={STREAMS_GAUGE + "watchdog_total": 1}),
    "partitions keep moving": outage("StreamsRebalancing", minutes=12, rates={STREAMS_GAUGE + "rebalances": 2}),
    "tables are restored for long": outage(
        "StreamsRecoverySlow", minutes=15, values={STREAMS_GAUGE + 'recovery_remaining_records{partition="0"}': 1e6}
    ),
    "a standby is behind": outage(
        "StreamsStandbyBehind", minutes=15, values={STREAMS_GAUGE + 'standby_lag_records{partition="0"}': 200_000}
    ),
    "a record was parked": outage(
        "StreamsDeadLetters", rises={'taskbridge_streams_dead_letters_total{reason="undecodable"}': 1}
    ),
    "a task center is gone": outage("CenterDown", values={f'up{{job="{CENTER}"}}': 0}),
    "the database is away from the followers": outage(
        "CenterNotFollowing", values={CENTER_GAUGE + 'follower_running{group="lists"}': 0}
    ),
    "lists are behind": outage(
        "CenterLagging",
        minutes=8,
        values={CENTER_GAUGE + f'lag_records{{partition="0",topic="{TASK_STATES.name}"}}': 20_000},
    ),
    "lists are filled for long": outage(
        "CenterFillingLong", minutes=20, values={CENTER_GAUGE + "lists_filled_ratio": 0.5}
    ),
    "a state cannot be read": outage(
        "CenterRecordsSkipped", rises={CENTER_GAUGE + f'skipped_records_total{{topic="{TASK_STATES.name}"}}': 1}
    ),
    "the database is away from queries": outage(
        "CenterDatabaseErrors", minutes=12, rates={CENTER_GAUGE + "database_errors_total": 3}
    ),
    "one query in ten is not answered": outage(
        "CenterQueriesUnanswered", minutes=15, rates={query(200): 90, query(503): 10}
    ),
    "queries are slow": outage(
        "CenterQueriesSlow",
        minutes=20,
        rates={query(200): 60, **{query(200, "bucket", f'le="{upper}",'): 60 for upper in ("2.5", "5.0", "+Inf")}},
    ),
    "webhooks are gone": outage("WebhooksDown", values={f'up{{job="{WEBHOOKS}"}}': 0}),
    "a receiver is gone for good": outage(
        "WebhooksEndpointDisabled", values={'taskbridge_webhooks_endpoint_disabled{endpoint="erp"}': 1}
    ),
    "a receiver fails": outage(
        "WebhooksDeliveriesLate",
        minutes=8,
        values={'taskbridge_webhooks_oldest_waiting_seconds{endpoint="erp"}': 900},
    ),
    "a delivery was given up": outage(
        "WebhooksGivenUp", rises={'taskbridge_webhooks_attempts_total{endpoint="erp",outcome="given_up"}': 1}
    ),
    "the endpoints file was broken": outage(
        "WebhooksEndpointsBroken", values={"taskbridge_webhooks_endpoints_usable": 0}
    ),
    "the tokens file was broken": outage("CenterTokensBroken", values={CENTER_GAUGE + "api_tokens_usable": 0}),
    "the reminders file was broken": outage(
        "CenterRemindersBroken", values={CENTER_GAUGE + "reminders_file_usable": 0}
    ),
    "a mail server refuses for hours": outage("CenterRemindersNotSent", rises={GIVEN_UP: 1}),
}


@pytest.mark.parametrize("name", OUTAGES)
def test_an_alert_fires_on_its_outage_and_no_other_does(
    name: str, well: Mapping[str, tuple[str, float]], tmp_path: Path
) -> None:
    outage = OUTAGES[name]
    # Weeks of the series of all services would take ten times as long as those of the one that is concerned.
    own = {each: rest for each, rest in well.items() if not outage.slow or each.startswith(("up{", EDGE_GAUGE))}
    assert firing(own, outage, tmp_path) == ""


def test_every_alert_has_an_outage() -> None:
    assert {alert for each in OUTAGES.values() for alert in each.alerts} == ALERTS


def test_all_is_well_for_days(well: Mapping[str, tuple[str, float]], tmp_path: Path) -> None:
    quiet = outage(minutes=4 * DAY, slow=True, rates={callbacks("kafka"): 0.01})
    assert firing(well, quiet, tmp_path) == ""
