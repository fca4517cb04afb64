"""One connection: what was missed, then what comes, in order; an end that is said; and who may listen at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from fastapi.testclient import TestClient

from support.streams.api_context import AnsweringWorker
from taskbridge.streams.api.access import Access
from taskbridge.streams.api.tokens import TokensFile, digest_of
from taskbridge.streams.http import build_http
from taskbridge.streams.sse.hub import Hub
from taskbridge.streams.sse.missed import MissedPart, MissedUnreadable
from taskbridge.streams.sse.routes import events_router
from taskbridge.streams.sse.stream import HoldsStreams, Writer
from taskbridge.streams.sse.subscription import WAITING_MAX
from taskbridge.streams.sse.wire import Place

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from taskbridge.schemas.events import TaskNotification
    from taskbridge.streams.sse.missed import MissedReader


class Missed:
    """Pages as they were prepared; ``asked`` has what was asked for."""

    def __init__(self, *parts: MissedPart | Exception) -> None:
        self._parts = list(parts)
        self.asked: list[tuple[int, int]] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def read(self, _partition: int, start: int, until: int, _person: tuple[str, str]) -> MissedPart:
        self.asked.append((start, until))
        self.meanwhile()
        part = self._parts.pop(0)
        if isinstance(part, Exception):
            raise part
        return part


class Connection:
    """An ASGI connection whose client may stop reading."""

    def __init__(
        self,
        hub: Hub,
        missed: Missed | None = None,
        resume: Place | None = None,
        *,
        may_go_on: Callable[[float], bool] = lambda _: True,
    ) -> None:
        self.body = b""
        self.complete = False
        self.reads = asyncio.Event()
        self.reads.set()
        self._gone = asyncio.Event()
        self.subscription = hub.subscribe("corp", "ann", 0, now=0, may_go_on=may_go_on)
        writer = Writer(hub, cast("MissedReader", missed), self.subscription, resume)
        self.task = asyncio.create_task(writer.run(self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.reads.wait()
        self.body += message.get("body", b"")
        if message["type"] == "http.response.body" and not message["more_body"]:
            self.complete = True
            self._gone.set()

    async def close(self) -> None:
        self._gone.set()
        await self.task

    @property
    def ids(self) -> list[str]:
        frames = self.body.decode().split("\n\n")
        return [each.split("\n")[0].removeprefix("id: ") for each in frames if "event: notification" in each]


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def make_hub(next_offset: int = 5) -> Hub:
    return Hub(next_offset=lambda _: next_offset, most=10, most_of_person=32)


def tell(hub: Hub, notification: TaskNotification, *offsets: int) -> None:
    hub.told(0, (offsets[0], offsets[-1] + 1), [(offset, notification) for offset in offsets])


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(cast("Any", test()))


def frames(*offsets: int) -> list[bytes]:
    return [f"id: 0-{offset + 1}\nevent: notification\ndata: x\n\n".encode() for offset in offsets]


def test_a_new_stream_gets_a_place_at_once_and_then_what_comes(notification: TaskNotification) -> None:
    async def test() -> None:
        hub = make_hub()
        connection = Connection(hub)
        await turns()
        assert connection.body.startswith(b"retry: ")
        assert b"id: 0-5\n\n" in connection.body
        tell(hub, notification, 5, 6)
        await turns()
        assert connection.ids == ["0-6", "0-7"]
        assert (hub.count, hub.sent) == (1, 2)
        await connection.close()
        assert hub.count == 0

    run(test)


def test_who_wants_to_know_is_told_when_a_notification_is_written_and_by_each_stream(
    notification: TaskNotification,
) -> None:
    """Not when it is put in: a reader that stops reading is waited for."""

    async def test() -> None:
        hub, written = make_hub(), list[str]()
        slow, quick = Connection(hub), Connection(hub)
        await turns()
        slow.reads.clear()
        hub.told(0, (5, 7), [(5, notification), (6, notification)], {6: lambda: written.append("6")})
        assert written == []
        await turns()
        assert (quick.ids, slow.ids, written) == (["0-6", "0-7"], [], ["6"])
        slow.reads.set()
        await turns()
        assert (slow.ids, written) == (["0-6", "0-7"], ["6", "6"])
        tell(hub, notification, 7)
        await turns()
        assert written == ["6", "6"]
        for each in (slow, quick):
            await each.close()

    run(test)


def test_what_comes_while_the_missed_is_read_comes_after_it_and_once(notification: TaskNotification) -> None:
    async def test() -> None:
        hub = make_hub(next_offset=5)
        missed = Missed(MissedPart(frames(2), reached=4), MissedPart(frames(4), reached=5))
        missed.meanwhile = lambda: tell(hub, notification, 5)
        connection = Connection(hub, missed, Place(0, 2))
        await turns(20)
        assert missed.asked == [(2, 5), (4, 5)]
        assert connection.ids == ["0-3", "0-5", "0-6"]
        await connection.close()

    run(test)


def test_nothing_is_read_when_nothing_was_missed() -> None:
    async def test() -> None:
        missed = Missed()
        connection = Connection(make_hub(next_offset=5), missed, Place(0, 5))
        await turns()
        assert missed.asked == []
        await connection.close()

    run(test)


@pytest.mark.parametrize(
    ("resume", "part", "resets"),
    [
        (Place(0, 2), MissedPart(reached=5, is_cut=True), 1),
        (Place(0, 900), MissedPart(reached=5, is_ahead=True), 1),
        (Place(7, 2), MissedPart(), 1),
        (Place(0, 7), MissedPart(reached=5), 0),
    ],
    ids=["retention took it", "of a longer topic", "of another partition", "a worker was ahead"],
)
def test_what_can_no_longer_be_sent_is_said(
    notification: TaskNotification, resume: Place, part: MissedPart, resets: int
) -> None:
    async def test() -> None:
        hub = make_hub(next_offset=5)
        connection = Connection(hub, Missed(part), resume)
        await turns()
        assert connection.body.count(b"event: reset\n") == resets
        tell(hub, notification, 5, 6, 7)
        await turns()
        # Who was ahead has seen 5 and 6 already, but no list here had them.
        assert connection.ids == ["0-6", "0-7", "0-8"]
        await connection.close()

    run(test)


def test_a_reader_that_stops_reading_is_ended_and_told_so_when_it_reads_again(notification: TaskNotification) -> None:
    async def test() -> None:
        hub = make_hub()
        connection = Connection(hub)
        await turns()
        connection.reads.clear()
        for offset in range(5, 5 + WAITING_MAX + 10):
            tell(hub, notification, offset)
            await asyncio.sleep(0)
        assert connection.subscription.ending == "slow"
        connection.reads.set()
        await connection.task
        assert connection.complete
        assert b": closed: slow\n\n" in connection.body
        assert hub.count == 0

    run(test)


def test_a_stop_ends_the_answer_properly() -> None:
    async def test() -> None:
        hub = make_hub()
        connections = [Connection(hub), Connection(hub)]
        await turns()
        hub.stop()
        await asyncio.gather(*(each.task for each in connections))
        assert all(each.complete for each in connections)

    run(test)


def test_what_cannot_be_read_ends_the_stream_and_the_client_keeps_its_place() -> None:
    async def test() -> None:
        connection = Connection(make_hub(), Missed(MissedUnreadable("Kafka is away")), Place(0, 2))
        await connection.task
        assert connection.complete
        assert b"id: " not in connection.body

    run(test)


def test_a_heartbeat_is_written_when_its_time_has_come() -> None:
    async def test() -> None:
        hub = make_hub()
        connection = Connection(hub)
        await turns()
        before = connection.body.count(b": alive\n")
        hub.beat(1000)
        await turns()
        assert connection.body.count(b": alive\n") == before + 1
        await connection.close()

    run(test)


def test_the_route_gives_each_stream_the_access_that_let_it_in(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    entry = '[[tokens]]\nname = "{0}"\nsha256 = "{1}"\ncorps = ["corp"]\n'
    tokens.write_text(entry.format("portal", digest_of("secret")))
    access = Access(tokens=TokensFile(tokens))
    context = AnsweringWorker(tmp_path / "worker", access)
    hub, begun, ended = make_hub(), asyncio.Event(), asyncio.Event()
    router = events_router(hub, lambda: cast("MissedReader", Missed()), context.context.resolver)
    app = HoldsStreams(build_http(dict, context.metrics, routers=[router]))
    body = bytearray()

    async def receive() -> dict[str, Any]:
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        body.extend(message.get("body", b""))
        begun.set()
        if message["type"] == "http.response.body" and not message["more_body"]:
            ended.set()

    async def test() -> None:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/v1/corps/corp/users/ann/events",
            "query_string": b"",
            "headers": [(b"authorization", b"Bearer secret")],
            "client": ("127.0.0.1", 1),
        }
        stream = asyncio.create_task(app(scope, receive, send))
        await begun.wait()
        tokens.write_text(entry.format("portal", digest_of("another")))
        assert access.tokens is not None
        access.tokens.reload_if_changed()
        hub.beat(asyncio.get_running_loop().time() + 1000)
        await asyncio.wait_for(stream, 10)

    run(test)
    assert b": closed: access\n\n" in body
    assert hub.count == 0
    context.close()


def client_of(
    folder: Path, access: Access, *, most: int = 10, most_of_person: int = 32
) -> tuple[AnsweringWorker, TestClient]:
    context = AnsweringWorker(folder, access)
    hub = Hub(next_offset=lambda _: 5, most=most, most_of_person=most_of_person)
    router = events_router(hub, lambda: cast("MissedReader", object()), context.context.resolver)
    return context, TestClient(build_http(dict, context.metrics, routers=[router]))


def test_a_stream_whose_token_was_taken_back_ends_within_a_heartbeat() -> None:
    async def test() -> None:
        hub, may = make_hub(), [True]
        connection = Connection(hub, may_go_on=lambda _: may[0])
        hub.beat(1000)
        await turns()
        assert not connection.complete
        may.clear()
        may.append(False)
        hub.beat(2000)
        await connection.task
        assert connection.complete
        assert b": closed: access\n\n" in connection.body

    run(test)


@pytest.mark.parametrize(
    ("headers", "query", "says"),
    [
        ({"Last-Event-ID": "nonsense"}, "", "Last-Event-ID"),
        ({}, "?last_event_id=1", "Last-Event-ID"),
        ({"Last-Event-ID": "1" * 100}, "", "last-event-id"),
    ],
)
def test_an_id_that_was_never_given_is_refused(tmp_path: Path, headers: dict[str, str], query: str, says: str) -> None:
    context, client = client_of(tmp_path, Access(tokens=None))
    answer = client.get(f"/v1/corps/corp/users/ann/events{query}", headers=headers)
    assert answer.status_code == 400
    assert says.lower() in answer.json()["detail"].lower()
    context.close()


def test_more_streams_than_there_may_be_are_told_when_to_come_back(tmp_path: Path) -> None:
    context, client = client_of(tmp_path, Access(tokens=None), most=0)
    answer = client.get("/v1/corps/corp/users/ann/events")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    context.actives.clear()
    assert client.get("/v1/corps/corp/users/ann/events").status_code == 503
    context.close()


def test_one_person_does_not_take_the_places_of_all_others(tmp_path: Path) -> None:
    context, client = client_of(tmp_path, Access(tokens=None), most_of_person=0)
    answer = client.get("/v1/corps/corp/users/ann/events")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert "one person" in answer.json()["detail"]
    context.close()
