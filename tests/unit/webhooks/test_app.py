"""The parts of a replica together: how it reports an outage."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, update
from structlog.testing import capture_logs

from taskbridge.runtime.database import DatabaseUnavailable, now_ms, open_database
from taskbridge.runtime.follow.follower import Follower
from taskbridge.runtime.settings import load_settings
from taskbridge.webhooks import app as module
from taskbridge.webhooks import store
from taskbridge.webhooks.app import Webhooks
from taskbridge.webhooks.endpoints import EndpointsFile
from taskbridge.webhooks.settings import WebhooksSettings
from taskbridge.webhooks.store import New
from taskbridge.webhooks.tables import deliveries
from unit.webhooks.receivers import endpoint_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    import pytest

    from taskbridge.runtime.database import Database


def webhooks_of(folder: Path, database: Database) -> Webhooks:
    """A replica without Kafka."""
    endpoint_of(folder, "https://erp.example/hook")
    environment = {
        "WEBHOOKS_ENDPOINTS_FILE": str(folder / "endpoints.toml"),
        "WEBHOOKS_DATA_DIR": str(folder),
        "WEBHOOKS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "WEBHOOKS_SCHEMA_REGISTRY_URL": "http://127.0.0.1:1",
    }
    settings = load_settings(WebhooksSettings, environment)
    return Webhooks(settings, database, EndpointsFile(settings.endpoints_file, environment))


def test_an_outage_of_the_database_is_one_line_of_the_log(tmp_path: Path) -> None:
    database = open_database("postgresql://nobody@127.0.0.1:1/nothing", tmp_path, service="webhooks")
    webhooks = webhooks_of(tmp_path, database)

    async def look_twice() -> None:
        await webhooks.look()
        await webhooks.look()

    with capture_logs() as logs:
        asyncio.run(look_twice())

    [line] = [each for each in logs if each["event"] == "database_unavailable"]
    assert "127.0.0.1" in line["problem"]
    assert "exc_info" not in line


def test_no_notification_is_read_before_the_endpoints_are_known(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhooks, register, started = webhooks_of(tmp_path, sqlite), store.register, list[str]()

    def away(*_arguments: object) -> None:
        raise DatabaseUnavailable("the database does not answer")

    def begin(follower: Follower) -> None:
        started.append(follower.health().group)

    async def serve(_app: object, *, start: Callable[[], Any], close: Callable[[], Any], **_: object) -> None:
        tasks = await start()
        assert started == [], "they would be lost for the endpoints of the file"
        assert webhooks.readiness()["ready"] is False
        monkeypatch.setattr(store, "register", register)
        for _look in range(2):
            await webhooks.look()
        assert started == ["notifications"]
        for each in tasks:
            each.close()
        await close()

    monkeypatch.setattr(store, "register", away)
    monkeypatch.setattr(module, "serve_until_stopped", serve)
    monkeypatch.setattr(Follower, "start", begin)
    asyncio.run(webhooks.serve())


def test_endpoints_that_are_removed_or_disabled_do_not_keep_what_waits_for_ever(
    sqlite: Database, tmp_path: Path
) -> None:
    webhooks, names = webhooks_of(tmp_path, sqlite), ("erp", "removed")
    store.register(sqlite, dict.fromkeys(names, False))
    with sqlite.write() as connection:
        store.add(sqlite, connection, [New(name, "a", "a1", b"{}") for name in names])
        connection.execute(update(deliveries).values(at=now_ms() - 31 * 86_400_000))

    webhooks.purge()
    assert store.waiting(sqlite, names).keys() == {"erp"}
    store.set_enabled(sqlite, "erp", reason="moves")
    webhooks.purge()
    assert store.waiting(sqlite, names) == {}


def serve(webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch, then: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Start the parts without Kafka and HTTP, and then do this."""

    async def serve(_app: object, *, start: Callable[[], Any], close: Callable[[], Any], **_: object) -> None:
        tasks = await start()
        await then()
        for each in tasks:
            each.close()
        await close()

    monkeypatch.setattr(module, "serve_until_stopped", serve)

    def start(_: Follower) -> None:
        """Nothing is followed here."""

    monkeypatch.setattr(Follower, "start", start)
    asyncio.run(webhooks.serve())


def test_what_waits_for_an_endpoint_that_left_the_file_is_counted_until_it_is_gone(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhooks = webhooks_of(tmp_path, sqlite)
    monkeypatch.setattr(module, "_COUNT_S", 0)
    monkeypatch.setattr(module, "_COUNT_PAUSES", 0)
    store.register(sqlite, {"removed": False})
    with sqlite.write() as connection:
        store.add(sqlite, connection, [New("removed", "a", "a1", b"{}")])

    def counted(what: str = "waiting_deliveries") -> float | None:
        return webhooks.metrics.registry.get_sample_value(f"taskbridge_webhooks_{what}", {"endpoint": "removed"})

    async def look() -> None:
        assert counted() == 1
        assert counted("oldest_waiting_seconds") is None, "an alert that nobody can end"
        with sqlite.write() as connection:
            connection.execute(delete(deliveries))
        await webhooks.look()
        assert counted() is None

    serve(webhooks, monkeypatch, look)


def test_an_unexpected_error_of_the_database_does_not_end_the_service(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhooks, register = webhooks_of(tmp_path, sqlite), store.register

    def fails(*_arguments: object) -> None:
        raise RuntimeError("never seen before")

    async def look() -> None:
        assert "RuntimeError" in str(webhooks.readiness()["problems"])
        monkeypatch.setattr(store, "register", register)
        await webhooks.look()
        assert "RuntimeError" not in str(webhooks.readiness()["problems"])

    monkeypatch.setattr(store, "register", fails)
    serve(webhooks, monkeypatch, look)
