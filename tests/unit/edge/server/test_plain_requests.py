"""The native core reads a whole, plain callback as httptools reads the same bytes when they arrive in two pieces."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from uvicorn.server import ServerState

from support.edge.client import Wire
from support.wheels import WHERE_CARGO_BUILDS
from taskbridge.edge.decision.decide import action_of
from taskbridge.edge.server.admission import GATE, Gate, Senders
from taskbridge.edge.server.exchange import ENDPOINT, LargeBodies
from taskbridge.edge.server.protocol import EdgeProtocol, read_request
from taskbridge.edge.settings import EdgeSettings

if TYPE_CHECKING:
    import random

    from taskbridge.edge.errors import Rejection
    from taskbridge.edge.request import Received
    from taskbridge.edge.server.exchange import Exchange
    from taskbridge.runtime.problems import Headers

pytestmark = WHERE_CARGO_BUILDS

SETTINGS = EdgeSettings.model_validate(
    {
        "kafka_bootstrap_servers": "127.0.0.1:1",
        "schema_registry_url": "http://127.0.0.1:1",
        "credentials_file": "credentials.toml",
        "trusted_proxies": "127.0.0.1",
    }
)

PLAIN = [
    *("Host: edge.example", "User-Agent: Yida/1.0", "Accept: */*", "X-A:b", "X-Empty:", "X-B: ", "X_Under: a"),
    *("X-Forwarded-For: 192.0.2.7, 127.0.0.1", "Connection: Keep-Alive", "X-D: a:b", "Trailer: x"),
    *("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Content-Encoding: gzip"),
]
ODD = [
    *("Connection: close", "Connection: TE", "Proxy-Connection: close", "Upgrade: h2c", "Expect: 100-continue"),
    *("Transfer-Encoding: chunked", "Content-Length: 2", "X-C:  b", "X-After : b", ": b", "no colon", ""),
    *("X Space: b", " X-Before: b", "X-End: b ", "X-Tab: a\tb", "X-张: b", "X-Raw: 张"),
    *("X-Bare: a\rb", "X-Bare: a\nb", "X-Null: a\0b", "X-Delete: a\x7fb"),
]
TARGETS = [
    *("/yida/tasks/complete", "/yida/tasks/other", "/YIDA//tasks/complete/", "/sources/crm/tasks/create"),
    *("/yida/tasks/complete?a=1", "/yida/tasks/%63omplete", "/health", "/yida/tasks/complete#a"),
]
BODIES = [b"", b"{}", b"a=1&b=2", b"\r\n\r\n", '{"a": "张"}'.encode(), b"POST / HTTP/1.1\r\n\r\n"]

Outcome = tuple[str, Any, bool]


@dataclass(slots=True)
class Recorder:
    """An endpoint that records callbacks."""

    found: list[Outcome] = field(default_factory=list[Outcome])
    senders: Senders = field(default_factory=lambda: Senders(trusted_proxies=SETTINGS.trusted_proxies))
    large_bodies: LargeBodies = field(default_factory=LargeBodies)
    max_body_bytes: int = 1000

    def action_of(self, path: str, _port: int) -> str | None:
        return action_of(path)

    def accept(self, exchange: Exchange) -> None:
        self._record("accepted", exchange)

    def refuse(self, exchange: Exchange, rejection: Rejection, _begun: Received | None) -> None:
        self._record(rejection.reason, exchange)

    def abort(self, exchange: Exchange) -> None:
        self._record("aborted", exchange)

    def _record(self, outcome: str, exchange: Exchange) -> None:
        self.found.append((outcome, replace(exchange.received, received_at=0), exchange.keep_alive))
        headers: Headers = []
        asyncio.get_running_loop().call_soon(exchange.answer, HTTPStatus.OK, headers, outcome.encode())


def read(*pieces: bytes) -> tuple[list[Outcome], bytes]:
    """The callbacks in these pieces, and what a connection answers to each piece before it gets the next."""
    return asyncio.run(_read(pieces))


async def _read(pieces: tuple[bytes, ...]) -> tuple[list[Outcome], bytes]:
    recorder, wire = Recorder(), Wire()
    gate = Gate(SETTINGS, count=lambda _: None)
    config = uvicorn.Config(_not_found, http=EdgeProtocol, log_config=None, lifespan="off")
    config.load()
    protocol = EdgeProtocol(config, ServerState(), {GATE: gate, ENDPOINT: recorder})
    protocol.connection_made(wire)
    for piece in pieces:
        if not wire.is_closing():
            protocol.data_received(piece)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    return recorder.found, wire.written


async def _not_found(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def request(target: str = TARGETS[0], lines: list[str] | None = None, body: bytes = b"{}") -> bytes:
    needed = [f"Content-Length: {len(body)}"] if lines is None else lines
    return "\r\n".join([f"POST {target} HTTP/1.1", *needed, "", ""]).encode() + body


def compare(data: bytes, at: int) -> None:
    whole = read(data, request())
    assert read(data[:at], data[at:], request()) == whole, data


@given(
    st.sampled_from(TARGETS),
    st.lists(st.sampled_from([*PLAIN, *PLAIN, *ODD]), max_size=5),
    st.sampled_from(BODIES),
    st.integers(1),
    st.randoms(use_true_random=False),
)
def test_both_readers_give_the_same_exchange(
    target: str, lines: list[str], body: bytes, at: int, chance: random.Random
) -> None:
    lines = [line.swapcase() if chance.random() < 0.1 else line for line in (*lines, f"Content-Length: {len(body)}")]
    chance.shuffle(lines)
    data = request(target, lines, body)
    compare(data, 1 + at % (len(data) - 1))


@given(st.sampled_from(TARGETS), st.integers(0), st.binary(max_size=3), st.integers(0, 3))
def test_both_readers_agree_on_a_changed_head(target: str, at: int, put: bytes, left_out: int) -> None:
    data = request(target, [*PLAIN, "Content-Length: 2"])
    at %= len(data) - 2
    data = data[:at] + put + data[at + left_out :]
    compare(data, len(data) // 2)


def test_a_request_may_be_cut_anywhere() -> None:
    data = request(TARGETS[0], [*PLAIN, "Content-Length: 2"])
    for at in range(1, len(data)):
        compare(data, at)


def test_requests_that_readers_may_disagree_on_are_left_to_httptools() -> None:
    def is_plain(*lines: str, target: str = TARGETS[0]) -> bool:
        assert read_request is not None
        return read_request(request(target, ["Content-Length: 2", *lines])) is not None

    assert [line for line in (*PLAIN, *ODD) if is_plain(line)] == PLAIN
    assert not is_plain("X-A: b", "x-a: b")
    assert [target for target in TARGETS if is_plain(target=target)] == [TARGETS[0], TARGETS[1], TARGETS[3]]
    many = [f"X-{number}: 1" for number in range(64)]
    assert is_plain(*many[:63])
    assert not is_plain(*many)


def test_bytes_that_are_not_exactly_one_request_are_left_to_httptools() -> None:
    assert read_request is not None
    assert read_request(request()) == ("/yida/tasks/complete", {"content-length": "2"}, b"{}")
    assert read_request(request() + b"x") is None
    assert not any(read_request(request()[:at]) for at in range(len(request())))
