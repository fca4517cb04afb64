"""What a portal of another origin may read of the whole service: every answer, an event stream and errors too."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from support.center_rows import AnsweringCenter
from taskbridge.center.access.access import Access
from taskbridge.center.api.events import HoldsStreams, events_router
from taskbridge.center.live.hub import Hub
from taskbridge.center.web.routes import let_portals_in
from taskbridge.runtime.tokens import TokensFile, digest_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from taskbridge.runtime.database import Database

PORTAL = "https://portal.example"
PERSON = "/v1/corps/corp/users/ann"
TOKEN = {"authorization": "Bearer secret"}
QUERIES = ["events", "counts", "tasks?view=pending", "apps"]


class Broken(Exception):
    """What nobody foresaw."""


class Began(NamedTuple):
    status: int
    headers: dict[str, str]


class Service:
    """The whole HTTP side of a center that lets one portal in, and that portal's browser."""

    def __init__(self, folder: Path, database: Database) -> None:
        tokens = folder / "tokens.toml"
        tokens.write_text(f'[[tokens]]\nname = "a"\nsha256 = "{digest_of("secret")}"\ncorps = ["corp"]\n')
        self.center = AnsweringCenter(database, Access(tokens=TokensFile(tokens)))
        self.hub = Hub(database, most=10, most_of_person=10)
        http = self.center.http(events_router(self.hub, self.center.access))
        self.app = HoldsStreams(let_portals_in(http, PORTAL))

    def ask(self, path: str, method: str = "GET", **headers: str) -> Began:
        """How the answer begins; then the browser goes."""
        path, _, query = path.partition("?")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in {"origin": PORTAL, **headers}.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        answers: list[Began] = []

        async def answered() -> None:
            begun = asyncio.Event()

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    told = {name.decode(): value.decode() for name, value in message["headers"]}
                    answers.append(Began(message["status"], told))
                    begun.set()

            async def receive() -> dict[str, Any]:
                await begun.wait()
                return {"type": "http.disconnect"}

            with suppress(Broken):
                await self.app(scope, receive, send)

        asyncio.run(answered())
        [answer] = answers
        return answer


@pytest.fixture
def service(tmp_path: Path, sqlite_database: Database) -> Generator[Service]:
    found = Service(tmp_path, sqlite_database)
    yield found
    found.center.close()


def assert_readable(answer: Began, status: int) -> None:
    assert answer.status == status
    assert answer.headers.get("access-control-allow-origin") == PORTAL
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("query", QUERIES)
def test_a_portal_reads_what_its_user_may_and_another_origin_nothing(service: Service, query: str) -> None:
    assert_readable(service.ask(f"{PERSON}/{query}", **TOKEN), 200)
    refused = service.ask(f"{PERSON}/{query}", **TOKEN, origin="https://evil.example")
    assert "access-control-allow-origin" not in refused.headers
    assert "Origin" in refused.headers["vary"], "no cache gives one's answer to the other"


@pytest.mark.parametrize("query", QUERIES)
def test_a_browser_may_send_the_token_and_the_last_id(service: Service, query: str) -> None:
    wanted = {"access-control-request-method": "GET", "access-control-request-headers": "authorization,last-event-id"}
    answer = service.ask(f"{PERSON}/{query}", "OPTIONS", **wanted)
    assert_readable(answer, 200)
    allowed = {each.strip().lower() for each in answer.headers["access-control-allow-headers"].split(",")}
    assert {"authorization", "last-event-id"} <= allowed


@pytest.mark.parametrize("query", QUERIES)
def test_a_portal_reads_why_it_is_refused(service: Service, query: str) -> None:
    assert_readable(service.ask(f"{PERSON}/{query}"), 401)
    assert_readable(service.ask(f"/v1/corps/other/users/ann/{query}", **TOKEN), 403)
    assert_readable(service.ask(f"{PERSON}/more/{query}", **TOKEN), 404)
    service.hub.stop()
    service.center.complete = False
    assert_readable(service.ask(f"{PERSON}/{query}", **TOKEN), 503)


def test_a_portal_reads_that_the_service_failed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Broken

    monkeypatch.setattr(service.center.queries, "counts", fail)
    assert_readable(service.ask(f"{PERSON}/counts", **TOKEN), 500)
