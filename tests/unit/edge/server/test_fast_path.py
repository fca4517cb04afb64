"""The fast path answers a request as the general path does, to the byte, with any event in between."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest
import uvicorn
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from uvicorn.server import ServerState

from support.edge.fakes import SYSTEM_TOKEN, MemoryPublisher, write_credentials
from support.http_clients import callback
from support.wheels import WHERE_CARGO_BUILDS
from taskbridge.edge.app import create_app
from taskbridge.edge.errors import NotDurable
from taskbridge.edge.publisher import Durability
from taskbridge.edge.server.protocol import FAST_PATH, EdgeProtocol
from taskbridge.edge.settings import EdgeSettings
from taskbridge.runtime.producer import DeliveryFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from taskbridge.edge.app import EdgeApp
    from taskbridge.edge.events import Decided
    from taskbridge.edge.kafka.record import Record

OF_KAFKA = ("kafka", "failure", "away")
DATE = [(b"date", b"Thu, 26 Nov 2026 21:00:00 GMT")]

_COUNTED = ("callbacks_total", "callback_seconds_count", "publish_seconds_count", "verify_seconds_count")
COUNTED = tuple(f"taskbridge_edge_{name}" for name in _COUNTED)


@dataclass(slots=True)
class SlowPublisher(MemoryPublisher):
    """Kafka answers when ``settle`` is called; after a failure the spool does."""

    open: list[Callable[[Exception | None], None]] = field(default_factory=list[Any])

    async def publish(self, decided: Decided, *, traceparent: str | None) -> Durability:
        if self.away is not None:
            raise NotDurable(self.away)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle(error: Exception | None) -> None:
            future.set_result(None) if error is None else future.set_exception(error)

        self.open.append(settle)
        try:
            await future
        except DeliveryFailed:
            return await self.spool(cast("Record", decided))
        self.published.append(decided.event())
        self.traceparents.append(traceparent)
        return Durability.KAFKA

    def send(self, decided: Decided, *, traceparent: str | None, then: Callable[[Exception | None], None]) -> Record:
        def settle(error: Exception | None) -> None:
            if error is None:
                self.published.append(decided.event())
                self.traceparents.append(traceparent)
            then(error)

        self.open.append(settle)
        return cast("Record", decided)

    def settle(self, error: Exception | None) -> None:
        waiting, self.open = self.open, []
        for each in waiting:
            each(error)


class Wire(asyncio.Transport):
    """Stores what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False
        self.reads = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 8000)}.get(name, default)

    def write(self, data: Any) -> None:
        if not self.is_closed:
            self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


Step = bytes | str
"""A piece that arrives, or what happens: kafka, failure, away, eof, lost, shutdown, lag, catches-up."""


