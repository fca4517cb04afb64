"""A sender that exceeds a limit gets an answer and is disconnected; all others are served, and lose nothing."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

import pytest
import uvicorn

from support.edge.fakes import SYSTEM_TOKEN, MemoryPublisher, parameters_of
from support.http_clients import callback, connect, exchange, read_all, read_answer, status_of
from taskbridge.edge.app import create_app
from taskbridge.edge.sender import encode_callback, signed
from taskbridge.edge.server import protocol
from taskbridge.edge.server.exchange import FREE_BODY_BYTES
from taskbridge.edge.server.protocol import MAX_PIPELINED, EdgeProtocol
from taskbridge.edge.server.sockets import listen
from taskbridge.edge.settings import EdgeSettings
from taskbridge.local.host import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from taskbridge.edge.app import EdgeApp
    from taskbridge.edge.events import Decided, Durability
    from taskbridge.edge.server.sockets import Listener

POST = b"POST /yida/tasks/complete HTTP/1.1\r\nHost: edge\r\n"


class Served:
    """The edge's app behind the protocol, in a thread of this process."""

    def __init__(self, settings: EdgeSettings, publisher: MemoryPublisher) -> None:
        self.sockets = listen("127.0.0.1", free_port(), reuse_port=True)
        self.port = int(self.sockets[0].getsockname()[1])
        self.app = cast("EdgeApp", create_app(settings, publisher=publisher))
        self.server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                loop="taskbridge.edge.server.sockets:AcceptingLoop",
                http=EdgeProtocol,
                proxy_headers=False,
                log_config=None,
                access_log=False,
                ws="none",
                timeout_keep_alive=2,
                timeout_graceful_shutdown=8,
            )
        )
        self._thread = threading.Thread(target=self.server.run, args=(self.sockets,))

    def start(self) -> None:
        self._thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def halt(self) -> threading.Event:
        """Its loop does nothing until the event is set."""
        resumed = threading.Event()
        cast("Listener", self.server.servers[0]).get_loop().call_soon_threadsafe(resumed.wait)
        return resumed

    def end(self) -> None:
        self.server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()

    def open(self) -> int:
        return len(self.server.server_state.connections)

    def refused(self, reason: str) -> float:
        text = exchange(self.port, b"GET /metrics HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n").decode()
        found = [line for line in text.splitlines() if f'refused_total{{reason="{reason}"}}' in line]
        return float(found[0].split()[1]) if found else 0


@pytest.fixture
def serve(settings: EdgeSettings, publisher: MemoryPublisher) -> Generator[Callable[..., Served]]:
    with ExitStack() as stack:

        def start(head_s: float = protocol.HEAD_S, **changed: Any) -> Served:
            stack.enter_context(patch.object(protocol, "HEAD_S", head_s))
            changed_settings = EdgeSettings.model_validate({**settings.model_dump(), **changed})
            served = Served(changed_settings, publisher)
            served.start()
            stack.callback(served.end)
            return served

        yield start


