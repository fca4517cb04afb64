"""The operators' HTTP side: whom it lets in, what it shows, and what it does once however often it is requested."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient
from sqlalchemy import text

from support.served_apps import serving
from taskbridge.runtime.database import now_ms
from taskbridge.runtime.tokens import digest_of
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.webhooks import store
from taskbridge.webhooks.app import Webhooks
from taskbridge.webhooks.endpoints import EndpointsFile
from taskbridge.webhooks.settings import WebhooksSettings
from taskbridge.webhooks.store import New, Queues, Result
from unit.webhooks.receivers import SECRET

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.runtime.database import Database

TOKEN = "robots-access-token"
ROUTES = (("GET", "/v1/endpoints"), ("POST", "/v1/endpoints/erp/test"), ("POST", "/v1/endpoints/erp/replay"))
OPEN = ("/healthz", "/metrics", "/openapi.json")


def service(database: Database, folder: Path, *, url: str = "http://127.0.0.1:1", **given: Any) -> Webhooks:
    """One that is not started, with the endpoint ``erp``."""
    file = folder / "endpoints.toml"
    address = f"{url}/hooks/tasks?access_token={TOKEN}"
    file.write_text(
        f'[[endpoints]]\nname = "erp"\nurl = "{address}"\nsecrets = ["{SECRET}"]\ncorps = ["corp"]\n', "utf-8"
    )
    settings = WebhooksSettings.model_validate(
        {
            "kafka_bootstrap_servers": "127.0.0.1:1",
            "schema_registry_url": "http://127.0.0.1:1",
            "data_dir": folder,
            "endpoints_file": file,
            "allowed_networks": "127.0.0.0/8",
            **given,
        }
    )
    return Webhooks(settings, database, EndpointsFile(file, {}))


def client_of(database: Database, folder: Path, **given: Any) -> TestClient:
    return TestClient(service(database, folder, **given).http(), base_url="http://127.0.0.1:8700")


def statuses(client: TestClient, **headers: str) -> list[int]:
    return [client.request(*route, headers=headers).status_code for route in ROUTES]


def give_up(database: Database, *ids: str) -> None:
    """Deliveries to ``erp`` whose last attempt failed."""
    queues = Queues(database, "erp", collapse=False)
    with database.write() as connection:
        store.add(database, connection, [New("erp", each, each, b"{}") for each in ids])
        for each in queues.claim(connection, 10):
            failed = Result(each, now_ms(), delivered=False, status=500, problem="500 no", retry_in_ms=None)
            queues.finish(connection, [failed])


def test_on_loopback_without_tokens_only_this_machine_is_let_in(sqlite: Database, tmp_path: Path) -> None:
    client = client_of(sqlite, tmp_path)
    assert statuses(client) == [200] * 3
    assert statuses(client, host="evil.example:8700") == [400] * 3
    assert statuses(client, origin="https://evil.example") == [200, 400, 400]


def test_on_another_address_without_tokens_nobody_is_let_in(sqlite: Database, tmp_path: Path) -> None:
    client = client_of(sqlite, tmp_path, host="0.0.0.0")  # noqa: S104 - nothing listens
    assert statuses(client, authorization="Bearer any") == [403] * 3
    assert "WEBHOOKS_API_TOKENS_FILE" in client.get("/v1/endpoints").json()["detail"]
    assert [client.get(each).status_code for each in OPEN] == [200] * 3


def test_with_tokens_only_one_for_all_corps_is_let_in(sqlite: Database, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        "".join(
            f'[[tokens]]\nname = "{name}"\nsha256 = "{digest_of(name)}"\ncorps = ["{corp}"]\n'
            for name, corp in (("operator", "*"), ("portal", "corp"))
        )
    )
    for host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - nothing listens
        client = client_of(sqlite, tmp_path, host=host, api_tokens_file=tokens)
        assert statuses(client) == statuses(client, authorization="Bearer wrong") == [401] * 3
        assert statuses(client, authorization="Bearer portal") == [403] * 3
        assert statuses(client, authorization="Bearer operator") == [200] * 3
        assert [client.get(each).status_code for each in OPEN] == [200] * 3
    tokens.write_text("broken")
    with pytest.raises(ConfigurationError):
        client_of(sqlite, tmp_path, api_tokens_file=tokens)


def test_an_endpoint_is_shown_with_its_failures_and_without_its_secrets(database: Database, tmp_path: Path) -> None:
    give_up(database, "n1", "n2")
    store.register(database, {"erp": False})
    found = service(database, tmp_path)
    for succeeded in (True, False, True):
        found.metrics.recent["erp"].append(succeeded)
    answer = TestClient(found.http(), base_url="http://127.0.0.1").get("/v1/endpoints")
    [erp] = answer.json()["items"]
    failures = erp.pop("failures")
    assert erp == {
        "id": "erp",
        "url": "http://127.0.0.1:1/…",
        "format": "notification",
        "state": "enabled",
        "disabled": None,
        "failing_since": None,
        "waiting": 0,
        "oldest_s": 0.0,
        "given_up": 2,
        "attempts": 3,
        "delivered": 2,
    }
    assert [(each["status"], each["problem"], each["outcome"]) for each in failures] == [
        (500, "500 no", "given_up")
    ] * 2
    assert answer.headers["cache-control"] == "no-store"
    assert TOKEN not in answer.text
    assert SECRET not in answer.text


def test_what_was_given_up_waits_again_and_a_second_click_finds_nothing(database: Database, tmp_path: Path) -> None:
    give_up(database, "n1", "n2")
    client = client_of(database, tmp_path)
    answers = [client.post("/v1/endpoints/erp/replay").json() for _ in range(2)]
    assert answers == [{"id": "erp", "replayed": count, "overtaken": 0} for count in (2, 0)]
    [erp] = client.get("/v1/endpoints").json()["items"]
    assert (erp["waiting"], erp["given_up"]) == (2, 0)
    # Why it failed is known until it is delivered.
    assert [each["outcome"] for each in erp["failures"]] == ["waiting", "waiting"]


def test_an_unknown_endpoint_is_said_in_words(sqlite: Database, tmp_path: Path) -> None:
    client = client_of(sqlite, tmp_path)
    for action in ("test", "replay"):
        answer = client.post(f"/v1/endpoints/other/{action}")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert answer.json()["detail"] == "the endpoints file has no 'other'; it has: erp"


def test_two_clicks_at_once_send_one_test(sqlite: Database, tmp_path: Path) -> None:
    got = list[str]()
    receiver = FastAPI()

    async def requests() -> list[dict[str, Any]]:
        both = asyncio.Event()

        @receiver.post("/hooks/tasks")
        async def receive(request: Request) -> PlainTextResponse:  # pyright: ignore[reportUnusedFunction]
            got.append(request.headers["webhook-id"])
            loop.call_soon_threadsafe(both.set)
            await asyncio.to_thread(sent.result, 30)
            return PlainTextResponse("not here", 418)

        loop = asyncio.get_running_loop()
        with serving(receiver) as url:
            operations = service(sqlite, tmp_path, url=url).operations
            first = asyncio.create_task(operations.test("erp"))
            await both.wait()
            second = asyncio.create_task(operations.test("erp"))
            await asyncio.sleep(0)
            sent.set_result(None)
            return [await first, await second]

    sent = Future[None]()
    answers = asyncio.run(requests())
    assert answers == [{"id": "erp", "delivered": False, "status": 418, "problem": "418 not here"}] * 2
    assert len(got) == 1


def test_counts_and_failures_are_read_from_indices(sqlite: Database) -> None:
    """Three days at 500 deliveries per second are 130,000,000 rows."""
    of = "FROM deliveries WHERE endpoint IN ('a', 'b')"
    counts = f"SELECT endpoint, count(*), min(at) {of} AND outcome = 0 GROUP BY endpoint"
    failures = f"SELECT * {of} AND problem IS NOT NULL ORDER BY attempted_at DESC LIMIT 5".replace(
        "IN ('a', 'b')", "= 'a'"
    )
    with sqlite.read() as connection:
        for query, index in (
            (counts, "COVERING INDEX deliveries_latest (endpoint=? AND outcome=?)"),
            (failures, "INDEX deliveries_failed (endpoint=?)"),
        ):
            plan = str(connection.execute(text(f"EXPLAIN QUERY PLAN {query}")).all())
            assert index in plan
            assert "TEMP B-TREE" not in plan
