"""What a portal of another origin may read of the whole service: every answer, an event stream and errors too."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest

from support.served_apps import serving
from support.streams.api_context import PARTITIONS, URL, AnsweringWorker
from taskbridge.streams.api.access import Access
from taskbridge.streams.api.tokens import TokensFile, digest_of
from taskbridge.streams.sse.hub import Hub
from taskbridge.streams.sse.routes import events_router
from taskbridge.streams.sse.stream import HoldsStreams
from taskbridge.streams.web.portals import let_portals_in

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

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
    """The whole HTTP side of a worker that lets one portal in, and that portal's browser."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        tokens = folder / "tokens.toml"
        tokens.write_text(f'[[tokens]]\nname = "a"\nsha256 = "{digest_of("secret")}"\ncorps = ["corp"]\n')
        self.worker = AnsweringWorker(folder / "worker", Access(tokens=TokensFile(tokens)))
        hub = Hub(next_offset=lambda _: 5, most=10, most_of_person=10)
        self.worker.routers.append(events_router(hub, lambda: cast("Any", object()), self.worker.context.resolver))
        self.app = HoldsStreams(let_portals_in(self.worker.http(), PORTAL))

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
            await self.worker.context.resolver.forwarding.close()

        asyncio.run(answered())
        [answer] = answers
        return answer


@pytest.fixture(name="make")
def make_fixture(tmp_path: Path) -> Generator[Callable[[], Service]]:
    made: list[Service] = []

    def make() -> Service:
        made.append(Service(tmp_path / f"{len(made)}"))
        return made[-1]

    yield make
    for each in made:
        each.worker.close()


def assert_readable(answer: Began, status: int) -> None:
    assert answer.status == status
    assert answer.headers.get("access-control-allow-origin") == PORTAL
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("query", QUERIES)
def test_a_portal_reads_what_its_user_may_and_another_origin_nothing(make: Callable[[], Service], query: str) -> None:
    service = make()
    assert_readable(service.ask(f"{PERSON}/{query}", **TOKEN), 200)
    refused = service.ask(f"{PERSON}/{query}", **TOKEN, origin="https://evil.example")
    assert "access-control-allow-origin" not in refused.headers
    assert "Origin" in refused.headers["vary"], "no cache gives one's answer to the other"


@pytest.mark.parametrize("query", QUERIES)
def test_a_browser_may_send_the_token_and_the_last_id(make: Callable[[], Service], query: str) -> None:
    wanted = {"access-control-request-method": "GET", "access-control-request-headers": "authorization,last-event-id"}
    answer = make().ask(f"{PERSON}/{query}", "OPTIONS", **wanted)
    assert_readable(answer, 200)
    allowed = {each.strip().lower() for each in answer.headers["access-control-allow-headers"].split(",")}
    assert {"authorization", "last-event-id"} <= allowed


@pytest.mark.parametrize("query", QUERIES)
def test_a_portal_reads_why_it_is_refused(make: Callable[[], Service], query: str) -> None:
    service = make()
    assert_readable(service.ask(f"{PERSON}/{query}"), 401)
    assert_readable(service.ask(f"/v1/corps/other/users/ann/{query}", **TOKEN), 403)
    assert_readable(service.ask(f"{PERSON}/more/{query}", **TOKEN), 404)
    service.worker.actives.clear()
    assert_readable(service.ask(f"{PERSON}/{query}", **TOKEN), 503)


def test_a_portal_reads_that_the_service_failed(make: Callable[[], Service], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Broken

    service = make()
    monkeypatch.setattr(service.worker.owners, "of_user", fail)
    assert_readable(service.ask(f"{PERSON}/counts", **TOKEN), 500)


@pytest.mark.parametrize("query", QUERIES)
def test_what_another_worker_answers_is_read_alike(make: Callable[[], Service], query: str) -> None:
    asked, owner = make(), make()
    with serving(cast("Any", owner.app)) as url:
        asked.worker.actives = set()
        asked.worker.distribution = {url: {"changelog": list(range(PARTITIONS))}, URL: {"changelog": []}}
        assert_readable(asked.ask(f"{PERSON}/{query}", **TOKEN), 200)
