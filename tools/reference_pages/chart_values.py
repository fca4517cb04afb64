"""The settings that a user of the Helm chart may give, in the schema of its values; the rest of that file stays."""

from __future__ import annotations

import json
from pathlib import Path

from taskbridge.center.settings import settings_class
from taskbridge.dingtalk.approvals.settings import ApprovalsSettings
from taskbridge.edge.settings import EdgeSettings
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.streams.settings import StreamsSettings
from taskbridge.webhooks.settings import WebhooksSettings

SCHEMA = Path(__file__).parents[2] / "deploy" / "chart" / "values.schema.json"

_PARTS = (
    ("edge", EdgeSettings),
    ("streams", StreamsSettings),
    ("center", settings_class()),
    ("reconcile", ReconcileSettings),
    ("webhooks", WebhooksSettings),
    ("approvals", ApprovalsSettings),
)

SET_BY_THE_CHART = {
    *("host", "port", "data_dir", "kafka_bootstrap_servers", "kafka_config_file", "schema_registry_url", "log_format"),
    *("operator_host", "operator_port", "credentials_file", "bearer_tokens"),
    *("database_url", "edge_urls", "streams_urls", "api_tokens_file", "apps_file"),
    *("endpoints_file", "webhooks_urls", "webhooks_token_file", "reminders_file", "mcp_rules_file"),
    *("app_key", "app_secret", "edge_url", "source_secret"),
}


def chart_schema_text() -> str:
    """As text, for Helm would write a large number as ``1.073741824e+09``."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    for part, settings in _PARTS:
        names = [name for name in settings.model_fields if name not in SET_BY_THE_CHART]
        known = {f"{part}_{name}".upper(): {"type": "string"} for name in names}
        schema["properties"][part]["properties"]["settings"]["properties"] = known
    return json.dumps(schema, indent=2) + "\n"
