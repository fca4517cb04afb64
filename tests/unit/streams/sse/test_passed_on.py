"""A stream that another worker has: it ends with access, on both sides, and gives its places back however it ends."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from starlette.requests import Request

from support.streams.api_context import PARTITIONS, AnsweringWorker
from taskbridge.streams.api.access import Access, Caller
from taskbridge.streams.api.forwarding import Forwarding, OwnerUnreachable
from taskbridge.streams.api.tokens import TokensFile, digest_of
from taskbridge.streams.http import build_http
from taskbridge.streams.sse.hub import Hub
from taskbridge.streams.sse.routes import events_router

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

PATH = "/v1/corps/corp/users/ann/events"


class Owner:
    """The worker that has the stream: writes what it is told to."""

    def __init__(self) -> None:
        self.parts: asyncio.Queue[bytes] = asyncio.Queue()
        self.left = asyncio.Event()
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(await self.parts.get())
        finally:
            self.left.set()


@asynccontextmanager
async def serving() -> AsyncGenerator[Owner]:
    owner, app = Owner(), web.Application(handler_args={"handler_cancellation": True})
    app.router.add_get(PATH, owner.answer)
    server = TestServer(app)
    await server.start_server()
    owner.url = str(server.make_url("")).rstrip("/")
    try:
        yield owner
    finally:
        await server.close()


class Client:
    """Who reads what this worker passes on, until told to go."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[bytes] = asyncio.Queue()
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message.get("body"):
            self.got.put_nowait(message["body"])


SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "path": PATH,
    "query_string": b"",
    "headers": [],
    "asgi": {"spec_version": "2.3"},
}


async def passed_on(
    forwarding: Forwarding, url: str, client: Client, hub: Hub, may_go_on: Callable[[float], bool] = lambda _: True
) -> None:
    response = await forwarding.forward_stream(
        Request(SCOPE), url, Caller("open"), may_go_on=may_go_on, done=hub.pass_on()
    )
    assert hub.forwarded == 1
    await response(SCOPE, client.receive, client.send)


def make_hub() -> Hub:
    return Hub(next_offset=lambda _: 5, most=2, most_of_person=1)


def test_it_ends_on_both_sides_with_the_first_part_after_its_token_was_taken_back() -> None:
    async def test() -> None:
        hub, client, may = make_hub(), Client(), [True]
        forwarding = Forwarding(None)
        async with serving() as owner:
            stream = asyncio.create_task(passed_on(forwarding, owner.url, client, hub, lambda _: may[-1]))
            owner.parts.put_nowait(b": alive\n\n")
            assert await client.got.get() == b": alive\n\n"
            may.append(False)
            owner.parts.put_nowait(b"data: of somebody else's by now\n\n")
            await stream
            await owner.left.wait()
            assert client.got.empty()
            assert hub.forwarded == 0
            await forwarding.close()

    asyncio.run(test())


@pytest.mark.parametrize("before_the_first_part", [True, False])
def test_a_client_that_leaves_frees_the_connection_to_the_owner_too(*, before_the_first_part: bool) -> None:
    async def test() -> None:
        hub, client = make_hub(), Client()
        forwarding = Forwarding(None)
        async with serving() as owner:
            if before_the_first_part:
                client.gone.set()
            stream = asyncio.create_task(passed_on(forwarding, owner.url, client, hub))
            if not before_the_first_part:
                owner.parts.put_nowait(b": alive\n\n")
                await client.got.get()
                client.gone.set()
            await stream
            await owner.left.wait()
            assert hub.forwarded == 0
            await forwarding.close()

    asyncio.run(test())


def test_an_owner_that_does_not_answer_costs_no_place() -> None:
    async def test() -> None:
        hub, forwarding = make_hub(), Forwarding(None)
        with pytest.raises(OwnerUnreachable):
            await passed_on(forwarding, "http://127.0.0.1:9", Client(), hub)
        assert hub.forwarded == 0
        await forwarding.close()

    asyncio.run(test())


def test_the_route_takes_places_for_what_it_passes_on_and_ends_it_with_its_access(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    entry = '[[tokens]]\nname = "portal"\nsha256 = "{0}"\ncorps = ["corp"]\n'
    tokens.write_text(entry.format(digest_of("secret")))
    access = Access(tokens=TokensFile(tokens))
    context, hub = AnsweringWorker(tmp_path / "worker", access), make_hub()
    http = build_http(dict, context.metrics, routers=[events_router(hub, lambda: None, context.context.resolver)])
    headers = [(b"authorization", b"Bearer secret")]

    async def test() -> None:
        client = Client()
        async with serving() as owner:
            context.actives.clear()
            context.distribution = {owner.url: {"changelog": list(range(PARTITIONS))}}
            scope = {**SCOPE, "headers": headers, "client": ("127.0.0.1", 1), "scheme": "http", "http_version": "1.1"}
            stream = asyncio.create_task(http(scope, client.receive, client.send))
            owner.parts.put_nowait(b": alive\n\n")
            assert await client.got.get() == b": alive\n\n"
            assert hub.forwarded == 1
            tokens.write_text(entry.format(digest_of("another")))
            assert access.tokens is not None
            access.tokens.reload_if_changed()
            owner.parts.put_nowait(b": alive\n\n")
            await asyncio.wait_for(stream, 30)
            assert client.got.empty()
            assert hub.forwarded == 0
            await context.context.resolver.forwarding.close()

    asyncio.run(test())
    context.close()
