"""An event counts as durable when Kafka has acknowledged it, and never before; while anything is away, it says what."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edge.callbacks import event_of, locate
from edge.errors import NotDurable
from edge.publisher import Durability, KafkaPublisher
from edge.testing import parameters_of
from schemas.cloudevents import event_headers
from schemas.events import QuarantinedCallback
from service.kafka import Delivered, DeliveryFailed, QueueFull

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.settings import EdgeSettings

PARAMETERS = parameters_of("delete", instance_id="实例-1")
EVENT = event_of(locate("delete", PARAMETERS), PARAMETERS, received_at=1)
QUARANTINED = QuarantinedCallback(
    quarantine_id="q-1",
    received_at=1,
    action="delete",
    reason="wrong-sign",
    app_type=None,
    remote_address="192.0.2.1",
    method="POST",
    path="/yida/tasks/delete",
    query="",
    headers={},
    body=b"{}",
)
TOPIC = "taskbridge.task-events.v1"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Surroundings:
    """A producer, registry, codec and admin in one, which do nothing until they are told."""

    def __init__(self) -> None:
        self.produced: list[dict[str, Any]] = []
        self.reports: list[asyncio.Future[Delivered]] = []
        self.full = False

    async def answers(self) -> bool:
        return True

    def produce(self, topic: str, **record: Any) -> asyncio.Future[Delivered]:
        if self.full:
            raise QueueFull("full")
        self.produced.append({"topic": topic, **record})
        self.reports.append(asyncio.get_running_loop().create_future())
        return self.reports[-1]

    async def close(self) -> int:
        return 0

    def encode(self, _event: object) -> bytes:
        return b"encoded"


class KnownRegistry:
    def knows(self, _topics: object) -> bool:
        return True

    def register(self, _topics: object) -> None:
        """The ids are known already."""

    def close(self) -> None:
        """There is no connection."""


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    surroundings = Surroundings()

    def given(*_: object, **__: object) -> Surroundings:
        return surroundings

    def no_reports(*_: object, **__: object) -> Sequence[object]:
        return ()

    def known(*_: object, **__: object) -> KnownRegistry:
        return KnownRegistry()

    for name in ("AsyncProducer", "task_event_codec", "quarantined_callback_codec", "admin_client"):
        monkeypatch.setattr(f"edge.publisher.{name}", given)
    monkeypatch.setattr("edge.publisher.apply_topics", no_reports)
    monkeypatch.setattr("edge.publisher.Registry", known)
    return surroundings


async def prepared(settings: EdgeSettings) -> KafkaPublisher:
    publisher = KafkaPublisher(settings, partitions=1)
    await publisher.start()
    while publisher.health()["kafka"] != "ok":  # noqa: ASYNC110 - what operators see is what is waited for
        await asyncio.sleep(0.01)
    return publisher


def test_an_event_is_durable_only_after_its_delivery_report(settings: EdgeSettings, around: Surroundings) -> None:
    async def scenario() -> None:
        publisher = await prepared(settings)
        publishing = asyncio.create_task(publisher.publish(EVENT, traceparent=TRACE))
        await asyncio.sleep(0.05)
        assert not publishing.done()
        (record,) = around.produced
        assert record == {
            "topic": TOPIC,
            "key": "实例-1".encode(),
            "value": b"encoded",
            "headers": event_headers(EVENT, traceparent=TRACE),
        }
        around.reports[0].set_result(Delivered(TOPIC, 0, 0))
        assert await publishing is Durability.KAFKA
        await publisher.close()

    asyncio.run(scenario())


def test_a_quarantined_callback_is_durable_only_after_its_delivery_report(
    settings: EdgeSettings, around: Surroundings
) -> None:
    async def scenario() -> None:
        publisher = await prepared(settings)
        keeping = [
            asyncio.create_task(publisher.quarantine(replace(QUARANTINED, app_type=app))) for app in ("APP_应用", None)
        ]
        await asyncio.sleep(0.05)
        assert not any(each.done() for each in keeping)
        assert {record["topic"] for record in around.produced} == {"taskbridge.callbacks-quarantine.v1"}
        assert [record["key"] for record in around.produced] == ["APP_应用".encode(), b""]
        around.reports[0].set_result(Delivered(TOPIC, 0, 0))
        around.reports[1].set_exception(DeliveryFailed("refused"))
        assert await keeping[0] is Durability.KAFKA
        with pytest.raises(NotDurable, match="refused"):
            await keeping[1]
        await publisher.close()

    asyncio.run(scenario())


def test_a_failed_delivery_is_not_durable(settings: EdgeSettings, around: Surroundings) -> None:
    async def scenario() -> None:
        publisher = await prepared(settings)
        publishing = asyncio.create_task(publisher.publish(EVENT, traceparent=None))
        await asyncio.sleep(0.01)
        around.reports[0].set_exception(DeliveryFailed("too large"))
        with pytest.raises(NotDurable, match="too large"):
            await publishing
        around.full = True
        with pytest.raises(NotDurable, match="full"):
            await publisher.publish(EVENT, traceparent=None)
        await publisher.close()

    asyncio.run(scenario())


@pytest.mark.usefixtures("around")
def test_a_delivery_that_takes_too_long_is_not_durable(settings: EdgeSettings) -> None:
    async def scenario() -> float:
        publisher = await prepared(settings.model_copy(update={"kafka_timeout_ms": 100}))
        started = time.perf_counter()
        with pytest.raises(NotDurable, match="in time"):
            await publisher.publish(EVENT, traceparent=None)
        waited = time.perf_counter() - started
        await publisher.close()
        return waited

    assert 0.1 <= asyncio.run(scenario()) < 1


def test_it_starts_and_refuses_at_once_while_everything_is_away(settings: EdgeSettings) -> None:
    async def scenario() -> float:
        publisher = KafkaPublisher(settings, partitions=1)
        await publisher.start()
        started = time.perf_counter()
        with pytest.raises(NotDurable):
            await publisher.publish(EVENT, traceparent=None)
        waited = time.perf_counter() - started
        health = publisher.health()
        assert (health["kafka"], health["spool"]) == ("does not answer", "none")
        assert health["registry"] != "ok"
        await publisher.close()
        return waited

    assert asyncio.run(scenario()) < 0.1
