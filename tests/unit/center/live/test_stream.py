"""One connection: what was missed, then what comes, in order; an end that is said; and who may listen at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from support.live import CORP, EPOCH, commit_changes, purge_changes, renumber, set_epoch
from taskbridge.center.access.access import Access
from taskbridge.center.access.refusals import answer_refusals
from taskbridge.center.access.tokens import TokensFile, digest_of
from taskbridge.center.database import Database, DatabaseUnavailable
from taskbridge.center.live import hub as hub_module
from taskbridge.center.live.changes import PART
from taskbridge.center.live.hub import Hub
from taskbridge.center.live.routes import events_router
from taskbridge.center.live.stream import WAITING_MAX, HoldsStreams
from taskbridge.center.live.wire import Place

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class Connection:
    """An ASGI connection whose client may stop reading."""

    def __init__(self) -> None:
        self.body = b""
        self.complete = False
        self.reads = asyncio.Event()
        self.reads.set()
        self._gone = asyncio.Event()

    async def open(
        self,
        hub: Hub,
        resume: Place | None = None,
        *,
        may_go_on: Callable[[float], bool] = lambda _: True,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Connection:
        """``meanwhile`` happens between the subscription and the first frame."""
        self.subscription = await hub.subscribe(CORP, "ann", now=0, may_go_on=may_go_on)
        meanwhile()
        self.subscription.resume = resume
        self.task = asyncio.create_task(self.subscription.run(self._receive, self._send))
        return self

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.reads.wait()
        self.body += message.get("body", b"")
        if message["type"] == "http.response.body" and not message["more_body"]:
            self.complete = True
            self._gone.set()

    async def until(self, expected: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not expected():  # noqa: ASYNC110 - of many objects, whose only event is the writer's
                await asyncio.sleep(0.002)

    async def until_ids(self, *ids: int) -> None:
        wanted = [f"{EPOCH}-{each}" for each in ids]
        await self.until(lambda: len(self.ids) >= len(wanted))
        assert self.ids == wanted

    async def close(self) -> None:
        self._gone.set()
        await self.task

    @property
    def ids(self) -> list[str]:
        frames = self.body.decode().split("\n\n")
        return [each.split("\n")[0].removeprefix("id: ") for each in frames if "event: notification" in each]


async def opened(hub: Hub, resume: Place | None = None, **more: Any) -> Connection:
    return await Connection().open(hub, resume, **more)


@pytest.fixture
def hub(sqlite_database: Database) -> Hub:
    set_epoch(sqlite_database)
    return Hub(sqlite_database, most=10, most_of_person=32)


def commit(hub: Hub, count: int = 1) -> None:
    commit_changes(hub.database, "ann", count)
    hub.changed([(CORP, "ann")])


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(cast("Any", test()))


def test_a_new_stream_gets_a_place_at_once_and_then_what_comes(hub: Hub) -> None:
    async def test() -> None:
        commit(hub, 4)
        connection = await opened(hub)
        await connection.until(lambda: b"id: e0-4\n\n" in connection.body)
        assert connection.body.startswith(b"retry: ")
        commit(hub, 2)
        await connection.until_ids(5, 6)
        assert (hub.count, hub.sent) == (1, 2)
        await connection.close()
        assert hub.count == 0

    run(test)


def test_missed_changes_come_first_in_parts_and_once(hub: Hub) -> None:
    async def test() -> None:
        commit(hub, 2 * PART + 5)
        connection = await opened(hub, Place(EPOCH, 3), meanwhile=lambda: commit(hub, 2))
        await connection.until_ids(*range(4, 2 * PART + 8))
        assert hub.sent == 2 * PART + 4
        await connection.close()

    run(test)


def test_nothing_is_read_when_nothing_was_missed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []

    def record(*arguments: Any) -> list[Any]:
        read.append(arguments)
        return []

    monkeypatch.setattr(hub_module, "changes_between", record)

    async def test() -> None:
        commit(hub, 5)
        connection = await opened(hub, Place(EPOCH, 5))
        await connection.until(lambda: b": alive\nid: e0-5\n\n" in connection.body)
        assert read == []
        await connection.close()

    run(test)


@pytest.mark.parametrize(
    ("resume", "then", "resets"),
    [
        (Place(EPOCH, 1), (4, 5, 6), 1),
        (Place(EPOCH, 900), (6,), 1),
        (Place("3", 1), (6,), 1),
    ],
    ids=["purged", "from the future", "of another epoch"],
)
def test_changes_that_can_no_longer_be_sent_are_reported(
    hub: Hub, resume: Place, then: tuple[int, ...], resets: int
) -> None:
    async def test() -> None:
        commit(hub, 5)
        purge_changes(hub.database, "ann", before=4)
        connection = await opened(hub, resume)
        await connection.until(lambda: b": alive\n" in connection.body)
        assert connection.body.count(b"event: reset\n") == resets
        commit(hub)
        await connection.until_ids(*then)
        await connection.close()

    run(test)


def test_a_client_of_a_replica_that_had_read_further_gets_nothing_twice(hub: Hub) -> None:
    async def test() -> None:
        commit(hub, 5)
        first = await opened(hub)
        commit_changes(hub.database, "ann", 2)  # this replica does not know yet
        second = await opened(hub, Place(EPOCH, 7))
        await second.until(lambda: b": alive\nid: e0-7\n\n" in second.body)
        hub.changed([(CORP, "ann")])
        commit(hub)
        await first.until_ids(6, 7, 8)
        await second.until_ids(8)
        assert b"event: reset" not in second.body
        await asyncio.gather(first.close(), second.close())

    run(test)


def test_lists_that_are_rebuilt_while_a_stream_resumes_reset_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = hub_module.changes_between

    def changes_between(*arguments: Any) -> Any:
        found = whole(*arguments)
        renumber(hub.database)
        commit_changes(hub.database, "ann", 2 * PART)
        return found

    async def test() -> None:
        commit(hub, 2 * PART)
        connection = await opened(hub, Place(EPOCH, 0))
        monkeypatch.setattr(hub_module, "changes_between", changes_between)
        await connection.until(lambda: b"event: reset\n" in connection.body)
        await connection.until_ids(*range(1, PART + 1))
        await connection.close()

    run(test)


def test_a_reader_that_stops_reading_is_ended_and_learns_why_when_it_reads_again(hub: Hub) -> None:
    async def test() -> None:
        connection = await opened(hub)
        await connection.until(lambda: b": alive\n" in connection.body)
        connection.reads.clear()
        commit(hub)
        await connection.until(lambda: connection.subscription.reached == 1)  # it is being written
        commit(hub, WAITING_MAX + 1)
        await connection.until(lambda: connection.subscription.ending == "slow")
        connection.reads.set()
        await connection.task
        assert connection.complete
        assert b": closed: slow\n\n" in connection.body
        assert hub.count == 0

    run(test)


def test_a_stop_ends_the_answer_properly(hub: Hub) -> None:
    async def test() -> None:
        connections = [await opened(hub), await opened(hub)]
        hub.stop()
        await asyncio.gather(*(each.task for each in connections))
        assert all(each.complete for each in connections)

    run(test)


def test_a_stream_whose_missed_changes_cannot_be_read_ends_and_the_client_keeps_its_place(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changes_between(*_: Any) -> Any:
        raise DatabaseUnavailable("away")

    async def test() -> None:
        commit(hub, 5)
        connection = await opened(hub, Place(EPOCH, 2))
        monkeypatch.setattr(hub_module, "changes_between", changes_between)
        await connection.task
        assert connection.complete
        assert b"id: " not in connection.body

    run(test)


def test_a_heartbeat_is_written_when_its_time_has_come(hub: Hub) -> None:
    async def test() -> None:
        connection = await opened(hub)
        await connection.until(lambda: connection.body.count(b": alive\n") == 1)
        hub.beat(1000)
        await connection.until(lambda: connection.body.count(b": alive\n") == 2)
        await connection.close()

    run(test)


def test_the_route_gives_each_stream_the_access_that_let_it_in(hub: Hub, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    entry = '[[tokens]]\nname = "{0}"\nsha256 = "{1}"\ncorps = ["corp"]\n'
    tokens.write_text(entry.format("portal", digest_of("secret")))
    access = Access(tokens=TokensFile(tokens))
    begun, ended = asyncio.Event(), asyncio.Event()
    app = HoldsStreams(app_of(hub, access))
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


def app_of(hub: Hub, access: Access) -> FastAPI:
    http = FastAPI()
    answer_refusals(http, lambda: None)
    http.include_router(events_router(hub, access))
    return http


def client_of(hub: Hub, *, most: int = 10, most_of_person: int = 32) -> TestClient:
    hub = Hub(hub.database, most=most, most_of_person=most_of_person)
    return TestClient(app_of(hub, Access(tokens=None)))


def test_a_stream_whose_token_was_revoked_ends_within_a_heartbeat(hub: Hub) -> None:
    async def test() -> None:
        may = [True]

        def allowed(_now: float) -> bool:
            return may[0]

        connection = await opened(hub, may_go_on=allowed)
        hub.beat(1000)
        await connection.until(lambda: b": alive\n" in connection.body)
        assert not connection.complete
        may[0] = False
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
def test_an_id_that_was_never_given_is_refused(hub: Hub, headers: dict[str, str], query: str, says: str) -> None:
    answer = client_of(hub).get(f"/v1/corps/corp/users/ann/events{query}", headers=headers)
    assert answer.status_code == 400
    assert says.lower() in answer.json()["detail"].lower()


def test_a_refusal_because_of_too_many_streams_says_when_to_come_back(hub: Hub) -> None:
    answer = client_of(hub, most=0).get("/v1/corps/corp/users/ann/events")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_one_person_does_not_take_the_places_of_all_others(hub: Hub) -> None:
    answer = client_of(hub, most_of_person=0).get("/v1/corps/corp/users/ann/events")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert "one person" in answer.json()["detail"]


def test_somebody_elses_stream_is_refused(hub: Hub, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[[tokens]]\nname = "portal"\nsha256 = "{digest_of("secret")}"\ncorps = ["other"]\n')
    client = TestClient(app_of(hub, Access(tokens=TokensFile(tokens))))
    path = "/v1/corps/corp/users/ann/events"
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"Authorization": "Bearer secret"}).status_code == 403
    assert hub.count == 0
