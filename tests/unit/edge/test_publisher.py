"""An event is in Kafka or in the spool before its callback is answered, in order, with any failure."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from support.edge.fakes import parameters_of
from support.edge.spool import SCHEMA, TestProducer, open_client, open_spool, record, until
from taskbridge.edge.decision.callbacks import event_of, locate
from taskbridge.edge.errors import NotDurable, TooLarge
from taskbridge.edge.events import Decided, Durability
from taskbridge.edge.publisher import KafkaPublisher, Router
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.edge.spool.spools import Spools
from taskbridge.edge.spool.store import SpoolFull, Store
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
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from taskbridge.edge.kafka.client import KafkaClient
    from taskbridge.edge.kafka.record import Record
    from taskbridge.edge.settings import EdgeSettings
    from taskbridge.runtime.producer import Delivery
    from taskbridge.schemas.topics import Topic


@asynccontextmanager
async def router_on(
    folder: Path, kafka: KafkaClient, *, timeout_s: float = 0.2
) -> AsyncGenerator[tuple[Router, Spools]]:
    spools = Spools(folder, [SCHEMA], kafka, max_bytes=1 << 20, metrics=SpoolMetrics())
    await spools.start()
    try:
        yield Router(kafka, spools, timeout_s=timeout_s), spools
    finally:
        await spools.close()


async def sent(router: Router, number: int, *, key: str = "one") -> Exception | None:
    """The outcome of a record that is sent without a future."""
    outcome: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    router._kafka.send_then(  # pyright: ignore[reportPrivateUsage]
        record(number, key=key),
        outcome.set_result,
        timeout_s=router._timeout_s,  # pyright: ignore[reportPrivateUsage]
    )
    return await outcome


async def test_the_outcome_of_a_record_that_nobody_waits_for_is_reported_and_it_is_spooled_after_a_failure(
    tmp_path: Path,
) -> None:
    producer = TestProducer()
    kafka = await open_client(producer)
    topic, schema = record(0).topic, record(0).schema
    async with router_on(tmp_path, kafka, timeout_s=30) as (router, spools):
        assert router.is_direct_for(topic, schema)
        assert not router.is_direct_for(topic, "unknown")
        assert not router.is_direct_for("unknown", schema)
        producer.held = True
        failure = await sent(Router(kafka, spools, timeout_s=0.01), 1)
        assert isinstance(failure, DeliveryFailed)
        assert "in time" in str(failure)
        assert not router.is_direct_for(topic, schema)
        assert await router.spool(record(1)) is Durability.SPOOL
        producer.held = False
        producer.release()
        await until(lambda: router.is_direct_for(topic, schema))
        assert await sent(router, 2) is None
        producer.queue_full = True
        assert isinstance(await sent(router, 3), QueueFull)
        producer.queue_full = False
        assert router.is_direct_for(topic, schema), "that says nothing of Kafka"
        assert producer.delivered == [1, 2]


async def test_nothing_is_sent_past_what_the_spool_holds(tmp_path: Path) -> None:
    producer = TestProducer()
    kafka = await open_client(producer)
    async with router_on(tmp_path, kafka) as (router, spools):
        producer.held = True
        await spools.own.put(record(1))
        assert kafka.usable
        assert not router.is_direct_for(record(1).topic, record(1).schema)
        producer.held = False
        producer.release()
        await until(lambda: router.is_direct_for(record(1).topic, record(1).schema))


async def test_a_delivery_that_takes_too_long_goes_to_the_spool_and_nobody_waits_that_long_again(
    tmp_path: Path,
) -> None:
    producer = TestProducer()
    producer.held = True
    kafka = await open_client(producer)
    async with router_on(tmp_path, kafka, timeout_s=0.2) as (router, spools):
        patient = Router(kafka, spools, timeout_s=600)
        async with asyncio.timeout(60):
            assert set(await asyncio.gather(router.store(record(1)), patient.store(record(2)))) == {Durability.SPOOL}
            assert await patient.store(record(3)) is Durability.SPOOL
        producer.held = False
        producer.release()
        await until(lambda: spools.waiting == 0)
        assert {1, 2, 3} <= set(producer.delivered)
        assert await router.store(record(4)) is Durability.KAFKA


async def test_what_comes_while_the_spool_holds_anything_queues_behind_it(tmp_path: Path) -> None:
    producer = TestProducer()
    kafka = await open_client(producer)
    async with router_on(tmp_path, kafka) as (router, spools):
        kafka.fail(record(), DeliveryFailed("away"))
        producer.reachable = False
        await kafka.check()
        assert {await router.store(record(number, key="one")) for number in range(400)} == {Durability.SPOOL}
        producer.reachable = True
        await kafka.check()
        assert await router.store(record(400, key="one")) is Durability.SPOOL
        await until(lambda: spools.waiting == 0)
        assert await router.store(record(401, key="one")) is Durability.KAFKA
        assert producer.delivered == list(range(402))


async def test_a_broken_spool_leaves_kafka_and_without_that_nothing(tmp_path: Path) -> None:
    kafka = await open_client(TestProducer())
    async with router_on(tmp_path, kafka) as (router, spools):
        await spools.own.put(record(0))
        spools.own._break("injected")  # pyright: ignore[reportPrivateUsage]
        assert await router.store(record(1)) is Durability.KAFKA
        assert router.can_store()
        kafka.fail(record(), DeliveryFailed("away"))
        with pytest.raises(NotDurable, match="injected"):
            await router.store(record(2))
        assert not router.can_store()


async def test_a_spool_that_breaks_under_a_record_leaves_it_to_kafka(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = TestProducer()
    producer.held = True
    async with router_on(tmp_path, await open_client(producer)) as (router, spools):
        await spools.own.put(record(0))
        spool, put = spools.own, spools.own.put

        def put_and_break(each: Record) -> asyncio.Future[None]:
            done = put(each)
            spool._break("injected")  # pyright: ignore[reportPrivateUsage]
            return done

        monkeypatch.setattr(spool, "put", put_and_break)
        storing = asyncio.create_task(router.store(record(1)))
        await until(lambda: 1 in producer.sent)
        producer.release()
        assert await storing is Durability.KAFKA


async def test_a_spool_full_of_records_that_kafka_refuses_refuses_nothing_that_kafka_accepts(tmp_path: Path) -> None:
    producer = TestProducer()
    producer.failing = dict.fromkeys(range(30), DeliveryFailed("not allowed"))
    async with router_on(tmp_path, await open_client(producer)) as (router, spools):
        topic = CALLBACKS_QUARANTINE.name
        stored = [await router.store(record(number, size=30_000, topic=topic)) for number in range(30)]
        assert stored == [Durability.SPOOL] * 30
        more = [router.store(record(number, size=30_000, topic=topic)) for number in range(30)]
        with pytest.raises(NotDurable, match="EDGE_SPOOL_MAX_BYTES"):
            await asyncio.gather(*more)
        assert spools.full
        assert router.can_store()
        stored = [await router.store(record(number, size=30_000)) for number in range(100, 130)]
        assert stored == [Durability.KAFKA] * 30
        producer.failing.clear()
        await until(lambda: spools.waiting == 0)


async def test_what_is_held_for_one_partition_keeps_no_event_of_another_from_kafka(tmp_path: Path) -> None:
    producer = TestProducer()
    kafka = await open_client(producer, partitions=2)
    keys = [f"k{number}" for number in range(20)]
    stuck = next(key for key in keys if kafka.partition_of(record(key=key))[1] == 0)
    good = next(key for key in keys if kafka.partition_of(record(key=key))[1] == 1)
    producer.failing[1] = DeliveryFailed("not enough replicas")
    async with router_on(tmp_path, kafka) as (router, spools):
        assert await router.store(record(1, key=stuck)) is Durability.SPOOL
        assert await router.store(record(2, key=stuck)) is Durability.SPOOL
        await until(lambda: not spools.moving)
        assert await router.store(record(3, key=good)) is Durability.KAFKA
        assert spools.oldest_age_s > 0
        producer.failing.clear()
        await until(lambda: spools.waiting == 0)
        assert await router.store(record(4, key=stuck)) is Durability.KAFKA
        assert producer.delivered == [3, 1, 2, 4]


async def test_a_start_on_a_full_disk_does_with_kafka_alone_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_spool(tmp_path):
        pass  # a file from before, and empty

    def no_room(*_: object) -> None:
        raise SpoolFull("no room")

    kafka = await open_client(TestProducer())
    with monkeypatch.context() as context:
        context.setattr("taskbridge.edge.spool.spools.open_or_recover", no_room)
        async with router_on(tmp_path, kafka) as (router, spools):
            assert await router.store(record(1)) is Durability.KAFKA
            assert (router.can_store(), spools.full) == (True, True)
            context.undo()
            context.setattr("taskbridge.edge.spool.spools._MAINTAIN_S", 0.05)
            maintaining = asyncio.create_task(spools.maintain())
            await until(lambda: not spools.full)
            maintaining.cancel()
            await asyncio.gather(maintaining, return_exceptions=True)


class FakeSpools:
    """Stores each record at once, or refuses it."""

    def __init__(self, *, moving: int = 0, full: bool = False) -> None:
        self.moving = moving
        self.put_records: list[Record] = []
        self._is_full = full

    @property
    def own(self) -> FakeSpools:
        return self

    def put(self, each: Record) -> asyncio.Future[None]:
        if self._is_full:
            raise SpoolFull("full")
        self.put_records.append(each)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


def router_of(kafka: KafkaClient, spools: FakeSpools) -> Router:
    return Router(kafka, cast("Spools", spools), timeout_s=1)


@pytest.mark.parametrize(("moving", "durability"), [(250, Durability.KAFKA), (251, Durability.SPOOL)])
async def test_so_many_that_still_move_are_waited_for_and_not_one_more(moving: int, durability: Durability) -> None:
    spools = FakeSpools(moving=moving)
    storing = asyncio.create_task(router_of(await open_client(TestProducer()), spools).store(record(1)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert storing.done() is (durability is Durability.SPOOL)
    spools.moving = 0
    assert await storing is durability


async def test_the_last_few_are_waited_for_only_so_long_and_while_kafka_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    producer = TestProducer()
    kafka = await open_client(producer)
    storing = asyncio.create_task(router_of(kafka, FakeSpools(moving=1)).store(record(1)))
    await asyncio.sleep(0)
    producer.reachable = False
    await kafka.check()
    assert await storing is Durability.SPOOL
    producer.reachable = True
    await kafka.check()
    monkeypatch.setattr("taskbridge.edge.publisher._HOLD_S", 0.01)
    assert await router_of(kafka, FakeSpools(moving=1)).store(record(1)) is Durability.SPOOL
    assert producer.sent == []


async def test_a_record_is_sent_to_kafka_once_and_the_spools_refusal_is_raised() -> None:
    sent: list[Record] = []

    async def no_room(record: Record, *, timeout_s: float) -> None:
        assert timeout_s == 1
        sent.append(record)
        raise QueueFull("full")

    kafka = await open_client(TestProducer())
    kafka.send_within = no_room
    with pytest.raises(SpoolFull):
        await router_of(kafka, FakeSpools(full=True)).store(record(1))
    assert len(sent) == 1


async def test_what_may_not_be_spooled_is_stored_by_kafka_or_not_at_all() -> None:
    producer, spools = TestProducer(), FakeSpools()
    kafka = await open_client(producer)
    router = router_of(kafka, spools)
    assert await router.store(record(1), may_spool=False) is Durability.KAFKA
    spools.moving = 1000
    assert await router.store(record(2), may_spool=False) is Durability.KAFKA
    producer.reachable = False
    await kafka.check()
    with pytest.raises(NotDurable, match="only for verified callbacks"):
        await router.store(record(3), may_spool=False)
    assert (producer.sent, spools.put_records) == ([1, 2], [])


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


class Environment:
    """A producer and an admin in one, which do nothing by themselves."""

    def __init__(self) -> None:
        self.produced: list[dict[str, Any]] = []
        self.reports: list[Any] = []
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
        if self.full:
            delivery.set_exception(QueueFull("full"))
            return
        self.produced.append({"topic": topic, **record})
        self.sent.append(delivery)
        self.reports.append(delivery)

    async def close(self, *, timeout_s: float = 0) -> int:
        assert timeout_s < 10
        return 0


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    registry = FakeRegistry()

    def given(*_: object, **__: object) -> FakeRegistry:
        return registry

    monkeypatch.setattr("taskbridge.edge.publisher.Registry", given)
    return registry


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, registry: FakeRegistry) -> Environment:
    assert registry
    environment = Environment()

    def given(*_: object, **__: object) -> Environment:
        return environment

    def as_declared(_admin: object, topics: Sequence[Topic], *, partitions: int) -> Sequence[TopicReport]:
        return [TopicReport(each.name, created=False, partitions=partitions) for each in topics]

    monkeypatch.setattr("taskbridge.edge.publisher.AsyncProducer", given)
    monkeypatch.setattr("taskbridge.edge.kafka.prerequisites.admin_client", given)
    monkeypatch.setattr("taskbridge.edge.kafka.prerequisites.apply_topics", as_declared)
    return environment


async def prepared(settings: EdgeSettings) -> KafkaPublisher:
    publisher = KafkaPublisher(settings, partitions=1)
    await publisher.start()
    await until(lambda: all(publisher.health()[part] == "ok" for part in ("kafka", "quarantine")))
    return publisher


async def test_an_event_is_durable_only_after_its_delivery_report(
    settings: EdgeSettings, environment: Environment, registry: FakeRegistry
) -> None:
    publisher = await prepared(settings)
    publishing = asyncio.create_task(publisher.publish(Decided.of(EVENT), traceparent=TRACE))
    await until(lambda: environment.produced)
    assert not publishing.done()
    (record,) = environment.produced
    assert record == {
        "topic": TASK_EVENTS.name,
        "key": "实例-1".encode(),
        "value": task_event_codec(registry).encode(EVENT),
        "headers": event_headers(EVENT, traceparent=TRACE),
    }
    environment.reports[0].set_result(None)
    assert await publishing is Durability.KAFKA
    await publisher.close()


async def test_an_event_that_nobody_waits_for_is_the_same_record(
    settings: EdgeSettings, environment: Environment, registry: FakeRegistry
) -> None:
    publisher = KafkaPublisher(settings, partitions=1)
    assert publisher.way() is Durability.SPOOL
    publisher = await prepared(settings)
    assert publisher.way() is Durability.KAFKA
    outcomes: list[Durability | Exception] = []
    publisher.publish_then(Decided.of(EVENT), traceparent=TRACE, then=outcomes.append)
    assert environment.produced == [
        {
            "topic": TASK_EVENTS.name,
            "key": "实例-1".encode(),
            "value": task_event_codec(registry).encode(EVENT),
            "headers": event_headers(EVENT, traceparent=TRACE),
        }
    ]
    assert outcomes == []
    environment.sent[0].set_result(None)
    assert outcomes == [Durability.KAFKA]
    huge = replace(EVENT, raw_parameters={"a": "x" * (20 << 20)})
    with pytest.raises(TooLarge):
        publisher.publish_then(Decided.of(huge), traceparent=None, then=outcomes.append)
    publisher.publish_then(Decided.of(EVENT), traceparent=None, then=outcomes.append)
    environment.sent[1].set_exception(DeliveryFailed("away"))
    await until(lambda: outcomes[1:])
    assert outcomes[1:] == [Durability.SPOOL]
    await publisher.close()


async def test_while_kafka_is_away_an_event_that_nobody_waits_for_is_in_the_spool_or_refused(
    settings: EdgeSettings, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.reachable = False
    publisher = KafkaPublisher(settings.model_copy(update={"spool_max_bytes": 2000}), partitions=1)
    await publisher.start()
    outcomes: list[Durability | Exception] = []

    async def outcome() -> Durability | Exception:
        publisher.publish_then(Decided.of(EVENT), traceparent=None, then=outcomes.append)
        assert outcomes == []
        await until(lambda: outcomes)
        return outcomes.pop()

    assert await outcome() is Durability.SPOOL
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise SpoolFull("no room")

        patch.setattr(Store, "write", full)
        assert isinstance(await outcome(), NotDurable), "it was taken and not written"
    await until(lambda: publisher.health()["spool"] == "ok")
    assert await outcome() is Durability.SPOOL
    assert isinstance(await outcome(), NotDurable), "there is no room for more"
    assert environment.produced == []
    await publisher.close()


async def test_a_rejected_callback_goes_to_the_quarantine_under_its_apps_key(
    settings: EdgeSettings, environment: Environment, registry: FakeRegistry
) -> None:
    publisher = await prepared(settings)
    quarantining = asyncio.create_task(publisher.quarantine(QUARANTINED))
    await until(lambda: environment.produced)
    (record,) = environment.produced
    assert (record["topic"], record["key"]) == (CALLBACKS_QUARANTINE.name, b"APP_1")
    assert dict(record["headers"])["ce_type"] == b"taskbridge.callback.quarantined.v1"
    assert quarantined_callback_codec(registry).decode(record["value"]) == QUARANTINED
    environment.reports[0].set_exception(DeliveryFailed("away"))
    assert await quarantining is Durability.SPOOL
    await publisher.close()


@pytest.mark.parametrize("problem", ["late", "failed", "queue"])
async def test_what_kafka_does_not_acknowledge_goes_to_the_spool_as_the_same_record(
    settings: EdgeSettings, environment: Environment, problem: str
) -> None:
    timeout_ms = 100 if problem == "late" else 20_000
    publisher = await prepared(settings.model_copy(update={"kafka_timeout_ms": timeout_ms}))
    environment.full = problem == "queue"
    publishing = asyncio.create_task(publisher.publish(Decided.of(EVENT), traceparent=TRACE))
    if problem == "failed":
        await until(lambda: environment.reports)
        environment.reports[0].set_exception(DeliveryFailed("purged"))
    assert await publishing is Durability.SPOOL
    environment.full = False
    attempts = len(environment.produced)
    await until(lambda: len(environment.produced) > attempts or problem != "queue")
    await until(lambda: len(environment.produced) >= (1 if problem == "queue" else 2))
    assert environment.produced[-1] == environment.produced[0] | {
        "headers": tuple(event_headers(EVENT, traceparent=TRACE))
    }
    environment.reports[-1].set_result(None)
    await until(lambda: publisher.health()["kafka"] == "ok")
    await publisher.close()


def test_it_starts_and_stores_callbacks_while_everything_is_away(
    settings: EdgeSettings, environment: Environment, registry: FakeRegistry
) -> None:
    async def scenario() -> None:
        registry.away = True
        registry._ids.clear()  # pyright: ignore[reportPrivateUsage]
        environment.reachable = False
        publisher = KafkaPublisher(settings, partitions=1)
        await publisher.start()
        assert await publisher.publish(Decided.of(EVENT), traceparent=None) is Durability.SPOOL
        health = publisher.health()
        assert (health["kafka"], health["spool"], publisher.can_store()) == ("does not answer", "ok", True)
        assert health["registry"] != "ok"
        # It takes the ids as soon as there are any, and delivers then.
        environment.reachable, registry.away = True, False
        await until(lambda: len(environment.produced) == 1)
        assert environment.produced[0]["value"] == task_event_codec(registry).encode(EVENT)
        await publisher.close()

    asyncio.run(scenario())


async def test_rejected_callbacks_leave_half_of_the_spool_to_proven_ones(
    settings: EdgeSettings, environment: Environment
) -> None:
    environment.reachable = False
    publisher = KafkaPublisher(settings.model_copy(update={"spool_max_bytes": 20_000}), partitions=1)
    await publisher.start()
    for _ in range(100):
        with contextlib.suppress(NotDurable):
            await publisher.quarantine(QUARANTINED)
    with pytest.raises(NotDurable, match="verified"):
        await publisher.quarantine(QUARANTINED)
    assert await publisher.publish(Decided.of(EVENT), traceparent=None) is Durability.SPOOL
    await publisher.close()


async def test_a_full_spool_is_not_ready_and_says_so(settings: EdgeSettings, environment: Environment) -> None:
    environment.reachable = False
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
    assert not publisher.can_store()
    exposition = generate_latest(metrics).decode()
    assert "taskbridge_edge_spool_full 1.0" in exposition
    assert "taskbridge_edge_kafka_usable 0.0" in exposition
    await publisher.close()


def test_topics_that_may_not_be_checked_are_reported_and_block_nothing(
    settings: EdgeSettings, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environment

    def reports(_admin: object, topics: Sequence[Topic], *, partitions: int) -> Sequence[TopicReport]:
        hidden = {TASK_EVENTS.name: "allow it"}
        return [TopicReport(each.name, False, partitions, unchecked=hidden.get(each.name)) for each in topics]  # noqa: FBT003

    monkeypatch.setattr("taskbridge.edge.kafka.prerequisites.apply_topics", reports)

    async def scenario() -> None:
        publisher = await prepared(settings)  # it waits for Kafka's part to be ok
        await publisher.close()

    with capture_logs() as lines:
        asyncio.run(scenario())
    (line,) = [each for each in lines if each["event"] == "topic_not_checked"]
    assert (line["log_level"], line["topic"], line["problem"]) == ("warning", TASK_EVENTS.name, "allow it")


async def test_a_schema_of_the_quarantine_that_is_refused_does_not_hold_up_events(
    settings: EdgeSettings, environment: Environment, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry._ids.clear()  # pyright: ignore[reportPrivateUsage]
    register = registry.register

    def refused(topics: Sequence[Topic]) -> dict[str, int]:
        if CALLBACKS_QUARANTINE in topics:
            raise SchemaRefused("incompatible")
        return register(topics)

    monkeypatch.setattr(registry, "register", refused)
    publisher = await prepared(settings)
    await until(lambda: "incompatible" in publisher.health()["registry"])
    publishing = asyncio.create_task(publisher.publish(Decided.of(EVENT), traceparent=TRACE))
    await until(lambda: environment.reports)
    environment.reports[0].set_result(None)
    assert await publishing is Durability.KAFKA
    assert await publisher.quarantine(QUARANTINED) is Durability.SPOOL
    await publisher.close()


async def test_with_ids_that_are_known_already_events_go_to_kafka_before_the_registry_answers(
    settings: EdgeSettings, environment: Environment, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def register(_: Sequence[Topic]) -> dict[str, int]:
        answered.wait(60)
        return {}

    monkeypatch.setattr(registry, "register", register)
    publisher = await prepared(settings)
    publishing = asyncio.create_task(publisher.publish(Decided.of(EVENT), traceparent=TRACE))
    await until(lambda: publishing.done() or environment.reports)
    assert len(environment.reports) == 1
    environment.reports[0].set_result(None)
    assert await publishing is Durability.KAFKA
    answered.set()
    await publisher.close()


async def test_a_quarantine_topic_that_cannot_be_used_closes_no_door_to_events(
    settings: EdgeSettings, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_admin: object, topics: Sequence[Topic], *, partitions: int) -> Sequence[TopicReport]:
        if CALLBACKS_QUARANTINE in topics:
            raise TopicsUnavailable("it may not be created")
        return [TopicReport(each.name, created=False, partitions=partitions) for each in topics]

    monkeypatch.setattr("taskbridge.edge.kafka.prerequisites.apply_topics", refused)
    publisher = KafkaPublisher(settings, partitions=1)
    await publisher.start()
    await until(lambda: "it may not be created" in publisher.health()["quarantine"])
    publishing = asyncio.create_task(publisher.publish(Decided.of(EVENT), traceparent=TRACE))
    await until(lambda: environment.reports)
    environment.reports[0].set_result(None)
    assert await publishing is Durability.KAFKA
    assert await publisher.quarantine(QUARANTINED) is Durability.SPOOL
    await until(lambda: not publisher._spools.moving)  # pyright: ignore[reportPrivateUsage]
    publishing = asyncio.create_task(publisher.publish(Decided.of(EVENT), traceparent=TRACE))
    await until(lambda: len(environment.reports) == 2)
    environment.reports[1].set_result(None)
    assert await publishing is Durability.KAFKA
    assert publisher.health()["kafka"] == "ok"
    assert publisher.can_store()
    await publisher.close()


async def test_what_differs_from_the_contract_is_reported_and_blocks_nothing(
    settings: EdgeSettings, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environment
    difference = "min.insync.replicas is 1, the contract says 2"
    drift = {TASK_EVENTS.name: [difference]}

    def differs(_admin: object, topics: Sequence[Topic], *, partitions: int) -> Sequence[TopicReport]:
        return [TopicReport(each.name, False, partitions, drift.get(each.name, [])) for each in topics]  # noqa: FBT003

    monkeypatch.setattr("taskbridge.edge.kafka.prerequisites.apply_topics", differs)
    monkeypatch.setattr("taskbridge.edge.kafka.prerequisites._LOOK_AGAIN_S", 0.05)
    publisher = await prepared(settings)
    assert publisher.health()["topics"] == f"{TASK_EVENTS.name}: {difference}"
    assert publisher.can_store()
    drift.clear()
    await until(lambda: publisher.health()["topics"] == "ok")
    drift[CALLBACKS_QUARANTINE.name] = [difference]  # and what is changed while it runs
    await until(lambda: publisher.health()["topics"] == f"{CALLBACKS_QUARANTINE.name}: {difference}")
    await publisher.close()


async def test_rejected_callbacks_go_to_kafka_though_the_spool_has_no_room_for_them(
    settings: EdgeSettings, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = await prepared(settings)
    monkeypatch.setattr("taskbridge.edge.publisher._QUARANTINE_SHARE", -1)
    quarantining = asyncio.create_task(publisher.quarantine(QUARANTINED))
    await until(lambda: environment.reports)
    environment.reports[0].set_result(None)
    assert await quarantining is Durability.KAFKA
    await publisher.close()


@pytest.mark.usefixtures("environment")
async def test_a_spool_file_that_cannot_be_opened_is_named_and_callbacks_are_stored(settings: EdgeSettings) -> None:
    (settings.data_dir / "spool" / "0.db").mkdir(parents=True)
    publisher = await prepared(settings)
    await until(lambda: publisher.health()["spool"].startswith("0.db cannot be opened: "))
    assert publisher.can_store()
    await publisher.close()


class Stores:
    """The spools, or the store of records, with given values."""

    def __init__(self, **known: Any) -> None:
        self.broken: str | None = None
        self.full = False
        self.problem: str | None = None
        self.unopened: dict[int, str] = {}
        self.set_aside = 0
        self.size = 0
        self.stored: list[tuple[Record, bool]] = []
        vars(self).update(known)

    async def store(self, record: Record, *, may_spool: bool = True) -> Durability:
        self.stored.append((record, may_spool))
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
        ({"set_aside": 2}, "2 records set aside, Kafka rejects them: 'taskbridge set-aside list spool'"),
    ],
)
def test_the_worst_of_the_spool_is_what_its_health_says(
    settings: EdgeSettings, environment: Environment, known: dict[str, Any], health: str
) -> None:
    assert environment
    publisher: Any = KafkaPublisher(settings, partitions=1)
    publisher._spools = Stores(**known)
    assert publisher.health()["spool"] == health


async def test_a_record_may_be_as_large_as_the_producer_takes_and_not_a_byte_larger(
    settings: EdgeSettings, environment: Environment
) -> None:
    assert environment
    publisher: Any = KafkaPublisher(settings, partitions=1)
    stores = Stores()
    publisher.store = stores.store
    await publisher.publish(Decided.of(EVENT), traceparent=None)
    ((record, _),) = stores.stored
    publisher._max_record_bytes = record.size
    await publisher.publish(Decided.of(EVENT), traceparent=None)
    publisher._max_record_bytes = record.size - 1
    with pytest.raises(TooLarge):
        await publisher.publish(Decided.of(EVENT), traceparent=None)
    assert len(stores.stored) == 2


def test_a_callback_waits_for_no_other_before_it_is_sent_unless_the_operator_says_so(
    settings: EdgeSettings, tmp_path: Path
) -> None:
    def linger(settings: EdgeSettings) -> object:
        return KafkaPublisher(settings, partitions=1)._config["linger.ms"]  # pyright: ignore[reportPrivateUsage]

    assert linger(settings) == "0"
    path = tmp_path / "kafka.properties"
    path.write_text("linger.ms=7\n")
    assert linger(settings.model_copy(update={"kafka_config_file": path})) == "7"


def test_a_property_that_librdkafka_refuses_is_reported_at_the_start(settings: EdgeSettings, tmp_path: Path) -> None:
    config = tmp_path / "kafka.properties"
    config.write_text("no.such.property=1\n")
    with pytest.raises(ConfigurationError, match=r"no\.such\.property"):
        KafkaPublisher(settings.model_copy(update={"kafka_config_file": config}), partitions=1)
