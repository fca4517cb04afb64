"""The HTTP side by its sockets: answers go out whole and at once, and a head without end is not kept."""

from __future__ import annotations

import asyncio
import json
import queue
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from support.http_clients import connect, exchange, read_all, status_of
from taskbridge.runtime.operation import end_within, listen, make_server, operation_app
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from starlette.types import ASGIApp, Receive, Scope, Send

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: a\r\n"


def ready_soon(*, ready: bool) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def readiness() -> dict[str, Any]:
        return {"ready": ready}

    return readiness


@contextmanager
def served(readiness: Callable[[], Any] = dict, app: ASGIApp | None = None) -> Generator[int]:
    """The port of a service, or of this app, in a thread."""
    operation = operation_app("test", readiness=readiness, ready="Ready when it is", registry=CollectorRegistry())
    server = make_server(app or operation)
    with listen("127.0.0.1", 0, prefix="TEST") as listening:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def until_closed(port: int, request: bytes) -> bytes:
    """What is answered to it, until the server hangs up."""
    with connect(port) as connection:
        connection.sendall(request)
        return read_all(connection)


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
    with served(ready_soon(ready=ready) if awaited else lambda: {"ready": ready}) as port:
        answer = exchange(port, b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n")
    assert status_of(answer) == (200 if ready else 503)


def test_it_ends_when_told_to_and_not_at_its_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.runtime.serving._TICK_S", 3600)
    with served() as port:
        answer = exchange(port, b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
    assert status_of(answer) == 200


def test_a_head_without_end_is_hung_up_on_and_others_are_served() -> None:
    start, endless = HEALTH + b"x-long: ", b"hung up"  # before its answer could be read
    with served() as port:
        with connect(port) as connection, suppress(ConnectionError):
            for part in (start, *([b"a" * 10_000] * 50)):
                connection.sendall(part)
            endless = read_all(connection)
        good = exchange(port, (start + b"a" * 20_000 + b"\r\n\r\n") * 3)
    assert endless in (b"", b"hung up") or status_of(endless) == 431
    assert status_of(good) == 200


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HT", HEALTH + b"\r\nGET /heal"])
def test_a_head_that_is_not_finished_in_time_is_given_up(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.runtime.serving._HEAD_S", 0.1)
    with served() as port:
        answer = until_closed(port, begun)
    assert status_of(answer) == 200 if b"\r\n\r\n" in begun else answer == b""


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
    chunk = b"ffff\r\n" + b"a" * 0xFFFF + b"\r\n"
    with served(app=reads_bodies()) as port:  # more of the first two would follow
        announced = exchange(port, head + b"content-length: 65537\r\n\r\n")
        chunked = exchange(port, head + b"transfer-encoding: chunked\r\n\r\n" + chunk + b"2\r\naa\r\n")
        good = exchange(port, head + b"content-length: 65536\r\n\r\n" + b"a" * 65_536)
    for answer in (announced, chunked):
        assert status_of(answer) == 413
        assert b"urn:taskbridge:problem:too-large" in answer
    assert good.endswith(b'{"bytes":65536}')


@pytest.mark.parametrize(("path", "status"), [("reads", 408), ("answers-first", 200)])
def test_a_body_that_is_not_finished_in_time_is_given_up(
    path: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.runtime.serving._BODY_S", 0.1)
    with served(app=reads_bodies()) as port:
        answer = until_closed(port, f"POST /{path} HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf".encode())
    assert status_of(answer) == status


@pytest.mark.parametrize(
    ("request_bytes", "status", "kind"),
    [
        ("GET /healthz?q=请假 HTTP/1.1\r\nhost: a\r\n\r\n".encode(), 200, None),
        (b"nonsense\r\n\r\n", 400, "malformed-http"),
        (HEALTH + b"x: " + b"a" * 40_000, 431, "large-head"),
    ],
)
def test_raw_utf_8_is_understood_and_what_is_refused_is_a_problem_document(
    request_bytes: bytes, status: int, kind: str | None
) -> None:
    with served() as port:
        head, _, body = exchange(port, request_bytes).partition(b"\r\n\r\n")
    assert status_of(head) == status
    if kind is not None:
        assert b"content-type: application/problem+json" in head
        found = json.loads(body)
        assert (found["status"], found["type"]) == (status, f"urn:taskbridge:problem:{kind}")


@pytest.mark.parametrize(("outcome", "code", "printed"), [(0, 0, ""), (1, 1, ""), ("it failed", 1, "it failed\n")])
def test_a_process_ends_in_time_even_if_something_still_waits(
    outcome: int | str, code: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: queue.SimpleQueue[int] = queue.SimpleQueue()
    end_within(0.01, outcome, end=codes.put)
    assert codes.get(timeout=60) == code
    assert capsys.readouterr().err == printed