def eventually(condition: Callable[[], bool], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def is_closed_to(connection: socket.socket, data: bytes) -> bool:
    try:
        connection.sendall(data)
    except OSError:
        return True
    return False


@contextmanager
def sent(port: int, data: bytes) -> Generator[socket.socket]:
    with connect(port) as connection:
        connection.sendall(data)
        yield connection


def problem_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    found = json.loads(body)
    assert (found["status"], found["success"]) == (status_of(answer), False)
    return status_of(answer), found["type"].rpartition(":")[2]


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (POST + b"X: " + b"x" * 20_000 + b"\r\n\r\n", (431, "large-head")),
        (POST + b"X: " + b"x" * 1_000_000, (431, "large-head")),  # never ended: httptools keeps it to itself
        (POST + b"x" * 1_000_000, (431, "large-head")),
        (POST + b"".join(b"X-%d: 1\r\n" % each for each in range(101)) + b"\r\n", (431, "large-head")),
        (POST + b"".join(b"X-%d: %s\r\n" % (each, b"x" * 500) for each in range(40)), (431, "large-head")),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", (414, "long-url")),
        (b"GET /" + b"x" * 1_000_000, (414, "long-url")),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", (400, "malformed-http")),
        (b"CONNECT edge:443 HTTP/1.1\r\n\r\n", (400, "malformed-http")),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzzz\r\n", (400, "malformed-http")),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", (400, "malformed-http")),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 100_000, (431, "large-head")),  # a chunk's extension
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 100_000, (431, "large-head")),  # a trailer
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", (431, "large-head")),
    ],
)
def test_a_request_over_a_limit_gets_its_problem_and_is_closed(
    serve: Callable[..., Served], publisher: MemoryPublisher, head: bytes, answer: tuple[int, str]
) -> None:
    served = serve()
    with connect(served.port) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(head)
        assert problem_of(read_all(connection)) == answer
    assert served.refused(answer[1]) == 1
    assert publisher.published == []
    eventually(lambda: served.open() == 0)
    assert status_of(exchange(served.port, callback())) == 200


def test_heads_of_just_the_right_size_are_served(serve: Callable[..., Served]) -> None:
    served = serve()
    assert status_of(exchange(served.port, callback("i", f"X: {'x' * 16_000}"))) == 200
    assert status_of(exchange(served.port, callback("i", *(f"X-{each}: 1" for each in range(90))))) == 200
    long = b"GET /healthz?" + b"x" * 65_000 + b" HTTP/1.1\r\nHost: edge\r\n\r\n"
    assert status_of(exchange(served.port, long)) == 200


@pytest.mark.parametrize("drip", [b"X-A: 1\r\n", b"x"])
def test_a_head_that_drips_in_is_aborted_in_time(serve: Callable[..., Served], drip: bytes) -> None:
    served = serve(head_s=0.5)
    with sent(served.port, POST) as connection:

        def refused_while_it_drips() -> bool:
            with suppress(OSError):
                connection.sendall(drip)
            return served.refused("slow-head") > 0

        eventually(refused_while_it_drips)
        assert problem_of(read_all(connection)) == (408, "slow-head")


def test_a_connection_without_a_request_is_closed_in_time(serve: Callable[..., Served]) -> None:
    served = serve(head_s=0.3)
    with connect(served.port) as connection:
        assert read_all(connection) == b""


def test_empty_lines_keep_no_connection_open(serve: Callable[..., Served]) -> None:
    served = serve(head_s=0.5)
    with sent(served.port, callback()) as connection:
        read_answer(connection)
        eventually(lambda: is_closed_to(connection, b"\r\n"))


def test_the_next_head_on_a_connection_has_its_time_too(serve: Callable[..., Served]) -> None:
    served = serve(head_s=0.4)
    with sent(served.port, callback()) as connection:
        read_answer(connection)
        time.sleep(0.5)  # keep-alive is longer than a head may take
        connection.sendall(callback())
        assert status_of(read_answer(connection)) == 200
        connection.sendall(POST)
        assert problem_of(read_all(connection)) == (408, "slow-head")


def test_an_answer_before_the_end_of_the_body_is_seen_and_then_closed(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 0.5)
    served = serve()
    with sent(served.port, POST + b"Content-Length: 9000000\r\n\r\n") as connection:
        assert status_of(read_answer(connection)) == 413
        eventually(lambda: is_closed_to(connection, b"x" * 1000))


def test_a_body_that_ends_after_its_answer_leaves_the_connection_open(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 0.2)
    served = serve()
    with sent(served.port, b"POST /nowhere HTTP/1.1\r\nHost: edge\r\nContent-Length: 4\r\n\r\n12") as connection:
        assert status_of(read_answer(connection)) == 404
        connection.sendall(b"34" + callback())
        assert status_of(read_answer(connection)) == 200
        time.sleep(0.3)  # longer than what is left of a body may take
        connection.sendall(callback("later"))
        assert status_of(read_answer(connection)) == 200


