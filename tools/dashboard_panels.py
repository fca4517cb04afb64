"""The panels of Grafana's dashboards: see tools/dashboards.py."""

from __future__ import annotations

from typing import NamedTuple


class Panel(NamedTuple):
    """A graph over time; with ``stat`` one number, red from ``bad`` on."""

    title: str
    queries: dict[str, str]
    """PromQL by legend; ``{{label}}`` in a legend is that label's value."""
    unit: str = "short"
    stat: bool = False
    bad: float | None = None
    description: str = ""
    stacked: bool = False


class Dashboard(NamedTuple):
    """One file. A row has its panels side by side."""

    uid: str
    title: str
    job: str
    rows: dict[str, list[Panel]]


def _rate(metric: str, by: str = "", where: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{_where(where)}[$__rate_interval]))"


def _quantile(share: float, histogram: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{_where('')}[$__rate_interval])))"


def _now(metric: str, by: str = "", how: str = "sum", where: str = "") -> str:
    return f"{how}{f' by ({by})' if by else ''} ({metric}{_where(where)})"


def _gained(metric: str, by: str = "", where: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (increase({metric}{_where(where)}[$__range]))"


def _where(more: str) -> str:
    return "{" + ",".join(filter(None, ('instance=~"$instance"', more))) + "}"


def _times(histogram: str, by: str = "") -> dict[str, str]:
    name = f"{{{{{by}}}}} " if by else ""
    return {f"{name}50 %": _quantile(0.5, histogram, by), f"{name}99 %": _quantile(0.99, histogram, by)}


def _process() -> list[Panel]:
    return [
        Panel("CPU", {"{{instance}}": _rate("process_cpu_seconds_total", "instance")}, "percentunit"),
        Panel("Memory", {"{{instance}}": _now("process_resident_memory_bytes", "instance")}, "bytes"),
        Panel("Open files", {"{{instance}}": _now("process_open_fds", "instance")}),
    ]


_EDGE = "taskbridge_edge_"
_LOST = 'outcome=~"not-durable|overloaded|error|record-size"'
_TAKEN = 'outcome=~"kafka|spool"'
_SPOOL_BYTES = _now(f"{_EDGE}spool_bytes", "instance", "max")
_SPOOL_MOST = _now(f"{_EDGE}spool_max_bytes", "instance", "max")
_TOKEN_USED = _now(f"{_EDGE}token_last_used_seconds", "app_type, token", "max")
EDGE = Dashboard(
    "taskbridge-edge",
    "taskbridge: edge",
    "taskbridge-edge",
    {
        "Losses": [
            Panel("Accepted", {"": _gained(f"{_EDGE}callbacks_total", where=_TAKEN)}, stat=True),
            Panel(
                "Lost (5xx responses)",
                {"": _gained(f"{_EDGE}callbacks_total", where=_LOST)},
                stat=True,
                bad=1,
                description="Yida does not send these callbacks again.",
            ),
            Panel("Rejected", {"": _gained(f"{_EDGE}quarantine_total")}, stat=True, bad=1),
            Panel("Kafka unreachable", {"": f"1 - {_now(f'{_EDGE}kafka_up', how='min')}"}, stat=True, bad=1),
            Panel("Records in the spool", {"": _now(f"{_EDGE}spool_depth", "instance", "max")}, stat=True, bad=1),
            Panel(
                "Spool usage",
                {"": f"max({_SPOOL_BYTES} / {_SPOOL_MOST})"},
                "percentunit",
                stat=True,
                bad=0.7,
            ),
        ],
        "Callbacks": [
            Panel(
                "By action", {"{{action}}": _rate(f"{_EDGE}callbacks_total", "action", _TAKEN)}, "reqps", stacked=True
            ),
            Panel(
                "By outcome",
                {"{{outcome}}": f"{_rate(f'{_EDGE}callbacks_total', 'outcome')} > 0"},
                "reqps",
                stacked=True,
            ),
            Panel("Response time", _times(f"{_EDGE}callback_seconds"), "s"),
            Panel(
                "Rejected by reason",
                {"{{reason}} {{outcome}}": f"{_rate(f'{_EDGE}quarantine_total', 'reason, outcome')} > 0"},
                "reqps",
            ),
        ],
        "Durations": [
            Panel("Verification", _times(f"{_EDGE}verify_seconds"), "s"),
            Panel("Durable write", _times(f"{_EDGE}publish_seconds"), "s"),
            Panel("Spool commit", _times(f"{_EDGE}spool_commit_seconds"), "s"),
            Panel("Records per commit", _times(f"{_EDGE}spool_commit_records")),
        ],
        "Kafka and spool": [
            Panel(
                "Availability",
                {
                    "Kafka {{instance}}": _now(f"{_EDGE}kafka_up", "instance", "min"),
                    "accepts records {{instance}}": _now(f"{_EDGE}kafka_usable", "instance", "min"),
                    "registry {{instance}}": _now(f"{_EDGE}registry_up", "instance", "min"),
                },
            ),
            Panel(
                "Failing partitions",
                {"{{topic}} {{instance}}": _now(f"{_EDGE}kafka_failing_partitions", "instance, topic", "max")},
            ),
            Panel(
                "Spool contents",
                {
                    "records {{instance}}": _now(f"{_EDGE}spool_depth", "instance", "max"),
                    "set aside {{instance}}": _now(f"{_EDGE}spool_set_aside_records", "instance", "max"),
                    "files not opened {{instance}}": _now(f"{_EDGE}spool_unopened_files", "instance", "max"),
                },
            ),
            Panel(
                "Oldest record in the spool",
                {"{{instance}}": _now(f"{_EDGE}spool_oldest_seconds", "instance", "max")},
                "s",
            ),
        ],
        "Disk": [
            Panel(
                "Spool size",
                {
                    "{{instance}}": _now(f"{_EDGE}spool_bytes", "instance", "max"),
                    "maximum {{instance}}": _now(f"{_EDGE}spool_max_bytes", "instance", "max"),
                },
                "bytes",
            ),
            Panel(
                "Delivered from the spool", {"{{instance}}": _rate(f"{_EDGE}spool_drained_total", "instance")}, "reqps"
            ),
            Panel(
                "Spool errors",
                {
                    "errors": _gained(f"{_EDGE}spool_failures_total"),
                    "damaged files": _gained(f"{_EDGE}spool_damaged_files_total"),
                    "damaged records": _gained(f"{_EDGE}spool_damaged_records_total"),
                    "set aside": _gained(f"{_EDGE}spool_set_aside_total"),
                },
            ),
            Panel(
                "Spool and replay window problems",
                {
                    "broken {{instance}}": _now(f"{_EDGE}spool_broken", "instance", "max"),
                    "full {{instance}}": _now(f"{_EDGE}spool_full", "instance", "max"),
                    "window unusable {{instance}}": f"1 - {_now(f'{_EDGE}replay_window_usable', 'instance', 'min')}",
                },
            ),
        ],
        "Clients and credentials": [
            Panel("Connections", {"{{instance}}": _now(f"{_EDGE}connections", "instance")}),
            Panel(
                "Refused connections",
                {"{{reason}}": f"{_rate(f'{_EDGE}connections_refused_total', 'reason')} > 0"},
                "reqps",
            ),
            Panel(
                "Time since a token was used",
                {"{{app_type}} {{token}}": f"time() - {_TOKEN_USED} < 1e9"},
                "s",
            ),
            Panel(
                "Credentials",
                {
                    "apps {{instance}}": _now(f"{_EDGE}credentials_apps", "instance", "max"),
                    "broken {{instance}}": _now(f"{_EDGE}credentials_broken", "instance", "max"),
                },
            ),
            Panel("Fields that could not be parsed", {"{{field}}": _rate(f"{_EDGE}left_out_total", "field")}, "reqps"),
        ],
        "Processes": _process(),
    },
)

_STREAMS = "taskbridge_streams_"
_OWNED = _now(f"{_STREAMS}assigned_partitions", where='role="active"')
STREAMS = Dashboard(
    "taskbridge-streams",
    "taskbridge: streams",
    "taskbridge-streams",
    {
        "Lag and failures": [
            Panel("Event lag", {"": _now(f"{_STREAMS}lag_records")}, stat=True),
            Panel("Event lag in seconds", {"": _now(f"{_STREAMS}lag_seconds", how="max")}, "s", stat=True, bad=60),
            Panel(
                "Partitions without a worker",
                {"": f"{_now(f'{_STREAMS}partitions', how='max')} - {_OWNED}"},
                stat=True,
                bad=1,
            ),
            Panel("Dead letters", {"": _gained(f"{_STREAMS}dead_letters_total")}, stat=True, bad=1),
            Panel("Positions lost", {"": _now(f"{_STREAMS}positions_lost_total")}, stat=True, bad=1),
            Panel("Stalled workers", {"": _gained(f"{_STREAMS}watchdog_total")}, stat=True, bad=1),
        ],
        "Throughput and lag": [
            Panel(
                "Events",
                {"processed": _rate(f"{_STREAMS}records_total"), "folded": _rate(f"{_STREAMS}folds_total")},
                "reqps",
            ),
            Panel(
                "Notifications",
                {"{{view}} {{change}}": _rate(f"{_STREAMS}notifications_total", "view, change")},
                "reqps",
                stacked=True,
            ),
            Panel("Lag by partition", {"{{partition}}": _now(f"{_STREAMS}lag_records", "partition")}),
            Panel(
                "Lag in seconds by partition",
                {"{{partition}}": _now(f"{_STREAMS}lag_seconds", "partition", "max")},
                "s",
            ),
        ],
        "Chunks": [
            Panel("Time per chunk", _times(f"{_STREAMS}chunk_seconds"), "s"),
            Panel("Records per chunk", _times(f"{_STREAMS}chunk_records")),
            Panel(
                "Dead letters by reason",
                {"{{reason}}": f"{_rate(f'{_STREAMS}dead_letters_total', 'reason')} > 0"},
                "reqps",
            ),
            Panel("Position", {"{{partition}}": _now(f"{_STREAMS}position", "partition", "max")}),
        ],
        "Partitions and recovery": [
            Panel(
                "Partitions",
                {"{{role}} {{instance}}": _now(f"{_STREAMS}assigned_partitions", "role, instance")},
                stacked=True,
            ),
            Panel("Rebalances", {"{{instance}}": _now(f"{_STREAMS}rebalances", "instance")}),
            Panel(
                "Records to restore",
                {
                    "tables {{instance}}": _now(f"{_STREAMS}recovery_remaining_records", "instance"),
                    "standbys {{instance}}": _now(f"{_STREAMS}standby_lag_records", "instance"),
                },
            ),
            Panel(
                "Restored records",
                {
                    "per second {{instance}}": _now(f"{_STREAMS}recovery_records_per_second", "instance"),
                    "total {{instance}}": _now(f"{_STREAMS}recovery_records", "instance"),
                },
            ),
            Panel(
                "Damaged stores and lost positions",
                {
                    "stores": _now(f"{_STREAMS}damaged_stores_total"),
                    "{{reason}}": _now(f"{_STREAMS}positions_lost_total", "reason"),
                },
            ),
        ],
        "Processes": _process(),
    },
)


_CENTER = "taskbridge_center_"
_UNANSWERED = _rate(f"{_CENTER}query_seconds_count", where='status=~"5.."')
TASK_CENTER = Dashboard(
    "taskbridge-task-center",
    "taskbridge: task center",
    "taskbridge-center",
    {
        "Overview": [
            Panel("Queries", {"": _rate(f"{_CENTER}query_seconds_count")}, "reqps", stat=True),
            Panel("99th percentile", {"": _quantile(0.99, f"{_CENTER}query_seconds")}, "s", stat=True, bad=0.5),
            Panel(
                "Error rate (5xx)",
                {"": f"({_UNANSWERED} or vector(0)) / {_rate(f'{_CENTER}query_seconds_count')}"},
                "percentunit",
                stat=True,
                bad=0.02,
            ),
            Panel("Live connections", {"": _now(f"{_CENTER}sse_connections")}, stat=True),
            Panel("Lag", {"": _now(f"{_CENTER}lag_records")}, stat=True, bad=10_000),
            Panel("Lists filled", {"": _now(f"{_CENTER}lists_filled_ratio", how="min")}, "percentunit", stat=True),
            Panel(
                "Tokens file invalid",
                {"": f"1 - {_now(f'{_CENTER}api_tokens_usable', how='min')}"},
                stat=True,
                bad=1,
            ),
        ],
        "Queries": [
            Panel("By route", {"{{route}}": _rate(f"{_CENTER}query_seconds_count", "route")}, "reqps", stacked=True),
            Panel("By status", {"{{status}}": _rate(f"{_CENTER}query_seconds_count", "status")}, "reqps", stacked=True),
            Panel("99th percentile by route", {"{{route}}": _quantile(0.99, f"{_CENTER}query_seconds", "route")}, "s"),
        ],
        "Topics": [
            Panel("Records written", {"{{topic}}": _rate(f"{_CENTER}records_total", "topic")}, "reqps", stacked=True),
            Panel("Lag by topic", {"{{topic}}": _now(f"{_CENTER}lag_records", "topic")}),
            Panel(
                "Since the last batch",
                {"{{group}} {{instance}}": _now(f"{_CENTER}last_commit_age_seconds", "group, instance", "max")},
                "s",
            ),
            Panel(
                "Followers that write",
                {"{{group}} {{instance}}": _now(f"{_CENTER}follower_running", "group, instance", "min")},
            ),
        ],
        "Errors": [
            Panel("Records skipped", {"{{topic}}": _gained(f"{_CENTER}skipped_records_total", "topic")}),
            Panel("Database errors", {"{{instance}}": _gained(f"{_CENTER}database_errors_total", "instance")}),
            Panel("Batches repeated", {"{{group}}": _gained(f"{_CENTER}follower_retries_total", "group")}),
        ],
        "Decisions and reminders": [
            Panel("Decisions by result", {"{{result}}": _gained(f"{_CENTER}actions_total", "result")}),
            Panel(
                "Reminders by channel and result",
                {"{{channel}} {{result}}": _gained(f"{_CENTER}reminders_total", "channel, result")},
            ),
            Panel(
                "Reminders file invalid",
                {"{{instance}}": f"1 - {_now(f'{_CENTER}reminders_file_usable', 'instance', 'min')}"},
            ),
        ],
        "Live updates": [
            Panel("Open", {"{{instance}}": _now(f"{_CENTER}sse_connections", "instance")}),
            Panel("Changes sent", {"{{instance}}": _rate(f"{_CENTER}sse_sent_total", "instance")}, "reqps"),
            Panel("Closed by the center", {"{{reason}}": _rate(f"{_CENTER}sse_cut_total", "reason")}, "reqps"),
        ],
        "Processes": _process(),
    },
)

_WEBHOOKS = "taskbridge_webhooks_"
_DELIVERED = "taskbridge_webhooks_delivery_seconds"
WEBHOOKS = Dashboard(
    "taskbridge-webhooks",
    "taskbridge: webhooks",
    "taskbridge-webhooks",
    {
        "Overview": [
            Panel("Deliveries", {"": _rate(f"{_DELIVERED}_count")}, "reqps", stat=True),
            Panel("99th percentile", {"": _quantile(0.99, _DELIVERED)}, "s", stat=True),
            Panel("Waiting", {"": _now(f"{_WEBHOOKS}waiting_deliveries", how="max")}, stat=True),
            Panel("Endpoints disabled", {"": _now(f"{_WEBHOOKS}endpoint_disabled", how="max")}, stat=True, bad=1),
            Panel(
                "Endpoints file invalid",
                {"": f"1 - {_now(f'{_WEBHOOKS}endpoints_usable', how='min')}"},
                stat=True,
                bad=1,
            ),
        ],
        "By endpoint": [
            Panel(
                "Attempts",
                {"{{endpoint}} {{outcome}}": _rate(f"{_WEBHOOKS}attempts_total", "endpoint, outcome")},
                "reqps",
            ),
            Panel("99th percentile", {"{{endpoint}}": _quantile(0.99, _DELIVERED, "endpoint")}, "s"),
            Panel("Waiting", {"{{endpoint}}": _now(f"{_WEBHOOKS}waiting_deliveries", "endpoint", "max")}),
            Panel("Oldest", {"{{endpoint}}": _now(f"{_WEBHOOKS}oldest_waiting_seconds", "endpoint", "max")}, "s"),
        ],
        "Processes": _process(),
    },
)

_RECONCILE, _APPROVALS = "taskbridge_reconcile_", "taskbridge_approvals_"

RECONCILE = Dashboard(
    "taskbridge-reconcile",
    "taskbridge: reconcile",
    "taskbridge-(reconcile|approvals)",
    {
        "Missing callbacks": [
            Panel(
                "Most events missing since an app's last callback",
                {"": _now(f"{_RECONCILE}missing_since_callback", how="max")},
                stat=True,
                bad=3,
                description="More than two: the app's connector has probably failed.",
            ),
            Panel("Repairs", {"": _gained(f"{_RECONCILE}repairs_total")}, stat=True),
            Panel(
                "Time since the last complete pass",
                {"": _now(f"{_RECONCILE}last_whole_pass_age_seconds", how="max")},
                "s",
                stat=True,
            ),
            Panel("Calls left today", {"": _now(f"{_RECONCILE}calls_left", how="min")}, stat=True),
            Panel("Instances missing once", {"": _now(f"{_RECONCILE}absences")}, stat=True),
        ],
        "By app": [
            Panel(
                "Events missing since the last callback",
                {"{{app_type}}": _now(f"{_RECONCILE}missing_since_callback", "app_type", "max")},
            ),
            Panel(
                "Time since the last callback",
                {"{{app_type}}": f"time() - {_now(f'{_RECONCILE}last_callback_seconds', 'app_type', 'max')}"},
                "s",
            ),
            Panel(
                "Repairs",
                {"{{app_type}} {{kind}} ({{work}})": _gained(f"{_RECONCILE}repairs_total", "app_type, kind, work")},
            ),
        ],
        "DingTalk": [
            Panel("Calls", {"{{api}}": _gained(f"{_RECONCILE}calls_total", "api")}, stacked=True),
            Panel("Results of calls", {"{{answer}}": _gained(f"{_RECONCILE}calls_total", "answer")}, stacked=True),
            Panel("Calls left today", {"{{corp_id}}": _now(f"{_RECONCILE}calls_left", "corp_id", "min")}),
        ],
        "DingTalk's own approvals": [
            Panel("Events", {"{{type}} {{outcome}}": _gained(f"{_APPROVALS}events_total", "type, outcome")}),
            Panel("Connections", {"": _now(f"{_APPROVALS}connected")}),
        ],
        "Apps and names": [
            Panel(
                "Apps at the last sync",
                {"{{state}}": _now(f"{_RECONCILE}apps", "state")},
                description="Absent: in the credentials file, but no longer in DingTalk's list.",
            ),
            Panel(
                "Time since apps were synced",
                {"{{corp_id}}": _now(f"{_RECONCILE}last_apps_sync_age_seconds", "corp_id", "max")},
                "s",
            ),
            Panel("Names", {"{{kind}} {{record}}": _now(f"{_RECONCILE}names", "kind, record")}, stacked=True),
        ],
    },
)

DASHBOARDS = (EDGE, STREAMS, TASK_CENTER, WEBHOOKS, RECONCILE)
