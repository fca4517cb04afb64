"""Only operators see how the bridge is doing, and any replica shows all of them."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from support.operations import READY, client_of, reporter_of, settings_of
from support.served_apps import serving
from support.sign_in import tokens_file
from taskbridge.center.access.access import Access, Caller
from taskbridge.center.access.audit import READ, Audit, AuditQuery
from taskbridge.cli.status import problems_of, screen
from taskbridge.runtime.database import DatabaseUnavailable, Threads
from taskbridge.runtime.tokens import TokensFile

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from taskbridge.center.operations.reporting import OperationsReporter
    from taskbridge.runtime.database import Database


@pytest.fixture
def access(tmp_path: Path) -> Access:
    tokens = tokens_file(tmp_path, all="operator-secret-of-all", corp="portal-secret-of-corp")
    return Access(tokens=TokensFile(Path(tokens)))


@pytest.fixture
def reporter(sqlite_database: Database, tmp_path: Path) -> OperationsReporter:
    return reporter_of(sqlite_database, settings_of(tmp_path))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


OPERATOR, PORTAL = bearer("operator-secret-of-all"), bearer("portal-secret-of-corp")


@pytest.mark.parametrize("path", ["overview", "callbacks?instance_id=I"])
def test_operators_only(reporter: OperationsReporter, access: Access, path: str) -> None:
    client = client_of(reporter, access)
    assert client.get(f"/v1/ops/{path}").status_code == 401
    assert client.get(f"/v1/ops/{path}", headers=bearer("wrong")).status_code == 401
    assert client.get(f"/v1/ops/{path}", headers=PORTAL).status_code == 403
    assert client.get(f"/v1/ops/{path}", headers=OPERATOR).status_code == 200


class OfAnOperator(Access):
    """Everybody is an operator who has signed in."""

    async def identify(self, connection: HTTPConnection) -> Caller:  # noqa: ARG002 - as the class has it
        return Caller("sso", corps=("*",), corp_id="corp", user_id="ann")


def test_an_operator_who_looks_for_an_instance_is_recorded_before_the_answer(
    reporter: OperationsReporter, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit(sqlite_database, Threads(1))
    client = client_of(reporter, OfAnOperator(tokens=None, audit=audit))
    assert client.get("/v1/ops/callbacks?instance_id=I-1").status_code == 200
    [entry] = asyncio.run(audit.page(AuditQuery(10)))
    assert (entry["actor"], entry["action"], entry["subject"]) == ("ann", READ, "I-1")

    async def unavailable(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(audit, "add", unavailable)
    assert client.get("/v1/ops/callbacks?instance_id=I-2").status_code == 503


def test_an_overview_of_a_center_alone_is_one_too(sqlite_database: Database, tmp_path: Path) -> None:
    ready = {**READY, "ready": False, "lists": {"complete": False, "filled": 0.25}, "problems": ["Kafka is away"]}
    reporter = reporter_of(sqlite_database, settings_of(tmp_path), ready, streams=7)
    found = client_of(reporter).get("/v1/ops/overview").json()
    assert (found["workers"], found["edges"], found["partitions"], found["missed"]) == ([], [], [], None)
    assert len(found["flow"]["minutes"]) == 60
    assert found["history"]["times"] == []
    assert (found["center"]["database"], found["center"]["filled"]) == ("sqlite", 0.25)
    [replica] = found["center"]["replicas"]
    assert replica["since"].endswith("Z")
    assert replica["replica"].endswith(":8500")
    assert {name: value for name, value in replica.items() if name not in ("since", "replica")} == {
        "reachable": True,
        "ready": False,
        "problem": "Kafka is away",
        "lag_records": 4,
        "sse_connections": 7,
    }
    assert any("Kafka is away" in each for each in problems_of(found))
    assert screen(found)


def test_workers_and_edges_are_those_that_the_settings_name(sqlite_database: Database, tmp_path: Path) -> None:
    worker = FastAPI()
    said: dict[str, Any] = {"ready": True, "problems": [], "partitions": {"active": [0], "standby": []}}
    worker.add_api_route("/readyz", lambda: said)
    worker.add_api_route("/metrics", lambda: PlainTextResponse(""))
    with serving(worker) as url:
        settings = settings_of(tmp_path, streams_urls=f"{url}, http://127.0.0.1:9", edge_urls="http://127.0.0.1:9")
        with client_of(reporter_of(sqlite_database, settings)) as client:
            found = client.get("/v1/ops/overview").json()
    assert [(each["url"], each["reachable"]) for each in found["workers"]] == [
        (url, True),
        ("http://127.0.0.1:9", False),
    ]
    assert [each["worker"] for each in found["partitions"]] == [url]
    assert [each["reachable"] for each in found["edges"]] == [False]
    assert len(problems_of(found)) == 2


async def test_any_replica_shows_all_of_them_with_their_errors(database: Database, tmp_path: Path) -> None:
    one, other = (reporter_of(database, settings_of(tmp_path, port=port)) for port in (8500, 8501))
    record = logging.LogRecord("test", logging.ERROR, "", 0, {"event": "it_fails", "problem": "away"}, (), None)
    other.errors.emit(record)
    running = asyncio.create_task(other.run())
    found: dict[str, Any] = {"center": {"replicas": []}}
    async with asyncio.timeout(60):
        while len(found["center"]["replicas"]) < 2:
            found = await reporter_of(database, settings_of(tmp_path)).overview()
    assert [each["replica"].rpartition(":")[2] for each in found["center"]["replicas"]] == ["8500", "8501"]
    [error] = found["errors"]
    assert (error["message"], error["worker"].rpartition(":")[2]) == ("it_fails: problem away", "8501")
    assert (await other.overview())["history"]["times"]

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    found = await one.overview()
    assert [each["replica"].rpartition(":")[2] for each in found["center"]["replicas"]] == ["8500"]


async def test_many_pages_share_one_query(reporter: OperationsReporter, monkeypatch: pytest.MonkeyPatch) -> None:
    records = reporter._records  # pyright: ignore[reportPrivateUsage]
    queried, whole = list[int](), records.overview

    def overview(now_ms: int) -> dict[str, Any]:
        queried.append(now_ms)
        return whole(now_ms)

    monkeypatch.setattr(records, "overview", overview)
    await asyncio.gather(*(reporter.overview() for _ in range(5)))
    await reporter.overview()
    assert len(queried) == 1