def test_a_sender_that_closes_its_side_at_once_is_served(
    serve: Callable[..., Served], publisher: MemoryPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = MemoryPublisher.publish

    async def publish_slowly(self: MemoryPublisher, decided: Decided, *, traceparent: str | None) -> Durability:
        await asyncio.sleep(0.1)
        return await publish(self, decided, traceparent=traceparent)

    monkeypatch.setattr(MemoryPublisher, "publish", publish_slowly)
    served = serve()
    for number in range(5):
        with sent(served.port, callback(f"half-{number}")) as connection:
            connection.shutdown(socket.SHUT_WR)
            assert status_of(read_all(connection)) == 200
    assert len(publisher.published) == 5
    with sent(served.port, callback()[:-1]) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""


def test_an_offer_to_upgrade_is_ignored(serve: Callable[..., Served]) -> None:
    # Java's HttpClient makes it with every first request, whose body is as good as any.
    headers = (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA",
    )
    served = serve()
    good = callback("i", *headers)
    assert status_of(exchange(served.port, good)) == 200
    head, _, body = good.partition(b"\r\n\r\n")
    with sent(served.port, head + b"\r\n\r\n") as connection:
        time.sleep(0.1)
        connection.sendall(body + callback("next", "Connection: close"))
        assert read_all(connection).count(b"HTTP/1.1 200 ") == 2


def test_requests_in_a_row_are_answered_in_order(serve: Callable[..., Served], publisher: MemoryPublisher) -> None:
    served = serve()
    requests = [callback(f"row-{number}") for number in range(10)]
    with sent(served.port, b"".join(requests) + b"GET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n") as connection:
        answers = read_all(connection)
    assert [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]] == [b"200"] * 10 + [b"404"]
    assert [event.instance_id for event in publisher.published] == [f"row-{number}" for number in range(10)]


def test_too_many_requests_in_a_row_are_not_piled_up(serve: Callable[..., Served], publisher: MemoryPublisher) -> None:
    served = serve()
    with sent(served.port, callback("first") + b"GET / HTTP/1.1\r\n\r\n" * 5000) as connection:
        answers = read_all(connection)
    assert answers.count(b"HTTP/1.1 ") <= MAX_PIPELINED + 1
    assert status_of(answers) == 200
    assert [event.instance_id for event in publisher.published] == ["first"]
    assert served.refused("pipelined") == 1


def test_idle_connections_give_way_to_new_ones(serve: Callable[..., Served]) -> None:
    served = serve(max_connections=20)
    with ExitStack() as stack:
        idle = [
            stack.enter_context(sent(served.port, each))
            for each in (b"", POST, POST + b"Content-Length: 9\r\n\r\n") * 20
        ]
        for _ in range(30):
            assert status_of(exchange(served.port, callback())) == 200
        assert served.open() <= 20
        assert served.refused("gave-way") >= 40
        assert read_all(idle[0]) == b""


