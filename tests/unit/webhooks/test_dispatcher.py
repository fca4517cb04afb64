"""Couriers: order under failures, isolation of endpoints, probing, and what a restart leaves."""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import trustme
from aiohttp import web
from msgspec.structs import replace
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from taskbridge.runtime.database import DatabaseUnavailable, Threads
from taskbridge.runtime.guard import Guard
from taskbridge.webhooks import dispatcher as module
from taskbridge.webhooks import schedule, store
from taskbridge.webhooks.dispatcher import Dispatcher
from taskbridge.webhooks.endpoints import EndpointsFile
from taskbridge.webhooks.metrics import Metrics
from taskbridge.webhooks.notifications import deliveries_of, event_of
from taskbridge.webhooks.operations import example
from unit.webhooks.receivers import LOOPBACK, SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable
    from pathlib import Path

    from sqlalchemy import Connection

    from taskbridge.runtime.database import Database
    from taskbridge.webhooks.dispatcher import Claimed
    from taskbridge.webhooks.endpoints import Endpoint

T = TypeVar("T")

_LOOK_S = 0.01


def claims(database: Database) -> list[str]:
    """Of the queues."""
    with database.read() as connection:
        return list(connection.scalars(select(store.queues.c.claim)))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for seconds."""
    monkeypatch.setattr(schedule, "DELAYS_S", (0.001,) * 9)
    monkeypatch.setattr(module, "_PROBE_S", 0.001)
    monkeypatch.setattr(module, "LOOK_S", _LOOK_S)


class Service:
    """Couriers and the receivers of their endpoints: what each got, in order, as instance and title."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self._folder = database, folder
        self.grace_s = 5.0
        self.looks = 0
        self._looking = asyncio.Lock()
        self.got: dict[str, list[tuple[str, str]]] = {}
        self.answers: dict[str, Callable[[web.Request], Any]] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name, body = request.path.strip("/"), await request.json()
        status = self.answers.get(name, lambda _request: 204)(request)
        if asyncio.iscoroutine(status):
            status = await status
        if status < 300:
            self.got.setdefault(name, []).append((body["data"]["instance_id"], body["data"]["title"]))
        return web.Response(status=status)

    def never_answers(self, name: str) -> asyncio.Event:
        """Set when a request has arrived at this receiver."""
        arrived = asyncio.Event()

        async def answer() -> int:
            arrived.set()
            await asyncio.Event().wait()
            return 204

        self.answers[name] = lambda _request: answer()
        return arrived

    def use(self, address: str, *names: str, line: str = "") -> dict[str, Endpoint]:
        path = self._folder / "endpoints.toml"
        path.write_text(
            "\n".join(
                f'[[endpoints]]\nname = "{name}"\nurl = "{address}/{name}"\nsecrets = ["{SECRET}"]\n'
                f'corps = ["corp"]\n{line}\n'
                for name in names
            )
        )
        self.file = EndpointsFile(path, {})
        return self.file.current.by_name

    def add(self, *changes: tuple[str, str]) -> None:
        """As a command or another process does."""
        self.dispatcher.added(self._stored(changes, lambda _connection, names: names))

    def read(self, *changes: tuple[str, str]) -> list[Claimed]:
        """As the follower does; what it returns is to be sent."""
        return self._stored(changes, self.dispatcher.claim)

    def _stored(self, changes: Iterable[tuple[str, str]], claim: Callable[[Connection, set[str]], T]) -> T:
        base = example(next(iter(self.endpoints.values())))
        notifications = [
            replace(base, notification_id=f"{instance_id}-{title}", instance_id=instance_id, title=title)
            for instance_id, title in changes
        ]
        new = [
            each
            for notification in notifications
            for each in deliveries_of(notification, self.endpoints, lambda of=notification: event_of(of))
        ]
        with self.database.write() as connection:
            return claim(connection, store.add(self.database, connection, new))

    async def look(self) -> None:
        """As the service does each second."""
        async with self._looking:
            await self.dispatcher.use(self.endpoints, store.states(self.database))
            self.looks += 1

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.look()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - what it looks at tells nobody
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def running(self, *names: str, tls: ssl.SSLContext | None = None, line: str = "") -> AsyncGenerator[Service]:
        app = web.Application()
        app.router.add_post("/{name}", self.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        address = f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
        self.endpoints = self.use(address, *names, line=line)
        with closing(Threads(4)) as threads:

            async def nobody(*_arguments: str) -> None: ...

            guard = Guard(LOOPBACK)
            self.dispatcher = Dispatcher(self.database, guard, Metrics(), threads, nobody, grace_s=self.grace_s)
            store.register(self.database, dict.fromkeys(names, False))
            await self.look()
            looking = asyncio.create_task(self._watch())
            try:
                yield self
            finally:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
                await self.dispatcher.stop()
                await runner.cleanup()


@pytest.mark.parametrize("is_claimed", [True, False])
async def test_changes_of_an_entry_arrive_in_order_through_failures(
    sqlite: Database, tmp_path: Path, *, is_claimed: bool
) -> None:
    service, calls = Service(sqlite, tmp_path), iter(range(10_000))
    changes = [(f"I{number % 5}", str(number)) for number in range(100)]
    service.answers["erp"] = lambda _request: 500 if next(calls) % 3 == 0 else 204
    async with service.running("erp"):
        for at in range(0, len(changes), 10):
            if is_claimed:
                service.dispatcher.send(service.read(*changes[at : at + 10]))
            else:
                service.add(*changes[at : at + 10])
            await asyncio.sleep(0)
        await service.until(lambda: len(service.got.get("erp", ())) >= len(changes))

    for instance in range(5):
        mine = [title for instance_id, title in service.got["erp"] if instance_id == f"I{instance}"]
        assert mine == [title for instance_id, title in changes if instance_id == f"I{instance}"]


async def test_a_silent_endpoint_takes_nothing_from_the_others(sqlite: Database, tmp_path: Path) -> None:
    service = Service(sqlite, tmp_path)
    never = asyncio.Event()

    async def silent() -> int:
        await never.wait()
        return 204

    service.answers["dead"] = lambda _request: silent()
    async with service.running("dead", "erp"):
        service.add(*((f"I{number}", "t") for number in range(200)))
        await service.until(lambda: len(service.got.get("erp", ())) == 200)
        never.set()


async def test_what_was_under_way_at_the_end_is_delivered_by_the_next_process(sqlite: Database, tmp_path: Path) -> None:
    service = Service(sqlite, tmp_path)
    arrived = service.never_answers("erp")
    service.grace_s = 0.1
    async with service.running("erp"):
        service.add(("I1", "first"), ("I1", "second"))
        await arrived.wait()
    service.answers.clear()
    with sqlite.write() as connection:  # the claim of the former process is over
        connection.execute(store.queues.update().values(claimed_until=0))
    async with service.running("erp"):
        await service.until(lambda: len(service.got.get("erp", ())) == 2)

    assert service.got["erp"] == [("I1", "first"), ("I1", "second")]


async def test_what_the_follower_reads_is_sent_without_another_claim(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(sqlite, tmp_path)

    def none_due(*_arguments: object) -> list[store.Delivery]:
        return []

    async with service.running("erp", "other"):
        claimed = service.read(("I1", "t"), ("I2", "t"))
        monkeypatch.setattr(store.Queues, "claim", none_due)
        service.dispatcher.send(claimed)
        await service.until(lambda: store.waiting(sqlite, ["erp", "other"]) == {})

    assert {name: len(got) for name, got in service.got.items()} == {"erp": 2, "other": 2}


async def test_what_was_claimed_too_long_ago_is_claimed_again_before_it_is_sent(
    sqlite: Database, tmp_path: Path
) -> None:
    service = Service(sqlite, tmp_path)
    async with service.running("erp"):
        [claimed] = service.read(("I1", "t"))
        earlier = [each.claim for each in claimed.deliveries]
        sent = list[str]()
        service.answers["erp"] = lambda _request: sent.extend(claims(sqlite)) or 204
        service.dispatcher.send([claimed._replace(at_s=claimed.at_s - store.CLAIM_MS / 2000)])
        await service.until(lambda: store.waiting(sqlite, ["erp"]) == {})

    assert len(sent) == 1
    assert sent != earlier


@pytest.mark.parametrize("change", ["removed", "disabled"])
async def test_what_an_endpoint_that_changed_had_claimed_is_due_at_once(
    sqlite: Database, tmp_path: Path, change: str
) -> None:
    service = Service(sqlite, tmp_path)
    async with service.running("erp"):
        claimed = service.read(("I1", "t"))
        store.set_enabled(sqlite, "erp", reason="moves")
        if change == "removed":
            service.endpoints = {}
        await service.look()
        service.dispatcher.send(claimed)
        await service.until(lambda: claims(sqlite) == [""])

    assert service.got == {}


async def test_what_is_claimed_while_it_stops_stays_claimed_by_nobody(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, claim = Service(sqlite, tmp_path), store.Queues.claim
    claimed, stops = threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        if found := claim(*arguments, **options):
            claimed.set()
            stops.wait(30)
        return found

    monkeypatch.setattr(store.Queues, "claim", slow)
    async with service.running("erp"):
        service.add(("I1", "t"))
        await asyncio.to_thread(claimed.wait, 30)
        stopping = asyncio.create_task(service.dispatcher.stop())
        await asyncio.sleep(0)
        stops.set()
        await stopping

    assert not any(claims(sqlite)), "it is sent, or due at once for the next process"


async def test_the_follower_claims_no_more_ahead_while_the_couriers_have_no_time(
    sqlite: Database, tmp_path: Path
) -> None:
    service = Service(sqlite, tmp_path)
    async with service.running("erp", line="in_flight = 1"):
        for number in range(10):
            service.dispatcher.send(service.read((f"I{number}", "t"), (f"J{number}", "t")))
        claimed = [each for each in claims(sqlite) if each]
        await service.until(lambda: store.waiting(sqlite, ["erp"]) == {})

    assert len(claimed) == 4
    assert len(service.got["erp"]) == 20


async def test_a_receiver_that_is_away_is_asked_by_one_request_at_a_time(sqlite: Database, tmp_path: Path) -> None:
    service, failures, open_now, most = Service(sqlite, tmp_path), 0, 0, 0

    async def fails() -> int:
        nonlocal failures, open_now, most
        if failures >= 80:
            return 204
        open_now += 1
        if failures >= 40:  # the first ones were sent before it was known
            most = max(most, open_now)
        await asyncio.sleep(0)
        failures, open_now = failures + 1, open_now - 1
        return 500

    service.answers["erp"] = lambda _request: fails()
    async with service.running("erp"):
        service.add(*((f"I{number}", "t") for number in range(100)))
        await service.until(lambda: len(service.got.get("erp", ())) > 50)

    assert most == 1


async def test_a_receiver_that_is_away_costs_no_queries_until_the_next_request(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, queried = Service(sqlite, tmp_path), list[str]()
    next_due = store.next_due
    monkeypatch.setattr(module, "_PROBE_S", 3600.0)

    def counted(database: Database, name: str) -> int | None:
        queried.append(name)
        return next_due(database, name)

    service.answers["away"] = lambda _request: 500
    async with service.running("away", "erp"):
        service.add(*((f"I{number}", "t") for number in range(50)))
        await service.until(lambda: store.states(sqlite)["away"].failing_since is not None)
        monkeypatch.setattr(store, "next_due", counted)
        service.add(*(("I1", str(number)) for number in range(20)))
        await service.until(lambda: len(service.got.get("erp", ())) == 70)

    assert "away" not in queried


async def test_an_endpoint_may_get_less_than_one_request_a_second(sqlite: Database, tmp_path: Path) -> None:
    service = Service(sqlite, tmp_path)
    async with service.running("erp", line="requests_per_s = 0.01"):
        service.add(("I1", "t"), ("I2", "t"))
        await service.until(lambda: "erp" in service.got)

    assert len(service.got["erp"]) == 1


async def test_a_disabled_endpoint_gets_nothing_until_it_is_enabled(sqlite: Database, tmp_path: Path) -> None:
    service = Service(sqlite, tmp_path)
    async with service.running("erp", "other"):
        store.set_enabled(sqlite, "erp", reason="moves")
        await service.look()
        service.add(("I1", "t"))
        await service.until(lambda: "other" in service.got)
        assert "erp" not in service.got
        store.set_enabled(sqlite, "erp", reason=None)
        await service.look()
        await service.until(lambda: "erp" in service.got)


def test_an_outage_of_the_database_at_any_query_delays_deliveries_only(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, failed = Service(sqlite, tmp_path), set[str]()
    monkeypatch.setattr(module, "_RETRY_S", 0.001)

    def failing_once(query: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if query.__name__ not in failed:
                failed.add(query.__name__)
                raise DatabaseUnavailable("the database does not answer")
            return query(*arguments, **options)

        return run

    async def run() -> None:
        queues: Any = store.Queues
        for owner, query in ((queues, queues.claim), (queues, queues.finish), (store, store.next_due)):
            monkeypatch.setattr(owner, query.__name__, failing_once(query))
        async with service.running("erp"):
            await service.until(lambda: failed == {"claim", "next_due"})
            service.add(("I1", "first"), ("I1", "second"))
            await service.until(lambda: len(service.got.get("erp", ())) == 2)

    asyncio.run(run())

    assert service.got["erp"] == [("I1", "first"), ("I1", "second")]
    assert "finish" in failed


async def test_an_error_of_any_kind_is_reported_and_tried_again(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, claim = Service(sqlite, tmp_path), store.Queues.claim
    monkeypatch.setattr(module, "_RETRY_S", 0.001)

    def broken(*_arguments: object, **_options: object) -> None:
        raise IntegrityError("INSERT", {}, ValueError("of an index"))

    monkeypatch.setattr(store.Queues, "claim", broken)
    async with service.running("erp"):
        await service.until(lambda: service.dispatcher.problem == "deliveries to erp wait: IntegrityError")
        monkeypatch.setattr(store.Queues, "claim", claim)
        service.add(("I1", "t"))
        await service.until(lambda: "erp" in service.got)
        await service.until(lambda: service.dispatcher.problem is None)


async def test_idle_endpoints_cost_no_query_of_their_own_and_no_transaction_that_writes(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, next_due, claim = Service(sqlite, tmp_path), store.next_due, store.Queues.claim
    asked, claims = list[str](), list[int]()

    def due(database: Database, name: str) -> int | None:
        asked.append(name)
        return next_due(database, name)

    def claimed(queues: store.Queues, connection: Any, most: int) -> Any:
        claims.append(most)
        return claim(queues, connection, most)

    monkeypatch.setattr(store, "next_due", due)
    async with service.running("erp", "other"):
        await service.until(lambda: sorted(asked) == ["erp", "other"])
        monkeypatch.setattr(store.Queues, "claim", claimed)
        before = service.looks
        await service.until(lambda: service.looks > before + 20)
        assert len(asked) == 2
        assert claims == []
        service.add(("I1", "t"))
        await service.until(lambda: service.got.keys() == {"erp", "other"})


@pytest.mark.parametrize("renewed", ["ca.pem", "client.pem"])
async def test_a_renewed_certificate_is_used_without_a_restart(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renewed: str
) -> None:
    monkeypatch.setattr(schedule, "DELAYS_S", (0.001,) * 10_000)
    authority, service = trustme.CA(), Service(sqlite, tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.configure_trust(tls)
    tls.verify_mode = ssl.CERT_REQUIRED

    def write(name: str, by: trustme.CA) -> None:
        certificate = by.cert_pem if name == "ca.pem" else by.issue_cert("taskbridge").private_key_and_cert_chain_pem
        certificate.write_to_path(tmp_path / name)

    async def reload() -> str | None:
        assert service.file.refresh()
        service.endpoints = service.file.current.by_name
        await service.look()
        return service.file.problem

    for name in ("ca.pem", "client.pem"):
        write(name, trustme.CA() if name == renewed else authority)
    line = 'ca_file = "ca.pem"\ncertificate_file = "client.pem"'
    async with service.running("erp", tls=tls, line=line):
        service.add(("I1", "t"))
        await service.until(lambda: store.states(sqlite)["erp"].failing_since is not None)
        before = service.file.current
        (tmp_path / renewed).write_bytes(b"\xff")
        assert "ca_file, certificate_file: " in (await reload() or "")
        assert service.file.current is before
        write(renewed, authority)
        assert await reload() is None
        await service.until(lambda: "erp" in service.got)
