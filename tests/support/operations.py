"""The operators' part of a task center, without Kafka."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from taskbridge.center.access.access import Access
from taskbridge.center.operations.reporting import OperationsReporter
from taskbridge.center.operations.routes import operations_router
from taskbridge.center.settings import CenterSettings
from taskbridge.runtime.database import Threads
from taskbridge.runtime.refusals import answer_refusals

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
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


def client_of(reporter: OperationsReporter, access: Access | None = None) -> TestClient:
    """A client of its routes. A reporter that calls other services needs the client's block, which closes it."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        yield
        await reporter.close()

    http = FastAPI(lifespan=lifespan)
    answer_refusals(http, lambda: None)
    http.include_router(operations_router(reporter, access or Access(tokens=None)))
    return TestClient(http)
