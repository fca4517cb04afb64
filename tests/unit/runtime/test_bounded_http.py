"""A call ends within its time, with an answer of bounded size, if a server never stops or sends a bomb."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
import pytest
import trustme

from taskbridge.runtime import bounded_http
from taskbridge.runtime.bounded_http import AnswerTooLarge, BoundedAsyncClient, BoundedClient, GuardedTransport
from taskbridge.runtime.guard import AddressRefused, Guard
from taskbridge.runtime.inside_http import inside_client
from taskbridge.runtime.settings import parse_network

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LIMIT = 100_000
BOMB = gzip.compress(gzip.compress(bytes(64 << 20)) + bytes(64 << 20))


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "MAX_ANSWER_BYTES", LIMIT)


def answer(body: bytes, *headers: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return "\r\n".join(["HTTP/1.1 200 OK", f"content-length: {size}", *headers, "", ""]).encode() + body


@asynccontextmanager
async def server(begins: bytes, then: bytes = b"") -> AsyncGenerator[str]:
    """Answers with ``begins``, and then goes on with ``then`` for ever."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(begins)
            while then:
                await writer.drain()
                writer.write(then)
                await asyncio.sleep(0.01)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def by_async_client(url: str, timeout_s: float) -> httpx2.Response:
    async with BoundedAsyncClient(timeout_s=timeout_s, trust_env=False) as client:
        return await client.get(url)


async def by_client(url: str, timeout_s: float) -> httpx2.Response:
    def call() -> httpx2.Response:
        with BoundedClient(timeout_s=timeout_s, trust_env=False) as client:
            return client.get(url)

    return await asyncio.to_thread(call)


CLIENTS = pytest.mark.parametrize("call", [by_async_client, by_client])
Call = Callable[[str, float], Awaitable[httpx2.Response]]


@CLIENTS
async def test_a_body_that_comes_byte_by_byte_ends_when_the_time_is_over(call: Call) -> None:
    async with server(answer(b"", length=1 << 30), then=b"x") as url:
        with pytest.raises(httpx2.TimeoutException):
            await call(url, 0.3)


@CLIENTS
async def test_headers_without_end_do_not_outlast_the_call(call: Call) -> None:
    async with server(b"HTTP/1.1 200 OK\r\n", then=b"x-more: 1\r\n") as url:
        with pytest.raises(httpx2.TimeoutException):
            await call(url, 0.3)


@CLIENTS
@pytest.mark.parametrize(
    "begins",
    [answer(BOMB, "content-encoding: gzip"), answer(bytes(2 * LIMIT)), answer(bytes(LIMIT + 1))],
    ids=["gzip", "plain", "one byte more"],
)
async def test_no_more_than_the_limit_is_read_or_decompressed(call: Call, begins: bytes) -> None:
    async with server(begins) as url:
        tracemalloc.start()
        try:
            with pytest.raises(AnswerTooLarge):
                await call(url, 30)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


@CLIENTS
@pytest.mark.parametrize("body", [b"", b"{}", bytes(LIMIT)])
@pytest.mark.parametrize("is_packed", [True, False])
async def test_an_answer_within_the_limits_comes_unpacked(call: Call, body: bytes, is_packed: bool) -> None:  # noqa: FBT001
    sent = answer(gzip.compress(body), "content-encoding: gzip") if is_packed else answer(body)
    async with server(sent) as url:
        found = await call(url, 30)
        assert (found.status_code, found.content) == (200, body)


@CLIENTS
@pytest.mark.parametrize(
    "begins",
    [
        answer(b"no gzip", "content-encoding: gzip"),
        answer(gzip.compress(b"{}" * 1000)[:-9], "content-encoding: gzip"),
        answer(b"", "content-encoding: br"),
        answer(gzip.compress(b"{}") + bytes(LIMIT), "content-encoding: gzip"),
    ],
    ids=["not gzip", "cut", "never offered", "more after the end"],
)
async def test_a_body_that_cannot_be_unpacked_is_an_error_of_http(call: Call, begins: bytes) -> None:
    async with server(begins) as url:
        with pytest.raises(httpx2.DecodingError):
            await call(url, 30)


async def test_certificates_are_read_once_for_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bool] = []
    create = httpx2.create_ssl_context

    def counted(*, trust_env: bool) -> ssl.SSLContext:
        read.append(trust_env)
        return create(trust_env=trust_env)

    monkeypatch.setattr(httpx2, "create_ssl_context", counted)
    bounded_http.certificates.cache_clear()
    for _ in range(2):
        await BoundedAsyncClient(timeout_s=1, trust_env=False).aclose()
        inside_client(timeout_s=1).close()
    assert read == [False]


async def test_a_guarded_client_checks_each_address_and_then_the_host_of_the_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority, there = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(there)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)

    def trusted(**_: object) -> ssl.SSLContext:
        return ours

    monkeypatch.setattr(bounded_http, "certificates", trusted)
    hosts: list[str] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        hosts.append(request.partition("host: ")[2].partition("\r")[0])
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(respond, "127.0.0.1", 0, ssl=there)
    port = listening.sockets[0].getsockname()[1]
    guard = Guard((parse_network("127.0.0.0/8"), parse_network("::1/128")), setting="a setting")
    async with listening, BoundedAsyncClient(timeout_s=5, transport=GuardedTransport(guard), trust_env=False) as client:
        found = await client.post(f"https://localhost:{port}/x", content=b"x")
        assert (found.status_code, hosts) == (302, [f"localhost:{port}"])
        # The certificate is another host's.
        with pytest.raises(httpx2.ConnectError):
            await client.post(f"https://127.0.0.1:{port}/x", content=b"x")
    async with BoundedAsyncClient(timeout_s=5, transport=GuardedTransport(Guard()), trust_env=False) as client:
        for host in ("localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "0x7f000001"):
            with pytest.raises(AddressRefused):
                await client.post(f"https://{host}:{port}/x", content=b"x")
    assert len(hosts) == 1


async def test_a_host_whose_first_address_does_not_answer_is_called_at_its_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with server(answer(b"found", length=5)) as url:
        port = int(url.rpartition(":")[2])

        def found(*_: object, **__: object) -> list[tuple[object, ...]]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in ("127.0.0.2", "127.0.0.1")]

        monkeypatch.setattr(socket, "getaddrinfo", found)
        transport = GuardedTransport(Guard((parse_network("127.0.0.0/8"),)))
        async with BoundedAsyncClient(timeout_s=5, transport=transport, trust_env=False) as client:
            assert (await client.post(f"http://two.example:{port}/x", content=b"x")).text == "found"


def test_a_lookup_that_does_not_end_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def look_up(*_: object, **__: object) -> None:
        ended.wait(60)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with BoundedClient(timeout_s=0.2, transport=GuardedTransport(Guard()), trust_env=False) as client:
        (found,) = client.post_all([("https://slow.example/x", {"content": b"x"})])
        # The server got nothing: the message may be sent again.
        assert isinstance(found, httpx2.ConnectTimeout)
    assert not ended.is_set()
    ended.set()
