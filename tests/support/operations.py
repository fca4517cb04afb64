"""The operators' part of a task center, without Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.center.operations.reporting import OperationsReporter
from taskbridge.center.settings import CenterSettings
from taskbridge.runtime.database import Threads

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.runtime.database import Database

READY: dict[str, Any] = {
    "ready": True,
    "lists": {"complete": True, "filled": 1.0},
    "lag": {"lists": 3, "records": 1},
    "problems": [],
}


def settings_of(folder: Path, **fields: Any) -> CenterSettings:
    """Settings that name neither a Kafka nor a registry that is there."""
    nowhere = {"kafka_bootstrap_servers": "127.0.0.1:1", "schema_registry_url": "http://127.0.0.1:1"}
    return CenterSettings.model_validate({**nowhere, "data_dir": folder, **fields})


def reporter_of(
    database: Database, settings: CenterSettings, ready: dict[str, Any] = READY, *, streams: int = 0
) -> OperationsReporter:
    async def readiness() -> dict[str, Any]:
        return ready

    return OperationsReporter(settings, database, Threads(2), readiness, streams=lambda: streams)
