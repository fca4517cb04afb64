"""No route works for a caller before it knows them, and none reads a body before that."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.testclient import TestClient

from support.center_rows import AnsweringCenter
from support.sign_in import settings_of
from taskbridge.center.access.access import Access
from taskbridge.center.app import Center

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from fastapi import FastAPI
    from starlette.types import Message

    from taskbridge.runtime.database import Database

GUARD = "taskbridge.center.api.guard"
NEED_NO_CALLER = {"/healthz", "/readyz", "/metrics", "/sign-in", "/sign-in/callback"}
CHECK_THEMSELVES = {
    "/v1/me",
    "/v1/me/push",
    "/v1/people",
    "/v1/me/preferences",
    "/v1/corps",
    "/v1/corps/{corp_id}/waiting",
}
"""Routes for all who are known: about the caller alone, or with a check of their own."""


@contextmanager
def whole_center(database: Database, folder: Path) -> Generator[FastAPI]:
    """All routes that a task center can have."""
    client = {"oidc_issuer": "https://id.example", "oidc_client_id": "x", "corp_id": "ours"}
    yield Center(settings_of(**client, data_dir=str(folder)), database).http()


def routes(http: FastAPI) -> list[APIRoute]:
    found = [each.original_route for each in iter_route_contexts(http.routes)]
    return [each for each in found if isinstance(each, APIRoute) and not each.path.startswith("/assets/")]


async def answer_to(http: FastAPI, method: str, path: str) -> tuple[int, int]:
    """The status for a stranger who sends a body, and how often something of it was read."""
    sent: list[Message] = []
    reads = 0

    async def receive() -> Message:
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": b"{" * 1000, "more_body": reads < 10}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"tasks.example"), (b"content-type", b"application/json"), (b"cookie", b"a=b")]
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": headers,
        "client": ("192.0.2.1", 1),
    }
    await http(scope, receive, send)
    return sent[0]["status"], reads


def test_no_route_reads_anything_of_a_body_before_it_knows_the_caller(
    sqlite_database: Database, tmp_path: Path
) -> None:
    with whole_center(sqlite_database, tmp_path) as http:
        found = {
            (method, each.path): asyncio.run(answer_to(http, method, each.path.replace(":path", "")))
            for each in routes(http)
            for method in each.methods or ()
            if each.path not in NEED_NO_CALLER and (each.path.startswith("/v1") or method != "GET")
        }
    assert {path for method, path in found if method != "GET"} >= {
        "/v1/me/preferences",
        "/v1/corps/{corp_id}/users/{user_id}/actions",
        "/v1/corps/{corp_id}/users/{user_id}/delegations",
        "/sign-out",
    }
    assert {route: answer for route, answer in found.items() if answer != (401, 0)} == {}


def test_a_route_for_all_who_are_known_is_one_that_checks_itself(sqlite_database: Database, tmp_path: Path) -> None:
    with whole_center(sqlite_database, tmp_path) as http:
        every = {each.path: each for each in routes(http) if each.path.startswith("/v1")}
    rules = {
        path: [each.call for each in route.dependant.dependencies if getattr(each.call, "__module__", "") == GUARD]
        for path, route in every.items()
    }
    assert {path for path, (rule,) in rules.items() if getattr(rule, "__name__", "") == "_known"} == CHECK_THEMSELVES


def test_a_route_without_a_rule_cannot_be_made(sqlite_database: Database) -> None:
    center = AnsweringCenter(sqlite_database, Access(tokens=None))
    router = center.lists_router()

    async def forgotten() -> dict[str, str]:
        return {}

    with pytest.raises(TypeError, match="no rule"):
        router.add_api_route("/forgotten", forgotten)
    center.close()


def test_one_caller_has_so_many_requests_under_way_at_once(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.center.access.access._AT_ONCE", 0)
    center = AnsweringCenter(sqlite_database, Access(tokens=None))
    answer = TestClient(center.http()).get("/v1/me")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    center.close()
