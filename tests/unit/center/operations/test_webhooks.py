"""Webhook endpoints on the operator's page: what their services say of them, and who may have them do something."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from support.operations import client_of, reporter_of, settings_of
from support.served_apps import serving
from taskbridge.center.access.access import Access
from taskbridge.center.access.audit import Audit, AuditQuery
from taskbridge.runtime.database import Threads
from taskbridge.runtime.tokens import TokensFile, digest_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from fastapi.testclient import TestClient

    from taskbridge.runtime.database import Database

NOBODY = "http://127.0.0.1:9"
ENDPOINT: dict[str, Any] = {"id": "erp", "attempts": 10, "delivered": 9, "waiting": 3, "given_up": 1, "failures": []}


@dataclass
class Service:
    """Webhooks, as far as the task center uses them."""

    token: str = "of-webhooks"
    status: int = 200
    acted: list[str] = field(default_factory=list[str])

    def app(self) -> FastAPI:
        http = FastAPI()
        http.add_api_route("/readyz", lambda: {"ready": True, "lag": 7, "problems": ["the file is broken"]})
        http.add_api_route("/v1/endpoints", self._endpoints)
        http.add_api_route("/v1/endpoints/{endpoint}/{action}", self._act, methods=["POST"])
        return http

    async def _endpoints(self, request: Request) -> Any:
        return self._refused(request) or {"items": [ENDPOINT]}

    async def _act(self, request: Request, endpoint: str, action: str) -> Any:
        if endpoint != "erp":
            return JSONResponse({"detail": f"no {endpoint}"}, 404)
        self.acted.append(action)
        return self._refused(request) or JSONResponse({"id": endpoint, "replayed": 2}, self.status)

    def _refused(self, request: Request) -> JSONResponse | None:
        if request.headers.get("authorization") == f"Bearer {self.token}":
            return None
        return JSONResponse({"detail": "a valid bearer token is required"}, 401)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def url(service: Service) -> Generator[str]:
    with serving(service.app()) as found:
        yield found


@contextmanager
def center(database: Database, folder: Path, urls: str, access: Access | None = None) -> Generator[TestClient]:
    """A task center of these webhooks services, with their token."""
    token = folder / "token"
    token.write_text("of-webhooks\n")
    reporter = reporter_of(database, settings_of(folder, webhooks_urls=urls, webhooks_token_file=token))
    with client_of(reporter, access) as client:
        yield client


def problem(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["detail"]


def test_without_the_setting_there_are_no_webhooks(sqlite_database: Database, tmp_path: Path) -> None:
    with center(sqlite_database, tmp_path, "") as client:
        assert client.get("/v1/ops/overview").json()["webhooks"] is None
        status, detail = problem(client.post("/v1/ops/webhooks/erp/test"))
        assert (status, "CENTER_WEBHOOKS_URLS" in detail) == (404, True)


def test_endpoints_are_those_of_all_services_and_one_that_is_away_is_said(
    sqlite_database: Database, tmp_path: Path, url: str
) -> None:
    other = url.replace("127.0.0.1", "localhost")
    with center(sqlite_database, tmp_path, f"{NOBODY}, {url}, {other}") as client:
        found = client.get("/v1/ops/overview").json()["webhooks"]
        acted = client.post("/v1/ops/webhooks/erp/replay")
    assert found["endpoints"] == [{**ENDPOINT, "attempts": 20, "delivered": 18}]
    assert [(each["url"], each["reachable"], each["lag_records"], each["problem"]) for each in found["services"]] == [
        (NOBODY, False, None, "no answer: ConnectError"),
        (url, True, 7, "the file is broken"),
        (other, True, 7, "the file is broken"),
    ]
    assert acted.json() == {"id": "erp", "replayed": 2}


def test_operators_only(sqlite_database: Database, tmp_path: Path, service: Service, url: str) -> None:
    tokens = tmp_path / "tokens.toml"
    entries = (("boss", "*"), ("portal", "corp"))
    tokens.write_text(
        "".join(
            f'[[tokens]]\nname = "{name}"\nsha256 = "{digest_of(name)}"\ncorps = ["{corp}"]\n' for name, corp in entries
        )
    )
    audit = Audit(sqlite_database, Threads(1))
    with center(sqlite_database, tmp_path, url, Access(tokens=TokensFile(tokens), audit=audit)) as client:
        for token, status in (("", 401), ("wrong", 401), ("portal", 403)):
            answer = client.post("/v1/ops/webhooks/erp/test", headers={"Authorization": f"Bearer {token}"})
            assert problem(answer)[0] == status
        assert service.acted == []
        answer = client.post("/v1/ops/webhooks/erp/test", headers={"Authorization": "Bearer boss"})
    assert (answer.status_code, service.acted) == (200, ["test"])
    (entry,) = asyncio.run(audit.page(AuditQuery(limit=10)))
    assert (entry["actor"], entry["action"], entry["subject"]) == ("boss", "webhooks_test", "erp")


def test_failures_are_said_in_words_and_nothing_is_done_twice(
    sqlite_database: Database, tmp_path: Path, service: Service, url: str
) -> None:
    with center(sqlite_database, tmp_path, f"{url}, {url}") as client:
        assert problem(client.post("/v1/ops/webhooks/other/test")) == (
            404,
            "the webhooks service answers 404: no other",
        )
        for path in ("..%2Ferp/test", "erp/delete", "ERP/test"):
            assert client.post(f"/v1/ops/webhooks/{path}").status_code in (400, 404)
        assert service.acted == []
        service.status = 503
        assert problem(client.post("/v1/ops/webhooks/erp/test")) == (502, "the webhooks service answers 503")
        assert service.acted == ["test"]
        service.token = "another"
        refused = (502, "the webhooks service answers 401: a valid bearer token is required")
        assert problem(client.post("/v1/ops/webhooks/erp/test")) == refused
        [one, _] = client.get("/v1/ops/overview").json()["webhooks"]["services"]
        assert one["problem"] == "it answers 200 and 401: a valid bearer token is required"
    with center(sqlite_database, tmp_path, NOBODY) as client:
        assert problem(client.post("/v1/ops/webhooks/erp/test")) == (502, "the webhooks service: it cannot be reached")
