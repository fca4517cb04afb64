"""Who may open a stream, from which place, and that it ends when the access that let it in does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from support.live import set_epoch
from taskbridge.center.access.access import Access
from taskbridge.center.api.events import HoldsStreams, events_router
from taskbridge.center.live.hub import Hub
from taskbridge.runtime.refusals import answer_refusals
from taskbridge.runtime.tokens import TokensFile, digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.runtime.database import Database


@pytest.fixture
def hub(sqlite_database: Database) -> Hub:
    set_epoch(sqlite_database)
    return Hub(sqlite_database, most=10, most_of_person=32)


async def test_the_route_gives_each_stream_the_access_that_let_it_in(hub: Hub, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    entry = '[[tokens]]\nname = "{0}"\nsha256 = "{1}"\ncorps = ["corp"]\n'
    tokens.write_text(entry.format("portal", digest_of("secret")))
    access = Access(tokens=TokensFile(tokens))
    begun, ended = asyncio.Event(), asyncio.Event()
    app = HoldsStreams(app_of(hub, access))
    body = bytearray()

    async def receive() -> dict[str, Any]:
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        body.extend(message.get("body", b""))
        begun.set()
        if message["type"] == "http.response.body" and not message["more_body"]:
            ended.set()

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/v1/corps/corp/users/ann/events",
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer secret")],
        "client": ("127.0.0.1", 1),
    }
    stream = asyncio.create_task(app(scope, receive, send))
    await begun.wait()
    tokens.write_text(entry.format("portal", digest_of("another")))
    assert access.tokens is not None
    access.tokens.reload_if_changed()
    hub.beat(asyncio.get_running_loop().time() + 1000)
    await asyncio.wait_for(stream, 60)
    assert b": closed: access\n\n" in body
    assert hub.count == 0


def app_of(hub: Hub, access: Access) -> FastAPI:
    http = FastAPI()
    answer_refusals(http, lambda: None)
    http.include_router(events_router(hub, access))
    return http


def client_of(hub: Hub, *, most: int = 10, most_of_person: int = 32) -> TestClient:
    hub = Hub(hub.database, most=most, most_of_person=most_of_person)
    return TestClient(app_of(hub, Access(tokens=None)))


@pytest.mark.parametrize(
    ("headers", "query", "says"),
    [
        ({"Last-Event-ID": "nonsense"}, "", "Last-Event-ID"),
        ({}, "?last_event_id=1", "last_event_id"),
        ({"Last-Event-ID": "1" * 100}, "", "last-event-id"),
    ],
)
def test_an_id_that_was_never_given_is_refused(hub: Hub, headers: dict[str, str], query: str, says: str) -> None:
    answer = client_of(hub).get(f"/v1/corps/corp/users/ann/events{query}", headers=headers)
    assert answer.status_code == 400
    assert says.lower() in answer.json()["detail"].lower()


def test_one_person_does_not_take_the_places_of_all_others(hub: Hub) -> None:
    answer = client_of(hub, most_of_person=0).get("/v1/corps/corp/users/ann/events")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert "one person" in answer.json()["detail"]


def test_somebody_elses_stream_is_refused(hub: Hub, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[[tokens]]\nname = "portal"\nsha256 = "{digest_of("secret")}"\ncorps = ["other"]\n')
    client = TestClient(app_of(hub, Access(tokens=TokensFile(tokens))))
    path = "/v1/corps/corp/users/ann/events"
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"Authorization": "Bearer secret"}).status_code == 403
    assert hub.count == 0
