"""Other services' answers are read to their end, within bounds: one that hangs or never ends hides no other."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from taskbridge.center.operations.services import Services, urls_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    import pytest


@asynccontextmanager
async def served(
    answer: Callable[[web.Request], Awaitable[web.Response]], host: str = "127.0.0.1", port: int = 0
) -> AsyncGenerator[str]:
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    server = TestServer(app, host=host, port=port or None)
    await server.start_server()
    try:
        yield f"http://{host}:{server.port}"
    finally:
        await server.close()


async def own_name(request: web.Request) -> web.Response:
    return web.Response(text=f"{request.path} {request.host}")


async def test_a_name_with_several_addresses_stands_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a headless service of Kubernetes: of three addresses, one has no process that answers."""
    loop, found = asyncio.get_running_loop(), Services()

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        assert host == "edges.example"
        addresses = ["127.0.0.3", "127.0.0.2", "127.0.0.1", "127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    async with served(own_name) as first:
        port = int(first.rpartition(":")[2])
        async with served(own_name, "127.0.0.2", port):
            with monkeypatch.context() as patched:
                patched.setattr(loop, "getaddrinfo", getaddrinfo)
                one, two, three = await found.answers([f"http://edges.example:{port}"])
    await found.close()
    host = f"edges.example:{port}"
    assert one == (first, f"/readyz {host}", f"/metrics {host}", None)
    assert two == (f"http://127.0.0.2:{port}", f"/readyz {host}", f"/metrics {host}", None)
    assert three.url == f"http://127.0.0.3:{port}"
    assert (three.readiness, three.problem) == (None, "no answer: ConnectError")


async def test_what_does_not_answer_is_named_next_to_what_does() -> None:
    async def hang(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=404)

    found = Services()
    async with served(own_name) as good, served(hang) as hanging, served(refuse) as other:
        urls = [hanging, good, "http://127.0.0.1:9", other, "http://no.such.name.invalid:1", "nonsense"]
        answers = await found.answers(urls)
    await found.close()
    assert [each.url for each in answers] == urls
    assert [each.readiness is not None for each in answers] == [False, True, False, False, False, False]
    assert answers[0].problem == "no answer: ReadTimeout"
    assert answers[3].problem == "it answers 404 and 404"
    assert all((each.problem or "").startswith("the name cannot be resolved") for each in answers[4:])


def test_urls_are_comma_separated() -> None:
    assert urls_of(" , ") == []
    assert urls_of("http://a:1/, http://b:2") == ["http://a:1", "http://b:2"]