def test_a_new_connection_waits_for_room_while_all_are_served(
    serve: Callable[..., Served], publisher: MemoryPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    async def wait(*_: object, **__: object) -> str:
        await asyncio.to_thread(released.wait)
        return "kafka"

    monkeypatch.setattr(type(publisher), "publish", wait)
    served = serve(max_connections=3)
    with ExitStack() as stack:
        working = [stack.enter_context(sent(served.port, callback())) for _ in range(3)]
        eventually(lambda: len(served.app.callbacks.open) == 3)
        late = stack.enter_context(sent(served.port, callback("late")))
        released.set()
        assert [status_of(read_answer(each)) for each in [*working, late]] == [200] * 4


def test_more_connections_than_there_is_room_for_lose_none(serve: Callable[..., Served]) -> None:
    served = serve(max_connections=3)
    with ExitStack() as stack:
        resumed = served.halt()  # as while it starts
        crowd = [stack.enter_context(sent(served.port, callback(f"crowd-{each}"))) for each in range(50)]
        resumed.set()
        assert [status_of(read_answer(each)) for each in crowd] == [200] * 50


def test_large_bodies_share_a_bound_and_small_ones_pass(serve: Callable[..., Served]) -> None:
    served = serve()
    part = POST + b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n" + b" " * 900_000
    with ExitStack() as stack:
        held = [stack.enter_context(sent(served.port, part)) for _ in range(90)]
        answered, _, _ = select.select(held, [], [], 10)  # those without room
        assert {status_of(read_answer(each)) for each in answered} == {503}
        assert status_of(exchange(served.port, callback())) == 200
    eventually(lambda: served.open() == 0)
    assert status_of(exchange(served.port, part + b" " * 100_000)) == 400  # their room is free again


def test_a_body_that_is_there_at_once_is_within_the_limits_too(serve: Callable[..., Served]) -> None:
    served = serve(max_body_bytes=1000)
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b" " * 1001 + b"\r\n0\r\n\r\n"
    assert status_of(exchange(served.port, chunked)) == 413
    roomy = serve()
    roomy.app.callbacks.large_bodies.room = 0
    for size, answer in ((FREE_BODY_BYTES, 400), (FREE_BODY_BYTES + 1, 503)):
        body = POST + b"Content-Length: %d\r\n\r\n" % size + b" " * size
        assert status_of(exchange(roomy.port, body)) == answer


def test_while_the_reader_lags_behind_an_answer_waits(serve: Callable[..., Served]) -> None:
    served = serve()
    with connect(served.port) as connection:
        eventually(lambda: served.open() == 1)
        (at_work,) = served.server.server_state.connections
        limited = cast("EdgeProtocol", at_work)
        limited.loop.call_soon_threadsafe(limited.pause_writing)
        connection.sendall(callback())
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(10)
        limited.loop.call_soon_threadsafe(limited.resume_writing)
        assert status_of(read_answer(connection)) == 200


def test_a_reader_that_never_reads_is_disconnected(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "UNREAD_S", 1)
    monkeypatch.setattr(protocol, "MAX_PIPELINED", 10_000)
    served = serve()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", served.port))
        with suppress(OSError):
            for _ in range(1500):
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\n\r\n")
                time.sleep(0.001)
        eventually(lambda: served.open() == 0)


def test_shutdown_answers_open_requests_and_closes_those_that_hang(
    serve: Callable[..., Served], publisher: MemoryPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LAST_BODY_S", 2)
    served = serve()
    good = callback("last")
    with ExitStack() as stack:
        idle = stack.enter_context(connect(served.port))
        halted_head = stack.enter_context(sent(served.port, POST))
        halted_body = stack.enter_context(sent(served.port, good[:-5]))
        slow_body = stack.enter_context(sent(served.port, good[:-5]))
        eventually(lambda: served.open() == 4)
        served.server.should_exit = True
        eventually(lambda: not served.server.servers[0].is_serving())
        slow_body.sendall(good[-5:])
        assert status_of(read_all(slow_body)) == 200
        assert problem_of(read_all(halted_body)) == (503, "stopping")
        assert read_all(idle) == b""
        assert problem_of(read_all(halted_head)) == (503, "stopping")
        with pytest.raises(ConnectionRefusedError):
            connect(served.port)
    assert [event.instance_id for event in publisher.published] == ["last"]


def test_shutdown_answers_a_request_that_is_not_read_yet(serve: Callable[..., Served]) -> None:
    served = serve()
    with ExitStack() as stack:
        used = stack.enter_context(sent(served.port, callback("first")))
        fresh = stack.enter_context(connect(served.port))
        read_answer(used)
        eventually(lambda: served.open() == 2)
        resumed = served.halt()
        used.sendall(callback("second"))
        fresh.sendall(callback("only"))
        waiting = [stack.enter_context(sent(served.port, callback(f"waits-{each}"))) for each in range(20)]
        served.server.should_exit = True
        resumed.set()
        answers = [read_all(each) for each in [used, fresh, *waiting]]
    assert [status_of(each) for each in answers] == [200] * 22


def in_query(line: str, *, value: str = "张红", path: str = "/yida/tasks/complete") -> tuple[bytes, bytes]:
    """A callback in the query as people paste it: in raw UTF-8. Its request line, and the rest of its head."""
    parameters = signed(
        {**parameters_of("complete", instance_id=line), "actualWorkId": value}, system_token=SYSTEM_TOKEN
    )
    query = "&".join(f"{key}={text}" for key, text in parameters.items())
    return f"POST {path}?{query} HTTP/1.1\r\n".encode(), b"Host: edge\r\nContent-Length: 0\r\n\r\n"


def before_another(kind: str) -> bytes:
    """A callback in front of another on the same connection; what its body says looks like one, and is none."""
    sent = signed(
        {**parameters_of("complete", instance_id="one"), "actualWorkId": "GET /张 HTTP/1.1 POST 张"},
        system_token=SYSTEM_TOKEN,
    )
    encoded = encode_callback(sent, "multipart")  # the one that leaves it as it is
    head = POST + f"Content-Type: {encoded.headers['Content-Type']}\r\n".encode()
    if kind == "chunked":
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(encoded.body), encoded.body)
    return head + b"Content-Length: %d\r\n\r\n%s" % (len(encoded.body), encoded.body)


def read_until(connection: socket.socket, found: bytes, *, answers: int) -> bytes:
    while found.count(b"HTTP/1.1 ") < answers or not found.endswith(b"}"):
        received = connection.recv(65536)
        assert received, found
        found += received
    return found


@pytest.mark.parametrize("kind", ["counted", "chunked"])
def test_raw_utf_8_is_understood_in_a_request_that_came_with_the_one_before_it(
    serve: Callable[..., Served], publisher: MemoryPublisher, kind: str
) -> None:
    served = serve()
    line, head = in_query("two")
    first, second = before_another(kind), line + b"X: a\r\n" + head
    for cut in (len(second), 0, 2, 5, 9, line.index(b"?"), line.index("张".encode()) + 1, len(line) - 8, len(line) + 2):
        with sent(served.port, first + second[:cut]) as connection:
            found = read_until(connection, b"", answers=1)  # so it has been read, and what follows comes by itself
            connection.sendall(second[cut:])
            assert read_until(connection, found, answers=2).count(b"HTTP/1.1 200 ") == 2, cut
    assert {(event.instance_id, event.actor_id) for event in publisher.published} == {
        ("one", "GET /张 HTTP/1.1 POST 张"),
        ("two", "张红"),
    }


def test_raw_bytes_of_a_header_stay_as_they_are(serve: Callable[..., Served], publisher: MemoryPublisher) -> None:
    served = serve(bearer_tokens="口令")
    bearer = "Authorization: Bearer 口令\r\n".encode()
    line, head = in_query("two")
    second = line + bearer + head
    first = callback("one").replace(b"Host: edge\r\n", b"Host: edge\r\n" + bearer)
    for cut in (len(second), len(line), len(line) + 3, len(line) + 24):
        with sent(served.port, first + second[:cut]) as connection:
            found = read_until(connection, b"", answers=1)
            connection.sendall(second[cut:])
            assert read_until(connection, found, answers=2).count(b"HTTP/1.1 200 ") == 2, cut
    assert len(publisher.published) == 8


def test_raw_bytes_that_are_no_utf_8_are_a_problem_and_quarantined(
    serve: Callable[..., Served], publisher: MemoryPublisher
) -> None:
    served = serve()
    first, head = in_query("one")
    assert status_of(exchange(served.port, first.replace("张".encode(), b"\xff\xfe") + head)) == 400
    (entry,) = publisher.quarantined
    assert (entry.reason, "%FF%FE" in entry.query) == ("invalid-utf-8", True)


def test_a_query_is_no_longer_than_its_escapes(serve: Callable[..., Served]) -> None:
    served = serve()
    first, head = in_query("one", value="张" * 8_000)
    assert problem_of(exchange(served.port, first + head)) == (414, "long-url")
