"""The HTTP side by its sockets: answers go out whole and at once, and a head without end is not kept."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from taskbridge.runtime.operation import end_within, listen, make_server, operation_app
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send


def ready_soon(*, ready: bool) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def readiness() -> dict[str, Any]:
        return {"ready": ready}

    return readiness


@asynccontextmanager
async def served(readiness: Callable[[], Any] = dict, app: ASGIApp | None = None) -> AsyncGenerator[int]:
    """The port of a service, or of this app."""
    listening = listen("127.0.0.1", 0, prefix="TEST")
    operation = operation_app("test", readiness=readiness, ready="Ready when it is", registry=CollectorRegistry())
    server = make_server(app or operation)
    serving = asyncio.create_task(server.serve([listening]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


def test_connections_do_not_wait_for_acknowledgements() -> None:
    with (
        listen("127.0.0.1", 0, prefix="TEST") as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use_names_the_settings() -> None:
    with (
        listen("127.0.0.1", 0, prefix="TEST") as listening,
        pytest.raises(ConfigurationError, match="set TEST_PORT and TEST_HOST"),
    ):
        listen("127.0.0.1", listening.getsockname()[1], prefix="TEST")


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("awaited", [True, False])
def test_readiness_decides_the_status(*, ready: bool, awaited: bool) -> None:
    async def status() -> bytes:
        async with served(ready_soon(ready=ready) if awaited else lambda: {"ready": ready}) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            writer.close()
            return head

    head = asyncio.run(status())
    assert head.startswith(b"HTTP/1.1 200" if ready else b"HTTP/1.1 503")


def test_a_head_without_end_is_hung_up_on_and_others_are_served() -> None:
    async def send(port: int, heads: list[bytes]) -> bytes:
        """What is answered, until the connection ends or a body has come."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = b""
        try:
            for head in heads:
                writer.write(head)
                await writer.drain()
            answer = await asyncio.wait_for(reader.read(4096), 10)
        except ConnectionError:
            answer = b"hung up"  # before its answer could be read
        writer.close()
        return answer

    async def ask() -> tuple[bytes, bytes]:
        async with served() as port:
            start = b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-long: "
            return (
                await send(port, [start, *([b"a" * 10_000] * 50)]),
                await send(port, [start + b"a" * 20_000 + b"\r\n\r\n"] * 3),
            )

    endless, good = asyncio.run(ask())
    assert endless == b"hung up" or endless.startswith(b"HTTP/1.1 431")
    assert good.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET /heal"])
