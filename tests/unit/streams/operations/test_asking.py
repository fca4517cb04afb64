"""What others answer is read to its end, within bounds: one that hangs or never ends hides nobody."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from taskbridge.streams.operations import asking
from taskbridge.streams.operations.asking import Asking

if TYPE_CHECKING:
    import pytest


async def asked_of(body: bytes) -> Any:
    """What a worker is taken to say that answers this."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body)

    app, found = web.Application(), Asking()
    app.router.add_get("/v1", answer)
    server = TestServer(app)
    await server.start_server()
    try:
        return await found.worker(str(server.make_url("")).rstrip("/"), "/v1", None)
    finally:
        await found.close()
        await server.close()


def test_an_answer_that_does_not_come_at_once_is_read_whole() -> None:
    whole = {"workers": ["w" * 50] * 40_000}  # more than any buffer on the way
    assert asyncio.run(asked_of(json.dumps(whole).encode())) == whole


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asyncio.run(asked_of(b"{}" + b" " * 1000)) == {}
    monkeypatch.setattr(asking, "_BYTES_MAX", 1000)
    assert asyncio.run(asked_of(b"{}" + b" " * 1000)) is None
