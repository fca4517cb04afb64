"""The parts of a replica together: how it reports an outage."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from structlog.testing import capture_logs

from taskbridge.runtime.database import open_database
from taskbridge.runtime.settings import load_settings
from taskbridge.webhooks.app import Webhooks
from taskbridge.webhooks.endpoints import EndpointsFile
from taskbridge.webhooks.settings import WebhooksSettings
from unit.webhooks.receivers import endpoint_of

if TYPE_CHECKING:
    from pathlib import Path


def test_an_outage_of_the_database_is_one_line_of_the_log(tmp_path: Path) -> None:
    endpoint_of(tmp_path, "https://erp.example/hook")
    environment = {
        "WEBHOOKS_ENDPOINTS_FILE": str(tmp_path / "endpoints.toml"),
        "WEBHOOKS_DATA_DIR": str(tmp_path),
        "WEBHOOKS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "WEBHOOKS_SCHEMA_REGISTRY_URL": "http://127.0.0.1:1",
    }
    settings = load_settings(WebhooksSettings, environment)
    database = open_database("postgresql://nobody@127.0.0.1:1/nothing", tmp_path, service="webhooks")
    webhooks = Webhooks(settings, database, EndpointsFile(settings.endpoints_file, environment))

    async def look_twice() -> None:
        await webhooks.look()
        await webhooks.look()

    with capture_logs() as logs:
        asyncio.run(look_twice())

    [line] = [each for each in logs if each["event"] == "database_unavailable"]
    assert "127.0.0.1" in line["problem"]
    assert "exc_info" not in line