def test_a_head_that_is_not_finished_in_time_is_given_up(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.runtime.serving._HEAD_S", 0.1)

    async def ask() -> bytes:
        async with served() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            answer = await reader.read()
            writer.close()
            return answer

    answer = asyncio.run(ask())
    assert answer.startswith(b"HTTP/1.1 200") if b"\r\n\r\n" in begun else answer == b""


def reads_bodies() -> ASGIApp:
    """Answers how many bytes a body has, at ``/answers-first`` before it reads any."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        size = 0
        if scope["path"] != "/answers-first":
            async for part in Request(scope, receive).stream():
                size += len(part)
        await JSONResponse({"bytes": size})(scope, receive, send)

    async def ignoring_disconnects(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect):
            await app(scope, receive, send)

    return ignoring_disconnects


def test_a_body_over_the_limit_is_refused_as_soon_as_that_is_known() -> None:
    head = b"POST /healthz HTTP/1.1\r\nhost: a\r\n"

    async def send(port: int, request: bytes) -> bytes:
        """What is answered to it, while more of it would follow."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 10)
        writer.close()
        return answer

    async def requests() -> list[bytes]:
        async with served(app=reads_bodies()) as port:
            chunk = b"ffff\r\n" + b"a" * 0xFFFF + b"\r\n"
            return [
                await send(port, head + b"content-length: 65537\r\n\r\n"),
                await send(port, head + b"transfer-encoding: chunked\r\n\r\n" + chunk + b"2\r\naa\r\n"),
                await send(port, head + b"content-length: 65536\r\n\r\n" + b"a" * 65_536),
            ]

    announced, chunked, good = asyncio.run(requests())
    for answer in (announced, chunked):
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"urn:taskbridge:problem:too-large" in answer
    assert good.endswith(b'{"bytes":65536}')


@pytest.mark.parametrize("path", ["reads", "answers-first"])
def test_a_body_that_is_not_finished_in_time_is_given_up(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.runtime.serving._BODY_S", 0.1)

    async def requests() -> bytes:
        async with served(app=reads_bodies()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"POST /{path} HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n".encode() + b"half")
            answer = await asyncio.wait_for(reader.read(), 10)  # until it is hung up
            writer.close()
            return answer

    answer = asyncio.run(requests())
    assert answer.startswith(b"HTTP/1.1 408 " if path == "reads" else b"HTTP/1.1 200 ")


def test_what_strangers_send_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(port: int, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(4096), 10)
        writer.close()
        return answer

    async def test() -> list[bytes]:
        async with served() as port:
            upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n"
            return [
                await ask(port, b"GET /healthz HTTP/1.1\r\nhost: a\r\n" + upgrade + b"\r\n"),
                await ask(port, b"\x16\x03\x01nonsense\r\n\r\n"),
            ]

    with caplog.at_level(logging.WARNING):
        upgraded, nonsense = asyncio.run(test())
    assert upgraded.startswith(b"HTTP/1.1 200")
    assert nonsense.startswith(b"HTTP/1.1 400")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("request_bytes", "status", "kind"),
    [
        ("GET /healthz?q=请假 HTTP/1.1\r\nhost: a\r\n\r\n".encode(), 200, None),
        (b"nonsense\r\n\r\n", 400, "malformed-http"),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 40_000, 431, "large-head"),
    ],
)
def test_raw_utf_8_is_understood_and_what_is_refused_is_a_problem_document(
    request_bytes: bytes, status: int, kind: str | None
) -> None:
    async def ask() -> bytes:
        async with served() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request_bytes)
            answer = await reader.readuntil(b"\r\n\r\n") + await reader.read(4096)
            writer.close()
            return answer

    head, _, body = asyncio.run(ask()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    if kind is not None:
        assert b"content-type: application/problem+json" in head
        found = json.loads(body)
        assert (found["status"], found["type"]) == (status, f"urn:taskbridge:problem:{kind}")


def test_raw_utf_8_is_understood_in_a_request_that_came_with_the_one_before_it() -> None:
    def asking(word: str) -> bytes:
        return f"GET /healthz?q={word} HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n".encode()

    async def answers(first: bytes, second: bytes) -> bytes:
        async with served() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first)
            found = b""
            while not found.endswith(b"}"):  # so the first is answered, and the rest comes by itself
                found += await asyncio.wait_for(reader.read(65536), 10)
            writer.write(second)
            while found.count(b'"ok"}') < 2 and b" 400 " not in found:
                found += await asyncio.wait_for(reader.read(65536), 10)
            writer.close()
            return found

    first, second = asking("请假"), asking("出差")
    for cut in (len(second), 0, 2, 6, second.index("差".encode()) + 1, second.index(b"host") + 2):
        found = asyncio.run(answers(first + second[:cut], second[cut:]))
        assert found.count(b"HTTP/1.1 200 ") == 2, cut


@pytest.mark.parametrize(("outcome", "code", "printed"), [(0, 0, ""), (1, 1, ""), ("it failed", 1, "it failed\n")])
def test_a_process_ends_in_time_even_if_something_still_waits(
    outcome: int | str, code: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: queue.SimpleQueue[int] = queue.SimpleQueue()
    end_within(0.01, outcome, end=codes.put)
    assert codes.get(timeout=30) == code
    assert capsys.readouterr().err == printed
