"""An event is durable when Kafka has acknowledged it or the disk has it, never before; what is away is said."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
import uvicorn
from confluent_kafka import KafkaError, KafkaException
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs
from uvicorn.server import ServerState

from support.edge.spool import until
from support.http_clients import callback
from taskbridge.edge.app import create_app
from taskbridge.edge.callbacks import event_of, locate
from taskbridge.edge.delivery.publisher import KafkaPublisher
from taskbridge.edge.delivery.router import Durability
from taskbridge.edge.errors import NotDurable, TooLarge
from taskbridge.edge.events import Decided
from taskbridge.edge.kafka import surroundings
from taskbridge.edge.server.protocol import EdgeProtocol
from taskbridge.edge.spool.keeper import SpoolKeeper
from taskbridge.edge.testing import parameters_of
from taskbridge.runtime.producer import DeliveryFailed, QueueFull
from taskbridge.runtime.topic_admin import TopicReport, TopicsUnavailable
from taskbridge.schemas.cloudevents import event_headers
from taskbridge.schemas.codec import quarantined_callback_codec, task_event_codec
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.events import QuarantinedCallback
from taskbridge.schemas.registry import SchemaRefused
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from taskbridge.edge.app import EdgeApp
    from taskbridge.edge.kafka.record import Record
    from taskbridge.edge.settings import EdgeSettings
    from taskbridge.runtime.producer import Delivery
    from taskbridge.schemas.topics import Topic

PARAMETERS = parameters_of("delete", instance_id="实例-1")
EVENT = event_of(locate("delete", PARAMETERS), PARAMETERS, received_at=1)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
QUARANTINED = QuarantinedCallback(
    quarantine_id="q-1",
    received_at=1,
    action="create",
    reason="wrong-sign",
    app_type="APP_1",
    remote_address="127.0.0.1",
    method="POST",
    path="/yida/tasks/create",
    query="",
    headers={"content-type": "application/json"},
    body=b"{}",
)


class Surroundings:
    """A producer and an admin in one, which do nothing until they are told."""

    def __init__(self) -> None:
        self.produced: list[dict[str, Any]] = []
        self.reports: list[asyncio.Future[None]] = []
        self.sent: list[Delivery] = []
        self.full = False
        self.reachable = True
        self.is_dead = False

    async def answers(self) -> bool:
        return self.reachable

    def produce(self, topic: str, **record: Any) -> asyncio.Future[None]:
        if self.full:
            raise QueueFull("full")
        self.produced.append({"topic": topic, **record})
        self.reports.append(asyncio.get_running_loop().create_future())
        return self.reports[-1]

    def send(self, delivery: Delivery, topic: str, **record: Any) -> None:
        self.produced.append({"topic": topic, **record})
        self.sent.append(delivery)

    async def close(self, *, timeout_s: float = 0) -> int:
        assert timeout_s < 10
        return 0


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    registry = FakeRegistry()

    def given(*_: object, **__: object) -> FakeRegistry:
        return registry

    monkeypatch.setattr("taskbridge.edge.delivery.publisher.Registry", given)
    return registry


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch, registry: FakeRegistry) -> Surroundings:
    assert registry
    surroundings = Surroundings()

    def given(*_: object, **__: object) -> Surroundings:
        return surroundings

    def as_wanted(_admin: object, wanted: Sequence[Topic], *, partitions: int) -> Sequence[TopicReport]:
        return [TopicReport(each.name, created=False, partitions=partitions) for each in wanted]

    monkeypatch.setattr("taskbridge.edge.delivery.publisher.AsyncProducer", given)
    monkeypatch.setattr("taskbridge.edge.kafka.surroundings.admin_client", given)
    monkeypatch.setattr("taskbridge.edge.kafka.surroundings.apply_topics", as_wanted)
    return surroundings


async def prepared(settings: EdgeSettings) -> KafkaPublisher:
    publisher = KafkaPublisher(settings, partitions=1)
    await publisher.start()
    await until(lambda: all(publisher.health()[part] == "ok" for part in ("kafka", "quarantine")))
    return publisher


def test_an_event_is_durable_only_after_its_delivery_report(
    settings: EdgeSettings, around: Surroundings, registry: FakeRegistry
) -> None:
    async def scenario() -> None:
        publisher = await prepared(settings)
        publishing = asyncio.create_task(publisher.publish(Decided.of(EVENT), traceparent=TRACE))
        await asyncio.sleep(0.05)
        assert not publishing.done()
        (record,) = around.produced
        assert record == {
            "topic": TASK_EVENTS.name,
            "key": "实例-1".encode(),
            "value": task_event_codec(registry).encode(EVENT),
            "headers": event_headers(EVENT, traceparent=TRACE),
        }
        around.reports[0].set_result(None)
        assert await publishing is Durability.KAFKA
        await publisher.close()

    asyncio.run(scenario())


def test_an_event_that_nobody_waits_for_is_the_same_record(
    settings: EdgeSettings, around: Surroundings, registry: FakeRegistry
) -> None:
    async def scenario() -> None:
        publisher = KafkaPublisher(settings, partitions=1)
        assert not publisher.is_direct()
        publisher = await prepared(settings)
        assert publisher.is_direct()
        told: list[Exception | None] = []
        publisher.send(Decided.of(EVENT), traceparent=TRACE, then=told.append)
        assert around.produced == [
            {
                "topic": TASK_EVENTS.name,
                "key": "实例-1".encode(),
                "value": task_event_codec(registry).encode(EVENT),
                "headers": event_headers(EVENT, traceparent=TRACE),
            }
        ]
        assert told == []
        around.sent[0].set_result(None)
        assert told == [None]
        kept = publisher.send(Decided.of(EVENT), traceparent=None, then=told.append)
        around.sent[1].set_exception(DeliveryFailed("away"))
        await asyncio.sleep(0)
        assert [str(each) for each in told] == ["None", "away"]
        assert await publisher.spool(kept) is Durability.SPOOL
        huge = replace(EVENT, raw_parameters={"a": "x" * (20 << 20)})
        with pytest.raises(TooLarge):
            publisher.send(Decided.of(huge), traceparent=None, then=told.append)
        assert len(around.sent) == 2
        await publisher.close()

    asyncio.run(scenario())


def test_a_rejected_callback_goes_to_the_quarantine_under_its_apps_key(
    settings: EdgeSettings, around: Surroundings, registry: FakeRegistry
) -> None:
    async def scenario() -> None:
        publisher = await prepared(settings)
        quarantining = asyncio.create_task(publisher.quarantine(QUARANTINED))
        await until(lambda: around.produced)
        (record,) = around.produced
        assert (record["topic"], record["key"]) == (CALLBACKS_QUARANTINE.name, b"APP_1")
        assert dict(record["headers"])["ce_type"] == b"taskbridge.callback.quarantined.v1"
        assert quarantined_callback_codec(registry).decode(record["value"]) == QUARANTINED
        around.reports[0].set_exception(DeliveryFailed("away"))
        assert await quarantining is Durability.SPOOL
        await publisher.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("problem", ["late", "failed", "queue"])
def test_what_kafka_does_not_acknowledge_goes_to_the_spool_as_the_same_record(
    settings: EdgeSettings, around: Surroundings, problem: str
) -> None:
    async def scenario() -> None:
        publisher = await prepared(settings.model_copy(update={"kafka_timeout_ms": 100}))
        around.full = problem == "queue"
        publishing = asyncio.create_task(publisher.publish(Decided.of(EVENT), traceparent=TRACE))
        await asyncio.sleep(0.01)
        if problem == "failed":
            around.reports[0].set_exception(DeliveryFailed("purged"))
        assert await publishing is Durability.SPOOL
        around.full = False
        attempts = len(around.produced)
        await until(lambda: len(around.produced) > attempts or problem != "queue")
        await until(lambda: len(around.produced) >= (1 if problem == "queue" else 2))
        assert around.produced[-1] == around.produced[0] | {"headers": tuple(event_headers(EVENT, traceparent=TRACE))}
        around.reports[-1].set_result(None)
        await until(lambda: publisher.health()["kafka"] == "ok")
        await publisher.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("headers", "sent"), [([], "sent"), (["X-A: 张"], "reports")], ids=["direct", "general"])
def test_a_callback_is_answered_from_the_spool_where_no_new_producer_can_be_made(
    settings: EdgeSettings, around: Surroundings, monkeypatch: pytest.MonkeyPatch, headers: list[str], sent: str
) -> None:
    def make(_: object) -> Surroundings:
        if around.is_dead:
            raise KafkaException(KafkaError(KafkaError._CRIT_SYS_RESOURCE))
        return around

    monkeypatch.setattr("taskbridge.edge.delivery.publisher.AsyncProducer", make)

    async def scenario() -> bytes:
        app = create_app(settings)
        async with app.router.lifespan_context(app) as state:
            config = uvicorn.Config(app, http=EdgeProtocol, log_config=None, lifespan="off")
            config.load()
            await until(cast("EdgeApp", app).callbacks.publisher.is_direct)
            listening = await asyncio.get_running_loop().create_server(
                lambda: EdgeProtocol(config, ServerState(), cast("Any", state)), "127.0.0.1", 0
            )
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            writer.write(callback("inst-raw", *headers))
            await until(lambda: around.produced)
            around.is_dead = True
            [delivery] = getattr(around, sent)
            delivery.set_exception(DeliveryFailed("a fatal error"))
            async with asyncio.timeout(10):
                answer = await reader.readuntil(b"}")
            writer.close()
            listening.close()
            return answer

    answer = asyncio.run(scenario())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"durability":"spool"' in answer


def test_it_starts_and_keeps_callbacks_at_once_while_everything_is_away(
    settings: EdgeSettings, around: Surroundings, registry: FakeRegistry
) -> None:
    async def scenario() -> float:
        registry.away = True
        registry._ids.clear()  # pyright: ignore[reportPrivateUsage]
        around.reachable = False
        publisher = KafkaPublisher(settings, partitions=1)
        await publisher.start()
        started = time.perf_counter()
        assert await publisher.publish(Decided.of(EVENT), traceparent=None) is Durability.SPOOL
        waited = time.perf_counter() - started
        health = publisher.health()
        assert (health["kafka"], health["spool"], publisher.can_keep()) == ("does not answer", "ok", True)
        assert health["registry"] != "ok"
        # It takes the ids as soon as there are any, and delivers then.
        around.reachable, registry.away = True, False
        await until(lambda: len(around.produced) == 1)
        assert around.produced[0]["value"] == task_event_codec(registry).encode(EVENT)
        await publisher.close()
        return waited

    assert asyncio.run(scenario()) < 0.5


def test_a_record_that_can_never_be_delivered_is_refused_before_anything_is_promised(
    settings: EdgeSettings, around: Surroundings
) -> None:
    async def scenario() -> None:
        publisher = await prepared(settings)
        huge = event_of(locate("delete", PARAMETERS), {**PARAMETERS, "x": "y" * (6 << 20)}, received_at=1)
        with pytest.raises(TooLarge):
            await publisher.publish(Decided.of(huge), traceparent=None)
        assert around.produced == []
        await publisher.close()

    asyncio.run(scenario())


def test_rejected_callbacks_leave_half_of_the_spool_to_proven_ones(
    settings: EdgeSettings, around: Surroundings
) -> None:
    async def scenario() -> None:
        around.reachable = False
        publisher = KafkaPublisher(settings.model_copy(update={"spool_max_bytes": 20_000}), partitions=1)
        await publisher.start()
        for _ in range(100):
            with contextlib.suppress(NotDurable):
                await publisher.quarantine(QUARANTINED)
        with pytest.raises(NotDurable, match="verified"):
            await publisher.quarantine(QUARANTINED)
        assert await publisher.publish(Decided.of(EVENT), traceparent=None) is Durability.SPOOL
        await publisher.close()

    asyncio.run(scenario())


def test_a_full_spool_is_not_ready_and_says_so(settings: EdgeSettings, around: Surroundings) -> None:
    async def scenario() -> None:
        around.reachable = False
        metrics = CollectorRegistry()
        full = settings.model_copy(update={"spool_max_bytes": 3000})
        publisher = KafkaPublisher(full, partitions=1, metrics=metrics)
        await publisher.start()
        for _ in range(5):
            with contextlib.suppress(NotDurable):
                await publisher.publish(Decided.of(EVENT), traceparent=None)
        with pytest.raises(NotDurable):
            await publisher.publish(Decided.of(EVENT), traceparent=None)
        assert publisher.health()["spool"].startswith("full")
        assert not publisher.can_keep()
        said = generate_latest(metrics).decode()
        assert "taskbridge_edge_spool_full 1.0" in said
        assert "taskbridge_edge_kafka_usable 0.0" in said
        await publisher.close()

    asyncio.run(scenario())


def test_topics_that_may_not_be_checked_are_said_and_hold_nothing_up(
    settings: EdgeSettings, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert around

    def reports(_admin: object, wanted: Sequence[Topic], *, partitions: int) -> Sequence[TopicReport]:
        hidden = {TASK_EVENTS.name: "allow it"}
        return [TopicReport(each.name, False, partitions, unchecked=hidden.get(each.name)) for each in wanted]  # noqa: FBT003

    monkeypatch.setattr("taskbridge.edge.kafka.surroundings.apply_topics", reports)

    async def scenario() -> None:
        publisher = await prepared(settings)  # it waits for Kafka's part to be ok
        await publisher.close()

    with capture_logs() as lines:
        asyncio.run(scenario())
    (said,) = [each for each in lines if each["event"] == "topic_not_checked"]
    assert (said["log_level"], said["topic"], said["problem"]) == ("warning", TASK_EVENTS.name, "allow it")


def test_ids_that_cannot_be_written_are_used_and_said(
    settings: EdgeSettings, around: Surroundings, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert around
    problem: list[str | None] = ["No space left on device"]
    monkeypatch.setattr(registry, "save", lambda: problem[0])

    async def scenario() -> None:
        publisher = await prepared(settings)
        await until(lambda: "No space left" in publisher.health()["registry"])
        publishing = asyncio.create_task(publisher.publish(Decided.of(EVENT), traceparent=TRACE))
        await until(lambda: around.reports)
        around.reports[0].set_result(None)
        assert await publishing is Durability.KAFKA
        problem[0] = None
        await until(lambda: publisher.health()["registry"] == "ok")
        await publisher.close()

    asyncio.run(scenario())


def test_a_schema_of_the_quarantine_that_is_refused_does_not_hold_up_events(
    settings: EdgeSettings, around: Surroundings, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry._ids.clear()  # pyright: ignore[reportPrivateUsage]
    register = registry.register

    def refused(wanted: Sequence[Topic]) -> dict[str, int]:
        if CALLBACKS_QUARANTINE in wanted:
            raise SchemaRefused("incompatible")
        return register(wanted)

    monkeypatch.setattr(registry, "register", refused)

    async def scenario() -> None:
        publisher = await prepared(settings)
        await until(lambda: "incompatible" in publisher.health()["registry"])
        publishing = asyncio.create_task(publisher.publish(Decided.of(EVENT), traceparent=TRACE))
        await until(lambda: around.reports)
        around.reports[0].set_result(None)
        assert await publishing is Durability.KAFKA
        assert await publisher.quarantine(QUARANTINED) is Durability.SPOOL
        await publisher.close()

    asyncio.run(scenario())


def test_with_ids_that_are_known_already_events_go_to_kafka_while_the_registry_is_still_asked(
    settings: EdgeSettings, around: Surroundings, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def register(_: Sequence[Topic]) -> dict[str, int]:
        answered.wait(60)
        return {}

    monkeypatch.setattr(registry, "register", register)

    async def scenario() -> None:
        publisher = await prepared(settings)
        publishing = asyncio.create_task(publisher.publish(Decided.of(EVENT), traceparent=TRACE))
        await until(lambda: publishing.done() or around.reports)
        assert len(around.reports) == 1
        around.reports[0].set_result(None)
        assert await publishing is Durability.KAFKA
        answered.set()
        await publisher.close()

    asyncio.run(scenario())


def test_a_quarantine_topic_that_cannot_be_used_closes_no_door_to_events(
    settings: EdgeSettings, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_admin: object, wanted: Sequence[Topic], *, partitions: int) -> Sequence[TopicReport]:
        if CALLBACKS_QUARANTINE in wanted:
            raise TopicsUnavailable("it may not be created")
        return [TopicReport(each.name, created=False, partitions=partitions) for each in wanted]

    monkeypatch.setattr("taskbridge.edge.kafka.surroundings.apply_topics", refused)

    async def scenario() -> None:
        publisher = KafkaPublisher(settings, partitions=1)
        await publisher.start()
        await until(lambda: "it may not be created" in publisher.health()["quarantine"])
        publishing = asyncio.create_task(publisher.publish(Decided.of(EVENT), traceparent=TRACE))
        await until(lambda: around.reports)
        around.reports[0].set_result(None)
        assert await publishing is Durability.KAFKA
        assert await publisher.quarantine(QUARANTINED) is Durability.SPOOL
        await until(lambda: not publisher._spools.anything_moves())  # pyright: ignore[reportPrivateUsage]
        publishing = asyncio.create_task(publisher.publish(Decided.of(EVENT), traceparent=TRACE))
        await until(lambda: len(around.reports) == 2)
        around.reports[1].set_result(None)
        assert await publishing is Durability.KAFKA
        assert publisher.health()["kafka"] == "ok"
        assert publisher.can_keep()
        await publisher.close()

    asyncio.run(scenario())


def test_what_differs_from_the_contract_is_said_and_holds_nothing_up(
    settings: EdgeSettings, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert around
    told = "min.insync.replicas is 1, the contract says 2"
    drift = {TASK_EVENTS.name: [told]}

    def differs(_admin: object, wanted: Sequence[Topic], *, partitions: int) -> Sequence[TopicReport]:
        return [TopicReport(each.name, False, partitions, drift.get(each.name, [])) for each in wanted]  # noqa: FBT003

    monkeypatch.setattr("taskbridge.edge.kafka.surroundings.apply_topics", differs)
    monkeypatch.setattr("taskbridge.edge.kafka.surroundings._LOOK_AGAIN_S", 0.05)

    async def scenario() -> None:
        publisher = await prepared(settings)
        assert publisher.health()["topics"] == f"{TASK_EVENTS.name}: {told}"
        assert publisher.can_keep()
        drift.clear()
        await until(lambda: publisher.health()["topics"] == "ok")
        drift[CALLBACKS_QUARANTINE.name] = [told]  # and what is changed while it runs
        await until(lambda: publisher.health()["topics"] == f"{CALLBACKS_QUARANTINE.name}: {told}")
        await publisher.close()

    asyncio.run(scenario())


def test_rejected_callbacks_go_to_kafka_though_the_spool_has_no_room_for_them(
    settings: EdgeSettings, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        publisher = await prepared(settings)
        monkeypatch.setattr("taskbridge.edge.delivery.publisher._QUARANTINE_SHARE", -1)
        quarantining = asyncio.create_task(publisher.quarantine(QUARANTINED))
        await until(lambda: around.reports)
        around.reports[0].set_result(None)
        assert await quarantining is Durability.KAFKA
        await publisher.close()

    asyncio.run(scenario())


@pytest.mark.usefixtures("around")
def test_a_spool_file_that_cannot_be_opened_is_named_and_callbacks_are_kept(settings: EdgeSettings) -> None:
    (settings.data_dir / "spool" / "0.db").mkdir(parents=True)

    async def scenario() -> None:
        publisher = await prepared(settings)
        await until(lambda: publisher.health()["spool"].startswith("0.db cannot be opened: "))
        assert publisher.can_keep()
        await publisher.close()

    asyncio.run(scenario())


class Kept:
    """The spools, or where records are kept, as a test says."""

    def __init__(self, **known: Any) -> None:
        self.broken: str | None = None
        self.full = False
        self.problem: str | None = None
        self.unopened: dict[int, str] = {}
        self.set_aside = 0
        self.size = 0
        self.can_keep = True
        self.kept: list[tuple[Record, bool]] = []
        vars(self).update(known)

    async def keep(self, record: Record, *, may_spool: bool = True) -> Durability:
        self.kept.append((record, may_spool))
        return Durability.SPOOL


@pytest.mark.parametrize(
    ("known", "health"),
    [
        ({}, "ok"),
        ({"broken": "I/O", "full": True}, "broken, and no new file can be created: I/O"),
        ({"full": True, "problem": "locked", "unopened": {1: "torn"}}, "full: locked"),
        ({"full": True}, "full: no room"),
        (
            {"unopened": {1: "torn", 3: "gone"}, "set_aside": 1},
            "1.db cannot be opened: torn; 3.db cannot be opened: gone",
        ),
        ({"set_aside": 2}, "2 records set aside, Kafka rejects them: 'taskbridge spool set-aside'"),
    ],
)
def test_the_worst_of_the_spool_is_what_its_health_says(
    settings: EdgeSettings, around: Surroundings, known: dict[str, Any], health: str
) -> None:
    assert around
    publisher: Any = KafkaPublisher(settings, partitions=1)
    publisher._spools = Kept(**known)
    assert publisher.health()["spool"] == health


@pytest.mark.parametrize("can_keep", [True, False])
def test_what_can_be_kept_is_asked_of_where_it_is_kept(
    settings: EdgeSettings, around: Surroundings, *, can_keep: bool
) -> None:
    assert around
    publisher: Any = KafkaPublisher(settings, partitions=1)
    publisher._router = Kept(can_keep=can_keep)
    assert publisher.can_keep() is can_keep


def test_up_to_half_of_the_bound_a_rejected_callback_may_be_spooled_and_an_event_always(
    settings: EdgeSettings, around: Surroundings
) -> None:
    assert around
    publisher: Any = KafkaPublisher(settings, partitions=1)
    publisher._router, half = Kept(), settings.spool_max_bytes // 2

    async def scenario() -> None:
        for size in (half, half + 1):
            publisher._spools = Kept(size=size)
            await publisher.quarantine(QUARANTINED)
            await publisher.publish(Decided.of(EVENT), traceparent=None)

    asyncio.run(scenario())
    assert [(record.topic, may_spool) for record, may_spool in publisher._router.kept] == [
        (CALLBACKS_QUARANTINE.name, True),
        (TASK_EVENTS.name, True),
        (CALLBACKS_QUARANTINE.name, False),
        (TASK_EVENTS.name, True),
    ]
    assert {record.key for record, _ in publisher._router.kept} == {b"APP_1", EVENT.instance_id.encode()}


def test_a_record_may_be_as_large_as_the_producer_takes_and_not_a_byte_larger(
    settings: EdgeSettings, around: Surroundings
) -> None:
    assert around
    publisher: Any = KafkaPublisher(settings, partitions=1)
    publisher._router = Kept()

    async def scenario() -> None:
        await publisher.publish(Decided.of(EVENT), traceparent=None)
        ((record, _),) = publisher._router.kept
        publisher._max_record_bytes = record.size
        await publisher.publish(Decided.of(EVENT), traceparent=None)
        publisher._max_record_bytes = record.size - 1
        with pytest.raises(TooLarge):
            await publisher.publish(Decided.of(EVENT), traceparent=None)

    asyncio.run(scenario())
    assert len(publisher._router.kept) == 2


def test_a_callback_waits_for_no_other_before_it_is_sent_unless_the_operator_says_so(
    settings: EdgeSettings, tmp_path: Path
) -> None:
    def linger(settings: EdgeSettings) -> object:
        return KafkaPublisher(settings, partitions=1)._config["linger.ms"]  # pyright: ignore[reportPrivateUsage]

    assert linger(settings) == "0"
    path = tmp_path / "kafka.properties"
    path.write_text("linger.ms=7\n")
    assert linger(settings.model_copy(update={"kafka_config_file": path})) == "7"


def test_a_property_that_librdkafka_refuses_is_said_at_the_start(settings: EdgeSettings, tmp_path: Path) -> None:
    config = tmp_path / "kafka.properties"
    config.write_text("no.such.property=1\n")
    with pytest.raises(ConfigurationError, match=r"no\.such\.property"):
        KafkaPublisher(settings.model_copy(update={"kafka_config_file": config}), partitions=1)


def test_an_end_that_leaves_records_without_an_answer_says_how_many(
    settings: EdgeSettings, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one_left(**_: object) -> int:
        return 1

    async def scenario() -> list[Any]:
        publisher = await prepared(settings)
        monkeypatch.setattr(around, "close", one_left)
        with capture_logs() as logs:
            await publisher.close()
        return [(each["event"], each["records"]) for each in logs if each["event"] == "deliveries_unknown"]

    assert asyncio.run(scenario()) == [("deliveries_unknown", 1)]


def test_what_is_begun_with_the_start_is_over_with_the_end(
    settings: EdgeSettings, around: Surroundings, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert around
    said: list[str] = []

    async def tend(_: SpoolKeeper) -> None:
        said.append("tended")
        try:
            await asyncio.Event().wait()
        finally:
            for _step in range(100):  # its end may take a while
                await asyncio.sleep(0)
            said.append("tended no more")

    def closing(what: str, close: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def closed(self: object) -> None:
            await close(self)
            said.append(f"{what} closed")

        return closed

    monkeypatch.setattr(SpoolKeeper, "tend", tend)
    monkeypatch.setattr(SpoolKeeper, "close", closing("spools", SpoolKeeper.close))
    monkeypatch.setattr(surroundings.Surroundings, "close", closing("surroundings", surroundings.Surroundings.close))
    monkeypatch.setattr(registry, "close", lambda: said.append("registry closed"))

    async def scenario() -> None:
        publisher = await prepared(settings)
        assert publisher._router._timeout_s == settings.kafka_timeout_ms / 1000  # pyright: ignore[reportPrivateUsage]
        await until(lambda: said == ["tended"])
        await publisher.close()
        assert said == ["tended", "surroundings closed", "tended no more", "spools closed", "registry closed"]
        assert publisher.health()["spool"] == "full: is closed"

    asyncio.run(scenario())
