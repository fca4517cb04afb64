"""The real process under abuse: good callbacks go through in time during each attack, and memory stays bounded."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.edge.process import RunningEdge, wait_until
from support.edge.refused import bad_messages, bad_requests
from support.http_clients import callback, connect, exchange, read_all, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import httpx2

    from taskbridge.local.jvm import Endpoints

pytestmark = pytest.mark.integration

IN_TIME_S = 30.0
"""More than the ten seconds for which this edge waits for a busy Kafka before it spools: alone, milliseconds."""
GROWTH_BYTES = 60 << 20
"""Attacks send far more than that; the C library keeps some memory that was once used."""

POST = b"POST /yida/tasks/complete HTTP/1.1\r\nHost: edge\r\n"
JSON = POST + b"Content-Type: application/json\r\n"
MANY = 150


class Edge(RunningEdge):
    """The edge as it is run in production, started."""

    def __init__(self, folder: Path, stack: Endpoints, **environment: str) -> None:
        # Generous, because the machine may be busy: the test shows that an attack does not delay others.
        own = {"EDGE_LOG_LEVEL": "INFO", "EDGE_KAFKA_TIMEOUT_MS": "10000"}
        super().__init__(
            folder, bootstrap_servers=stack.bootstrap_servers, registry_url=stack.registry_url, **(own | environment)
        )
        self.start()

    def get(self, path: str) -> httpx2.Response | None:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text("utf-8")[-3000:]
        return super().get(path)

    def wait_until(self, path: str) -> None:
        wait_until(lambda: (answer := self.get(path)) is not None and answer.status_code == 200)

    def memory(self) -> int:
        assert self.process is not None
        pages = Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def good(self) -> float:
        """Seconds until a good callback is answered, on a connection of its own."""
        started = time.monotonic()
        assert status_of(exchange(self.port, callback())) == 200
        return time.monotonic() - started


def send(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """All bytes of the answer until the server closes; it may close while we still send."""
    with connect(port) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_s)
        with suppress(TimeoutError):
            return read_all(connection, within_s=5)
    return b""


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def header_bomb(port: int) -> None:
    assert status_of(send(port, POST + b"X: ", *[b"x" * 65536] * 100)) in (431, 0)


def many_headers(port: int) -> None:
    assert status_of(send(port, POST + b"X: y\r\n" * 100_000)) in (431, 0)


def long_url(port: int) -> None:
    assert status_of(send(port, b"GET /?", *[b"x" * 65536] * 50)) in (414, 0)


def slow_heads(port: int) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(port)) for _ in range(MANY)]
        for each in POST:
            for connection in connections:
                with suppress(OSError):
                    connection.sendall(bytes([each]))
            time.sleep(0.03)


def slow_bodies(port: int) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(port)) for _ in range(MANY)]
        for connection in connections:
            connection.sendall(JSON + b"Content-Length: 1000000\r\n\r\n" + b" " * 100_000)
        for _ in range(20):
            for connection in connections:
                with suppress(OSError):
                    connection.sendall(b" ")
            time.sleep(0.05)


def idle_connections(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(600):
            stack.enter_context(connect(port))
        time.sleep(1)


def many_parameters(port: int) -> None:
    body = b"&".join(b"k%d=%d" % (each, each) for each in range(80_000))
    form = POST + b"Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    members = json.dumps({f"k{each}": "" for each in range(60_000)}).encode()
    for _ in range(10):
        assert status_of(send(port, form % len(body) + body)) == 400
        assert (
            status_of(send(port, JSON + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(members) + members))
            == 400
        )


def deep_json(port: int) -> None:
    body = b'{"a":' * 200_000
    for _ in range(10):
        assert (
            status_of(send(port, JSON + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)) == 400
        )


def packed_bodies(port: int) -> None:
    body = gzip.compress(b" " * 100_000_000, 1)[:900_000]
    head = JSON + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    for _ in range(10):
        assert status_of(exchange(port, head + body)) == 413


def broken_chunks(port: int) -> None:
    head = JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    for body in (b"zz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", chunked(b" " * 65536) * 50, chunked(b" ") * 200_000):
        assert status_of(send(port, head + body)) in (400, 413, 0)
    assert status_of(send(port, head + b"1;", *[b"x" * 65536] * 20)) in (431, 0)
    assert status_of(send(port, head + b"0\r\nX: ", *[b"x" * 65536] * 20)) in (431, 0)


def requests_in_a_row(port: int) -> None:
    assert send(port, b"GET /healthz HTTP/1.1\r\n\r\n" * 50_000).count(b"HTTP/1.1 ") < 1000


def half_closed(port: int) -> None:
    with ExitStack() as stack:
        for data in (b"", POST, JSON + b"Content-Length: 9\r\n\r\n1", callback()) * 30:
            connection = stack.enter_context(connect(port))
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        time.sleep(0.5)


def unread_answers(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(connect(port))
            connection.settimeout(0.1)
            with suppress(OSError):
                for _ in range(50):
                    connection.sendall(b"GET /openapi.json HTTP/1.1\r\n\r\n" * 10)


def unproven(port: int) -> None:
    bad = callback().replace(b'"sign": "', b'"sign": "0')
    bad = re.sub(rb"Content-Length: (\d+)", lambda found: b"Content-Length: %d" % (int(found[1]) + 1), bad)
    for _ in range(40):
        answers = send(port, bad * 10 + b"GET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert (answers.count(b"HTTP/1.1 401 "), answers.count(b"HTTP/1.1 404 ")) == (10, 1)


def hostile_numbers(port: int) -> None:
    for number in (b"9" * 900_000, b"1e" + b"9" * 900_000, b"-0." + b"0" * 900_000):
        body = b'{"taskId": ' + number + b"}"
        answer = send(port, JSON + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert status_of(answer) == 400


def every_bad_request(port: int) -> None:
    for bad in (bad_requests() + bad_messages()) * 2:
        target = f"{bad.path}?{bad.query}" if bad.query else bad.path
        head = f"{bad.method} {target} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in bad.headers.items())
        if bad.chunked:
            parts = (f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), chunked(bad.body), b"0\r\n\r\n")
        else:
            parts = (f"{head}Content-Length: {len(bad.body)}\r\n\r\n".encode(), bad.body)
        # A too large body is refused while it still arrives, and the answer may be lost with the connection.
        statuses = (bad.status, 0) if bad.status == 413 else (bad.status,)
        assert status_of(send(port, *parts)) in statuses, bad.name


def copies_at_other_actions(port: int) -> None:
    original = callback("inst-copied")
    assert status_of(exchange(port, original)) == 200
    for _ in range(200):
        assert status_of(exchange(port, original.replace(b"/complete ", b"/cancel "))) == 401
    assert status_of(exchange(port, original)) == 200


ATTACKS = (
    header_bomb,
    many_headers,
    long_url,
    slow_heads,
    slow_bodies,
    idle_connections,
    many_parameters,
    deep_json,
    packed_bodies,
    broken_chunks,
    requests_in_a_row,
    half_closed,
    unread_answers,
    unproven,
    hostile_numbers,
    every_bad_request,
    copies_at_other_actions,
)


@contextmanager
def running(folder: Path, stack: Endpoints, **environment: str) -> Generator[Edge]:
    edge = Edge(folder, stack, **environment)
    try:
        yield edge
    finally:
        code = edge.stop()
    assert code == 0


@pytest.fixture(scope="module")
def edge(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Generator[Edge]:
    # At DEBUG the log has a line for accepted callbacks too.
    limits = {"EDGE_MAX_CONNECTIONS": "200", "EDGE_LOG_LEVEL": "DEBUG"}
    with running(tmp_path_factory.mktemp("edge"), stack, **limits) as edge:
        edge.wait_until("/readyz")
        for _ in range(50):
            edge.good()
        yield edge


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_under_attack_good_callbacks_are_answered_in_time(edge: Edge, attack: Callable[[int], None]) -> None:
    failed: list[BaseException] = []
    before = edge.memory()

    def run() -> None:
        try:
            attack(edge.port)
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            failed.append(error)

    attacker = threading.Thread(target=run)
    attacker.start()
    times = [edge.good()]
    while attacker.is_alive():
        times.append(edge.good())
        time.sleep(0.02)
    attacker.join()
    times.append(edge.good())
    assert failed == []
    assert max(times) < IN_TIME_S
    assert edge.memory() - before < GROWTH_BYTES


def test_after_all_attacks_nothing_is_left_and_nothing_was_unforeseen(edge: Edge) -> None:
    def connections() -> float:
        answer = edge.get("/metrics")
        assert answer is not None
        found = re.search(r"^taskbridge_edge_connections (\S+)$", answer.text, re.MULTILINE)
        assert found is not None
        return float(found[1])

    wait_until(lambda: connections() <= 2)
    text = edge.get("/metrics")
    assert text is not None
    assert not re.search(r'outcome="error"[^}]*\} [^0]', text.text)
    lines = edge.log()
    assert not [line for line in lines if "exception" in line or line["level"] == "critical"]
    assert max(len(json.dumps(line)) for line in lines) < 1000


def test_a_made_up_forwarded_address_changes_nothing(edge: Edge) -> None:
    for header in ("X-Forwarded-For: 203.0.113.5", "Forwarded: for=203.0.113.5", "X-Real-IP: 203.0.113.5"):
        assert status_of(exchange(edge.port, callback("spoofed", header))) == 200
    addresses = {line.get("remote_address") for line in edge.log() if line["event"] == "callback_accepted"}
    assert addresses == {"127.0.0.1"}


@contextmanager
def bad_registry(*, drips: bool) -> Generator[tuple[str, list[socket.socket]]]:
    """A server that accepts connections and never answers, or only one byte at a time."""
    over = threading.Event()
    accepted: list[socket.socket] = []

    def serve() -> None:
        while not over.wait(0.2):
            with suppress(TimeoutError):
                accepted.append(listener.accept()[0])
                if drips:
                    accepted[-1].sendall(b"HTTP/1.1 200 OK\r\nX: ")
            for connection in accepted if drips else []:
                with suppress(OSError):
                    connection.sendall(b"x")

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        listener.settimeout(0.1)
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", accepted
        over.set()
        thread.join()
    for connection in accepted:
        connection.close()


@pytest.mark.parametrize("drips", [False, True], ids=["swallows", "drips"])
def test_it_ends_in_time_with_stuck_senders_and_a_registry_that_never_answers(
    tmp_path: Path,
    stack: Endpoints,
    drips: bool,  # noqa: FBT001
) -> None:
    with bad_registry(drips=drips) as (registry_url, accepted), ExitStack() as held:
        edge = Edge(tmp_path, stack, EDGE_SCHEMA_REGISTRY_URL=registry_url)
        wait_until(lambda: len(accepted) > 0)
        for data in (b"", POST, JSON + b"Content-Length: 9\r\n\r\n1") * 5:
            held.enter_context(connect(edge.port)).sendall(data)
        time.sleep(1)
        started = time.monotonic()
        assert edge.stop() == 0
        assert time.monotonic() - started < 25