class Edge:
    """An app, and connections to it, with the fast path or without it."""

    def __init__(self, folder: Path, *, fast: bool) -> None:
        folder.mkdir()
        write_credentials(folder / "credentials.toml", SYSTEM_TOKEN)
        settings = EdgeSettings(
            kafka_bootstrap_servers="127.0.0.1:1",
            schema_registry_url="http://127.0.0.1:1",
            credentials_file=folder / "credentials.toml",
            data_dir=folder / "edge",
        )
        self.publisher = SlowPublisher(direct=True)
        self.app = cast("EdgeApp", create_app(settings, publisher=self.publisher))
        self._state = uvloop.run(self._of_lifespan())
        if not fast:
            del self._state[FAST_PATH]

    async def _of_lifespan(self) -> dict[str, Any]:
        """The state that the lifespan hands to the protocol."""
        async with self.app.router.lifespan_context(self.app) as state:
            return cast("dict[str, Any]", state)

    async def hold(self, steps: Sequence[Step], turns: int) -> dict[str, object]:
        """The outcome of one connection."""
        self.publisher.away = None
        before = self.counted()
        config = uvicorn.Config(self.app, http=EdgeProtocol, log_config=None, lifespan="off", server_header=False)
        config.load()
        shared = ServerState()
        shared.default_headers = DATE
        protocol = EdgeProtocol(config, shared, self._state)
        wire = Wire()
        protocol.connection_made(wire)
        is_lost = False
        for step in steps:
            for _ in range(10 if step in OF_KAFKA else 0):
                await asyncio.sleep(0)  # until a task has come as far as no task has to
            if step in OF_KAFKA or not (is_lost or wire.is_closed):
                self._apply(step, protocol)
            is_lost = is_lost or step == "lost"
            for _ in range(10 if step in OF_KAFKA else turns):
                await asyncio.sleep(0)
        protocol.resume_writing()
        for _ in range(40):
            self.publisher.settle(None)
            await asyncio.sleep(0)
        assert protocol._fast is None, "an idle connection holds no request"  # pyright: ignore[reportPrivateUsage]
        if not is_lost:
            protocol.connection_lost(None)
        found: dict[str, object] = {
            "written": wire.written,
            "closed": wire.is_closed,
            "reads": wire.reads,
            "tasks": len(shared.tasks),
            "requests": shared.total_requests,
            "published": [each.event_id for each in self.publisher.published],
            "traces": [*self.publisher.traceparents],
            "spooled": len(self.publisher.spooled),
            "quarantined": [each.reason for each in self.publisher.quarantined],
            "counted": {
                name: value - before.get(name, 0)
                for name, value in self.counted().items()
                if value != before.get(name, 0)
            },
        }
        for each in (self.publisher.published, self.publisher.traceparents, self.publisher.spooled):
            each.clear()
        self.publisher.quarantined.clear()
        return found

    def _apply(self, step: Step, protocol: EdgeProtocol) -> None:
        match step:
            case bytes():
                protocol.data_received(step)
            case "eof":
                protocol.eof_received()
            case "lost":
                protocol.connection_lost(None)
            case "shutdown":
                protocol.shutdown()
            case "lag":
                protocol.pause_writing()
            case "catches-up":
                protocol.resume_writing()
            case "away":
                self.publisher.away = "no room"
            case _:
                self.publisher.settle(None if step == "kafka" else DeliveryFailed("no acknowledgement in time"))

    def counted(self) -> dict[str, float]:
        text = generate_latest(self.app.callbacks.metrics.registry).decode()
        lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith(COUNTED)]
        return {name: float(value) for name, _, value in lines}


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> tuple[Edge, Edge]:
    folder = tmp_path_factory.mktemp("edges")
    return Edge(folder / "fast", fast=True), Edge(folder / "general", fast=False)


def both(edges: tuple[Edge, Edge], steps: Sequence[Step], turns: int = 3) -> dict[str, object]:
    """The outcome on the fast path, which equals the outcome on the general path."""
    fast, general = (uvloop.run(each.hold(steps, turns)) for each in edges)
    assert fast == general
    return fast


numbers = itertools.count()


def fresh(*headers: str) -> bytes:
    return callback(f"inst-{next(numbers):09}", *headers)


TRACE = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUESTS: dict[str, Callable[[], bytes]] = {
    "plain": fresh,
    "traced": lambda: fresh(TRACE),
    "keep-alive": lambda: fresh("Connection: keep-alive"),
    "last for a proxy": lambda: fresh("Proxy-Connection: close"),
    "last": lambda: fresh("Connection: close"),
    "expects": lambda: fresh("Expect: 100-continue"),
    "offers": lambda: fresh("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAA"),
    "twice": lambda: fresh("X-A: 1", "X-A: 2"),
    "odd spaces": lambda: fresh("X-A:  \t 1  ", "X-B:", "X-C: a:b"),
    "raw": lambda: fresh("X-A: 张"),
    "many": lambda: fresh(*(f"X-{number}: 1" for number in range(97))),
    "too many": lambda: fresh(*(f"X-{number}: 1" for number in range(98))),
    "large head": lambda: fresh(*(f"X-{number}: {'x' * 900}" for number in range(20))),
    "forged": lambda: fresh().replace(b"dateTime", b"dateTlme"),
    "unknown app": lambda: fresh().replace(b"APP_", b"AQQ_"),
    "no JSON": lambda: fresh().replace(b'{"', b"{,"),
    "another action": lambda: fresh().replace(b"/complete", b"/cancel"),
    "no action": lambda: fresh().replace(b"/complete", b"/done"),
    "in the query": lambda: fresh().replace(b"/complete", b"/complete?a=b"),
    "old": lambda: fresh().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "GET": lambda: b"GET /healthz HTTP/1.1\r\nHost: edge\r\n\r\n",
    "short": lambda: fresh().replace(b"Content-Length: ", b"Content-Length: 1"),
    "long": lambda: fresh() + b"}",
    "two lengths": lambda: fresh("Content-Length: 3"),
    "chunked": lambda: fresh("Transfer-Encoding: chunked"),
    "packed": lambda: fresh("Content-Encoding: gzip"),
    "empty line before": lambda: b"\r\n" + fresh(),
    "bare LF": lambda: fresh().replace(b"\r\n", b"\n"),
    "garbage": lambda: b"garbage\r\n\r\n",
}
NAMES = [
    *(
        "Connection",
        "Proxy-Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "HTTP2-Settings",
    ),
    *("Proxy-Authorization", "Proxy-Authenticate", "Proxy-Status", "Via", "Forwarded", "X-Forwarded-For"),
    *("X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "X-HTTP-Method-Override", "X-Original-URL", "Host"),
    *(
        "Expect",
        "Content-Encoding",
        "Content-Length",
        "Content-Range",
        "Content-Type",
        "Content-MD5",
        "Range",
        "Origin",
    ),
    *("Authorization", "Accept-Encoding", "Access-Control-Request-Method", "Cookie", "Date", "If-Match", "Prefer"),
    *("Sec-WebSocket-Key", "Sec-WebSocket-Version", "Early-Data", "webhook-id", "ce-type", "traceparent", "tracestate"),
]
"""Headers that a proxy or a server may act on, the hop-by-hop ones among them."""
VALUES = [
    "close",
    "keep-alive",
    "Close, TE",
    "upgrade",
    "h2c",
    "chunked",
    "gzip",
    "100-continue",
    "0",
    "DELETE",
    "*",
    "",
]
happenings = st.sampled_from(["kafka", "kafka", "failure", "away", "eof", "lost", "shutdown", "lag", "catches-up"])


@st.composite
def connections(draw: st.DrawFn) -> list[Step]:
    """Requests in a row, together or cut anywhere, and what happens between the pieces."""
    made = [REQUESTS[each]() for each in draw(st.lists(st.sampled_from(sorted(REQUESTS)), min_size=1, max_size=4))]
    made = [draw(st.sampled_from([each, each, each * 2])) for each in made]
    if draw(st.booleans()):
        made = [b"".join(made)]
    steps: list[Step] = []
    for each in made:
        cuts = sorted({0, len(each), *draw(st.lists(st.integers(0, len(each)), max_size=2))})
        if draw(st.booleans()):
            cuts = [0, len(each)]
        for start, end in itertools.pairwise(cuts):
            steps += [each[start:end], *draw(st.lists(happenings, max_size=2))]
    return steps


@given(connections(), st.integers(0, 4))
def test_both_paths_write_and_publish_the_same(edges: tuple[Edge, Edge], steps: list[Step], turns: int) -> None:
    both(edges, steps, turns)


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_each_kind_of_request_is_answered_alike_alone_and_repeated(edges: tuple[Edge, Edge], name: str) -> None:
    request = REQUESTS[name]()
    both(edges, [request, "kafka", request, "kafka", fresh(), "kafka"])


@pytest.mark.parametrize(
    ("steps", "published", "spooled", "written"),
    [
        (["kafka"], 1, 0, b'"kafka"'),
        (["failure"], 0, 1, b'"spool"'),
        (["away", "failure"], 0, 0, b"HTTP/1.1 503 "),
        (["eof", "kafka"], 1, 0, b"connection: close"),
        (["shutdown", "kafka"], 1, 0, b"connection: close"),
        (["lag", "kafka", "catches-up"], 1, 0, b'"kafka"'),
        (["lost", "kafka"], 1, 0, b""),
        (["lost", "failure"], 0, 1, b""),
    ],
)
def test_events_while_a_request_is_open(
    edges: tuple[Edge, Edge], steps: list[Step], published: int, spooled: int, written: bytes
) -> None:
    outcome = both(edges, [fresh(), *steps])
    assert written in cast("bytes", outcome["written"])
    assert (len(cast("list[str]", outcome["published"])), outcome["spooled"]) == (published, spooled)


@WHERE_CARGO_BUILDS
def test_a_plain_request_starts_no_task_unless_each_is_logged(
    edges: tuple[Edge, Edge], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tasks: list[object] = []
    start = EdgeProtocol._start_asgi_task  # pyright: ignore[reportPrivateUsage]

    def started(self: EdgeProtocol, cycle: Any, app: Any) -> None:
        tasks.append(cycle)
        start(self, cycle, app)

    monkeypatch.setattr(EdgeProtocol, "_start_asgi_task", started)
    for edge, expected in zip(edges, (0, 2), strict=True):
        found = uvloop.run(edge.hold([fresh(), "kafka", fresh(TRACE), "kafka"], 1))
        assert (len(cast("list[str]", found["published"])), len(tasks)) == (2, expected)
    caplog.set_level("DEBUG")
    uvloop.run(edges[0].hold([fresh(), "kafka"], 1))
    assert len(tasks) == 3
