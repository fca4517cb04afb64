"""Kafka's settings files are read line by line, and a delivery is believed only from its report."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException

from support.kafka.metadata_broker import metadata_broker
from taskbridge.runtime.kafka import (
    admin_client,
    client_config,
    consumer_config,
    producer_config,
    read_kafka_config,
)
from taskbridge.runtime.producer import AsyncProducer, DeliveryFailed, QueueFull
from taskbridge.schemas.errors import ConfigurationError

NOBODY = "127.0.0.1:9"


def test_a_config_file_gives_librdkafka_properties(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("# TLS\nsecurity.protocol = SASL_SSL\n\nsasl.password=a=b # c\n")
    assert read_kafka_config(path) == {"security.protocol": "SASL_SSL", "sasl.password": "a=b # c"}
    assert read_kafka_config(None) == {}


ASKED_TOO_LATE = """
from taskbridge.runtime.kafka import Admin

admin = Admin({"bootstrap.servers": "-", "test.mock.num.brokers": 1, "test.mock.broker.rtt": 100})
assert not admin.describe_groups(["group"], 0.1)
print(admin.describe_groups(["group"], 30)["group"].exception())
"""


def test_a_coordinator_that_is_found_too_late_ends_no_process() -> None:
    ended = subprocess.run([sys.executable, "-c", ASKED_TOO_LATE], capture_output=True, text=True, check=False)
    # librdkafka's mock brokers describe no groups.
    assert (ended.returncode, ended.stdout.count("_UNSUPPORTED_FEATURE")) == (0, 1), ended.stderr


def test_a_coordinator_that_is_not_there_yet_is_looked_up_again() -> None:
    async def ask() -> Future[Any]:
        async with metadata_broker() as broker:
            broker.coordinates_after = 4
            admin = admin_client(f"127.0.0.1:{broker.port}")
            return (await asyncio.to_thread(admin.describe_groups, ["group"], 30))["group"]

    # It describes no groups either.
    assert "_UNSUPPORTED_FEATURE" in str(asyncio.run(ask()).exception())


class Groups:
    """In the place of librdkafka's clients: each request gets the next of these answers, errors or members."""

    def __init__(self, *answers: dict[str, int | str]) -> None:
        self._answers = list(answers)
        self.requests: list[list[str]] = []

    def __call__(self, *_: object, **__: object) -> Groups:
        return self

    def describe_consumer_groups(self, names: list[str], **_: object) -> dict[str, Future[Any]]:
        self.requests.append(names)
        answers = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return {name: self._future(answers[name]) for name in names}

    def _future(self, answer: int | str) -> Future[Any]:
        future: Future[Any] = Future()
        if isinstance(answer, int):
            future.set_exception(KafkaException(KafkaError(answer)))
        else:
            future.set_result(answer)
        return future


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.runtime.kafka.COORDINATOR_RETRY_S", 0)


def described(monkeypatch: pytest.MonkeyPatch, groups: Groups, *names: str, within_s: float = 60) -> dict[str, str]:
    admin = admin_client(NOBODY)
    monkeypatch.setattr("taskbridge.runtime.kafka.AdminClient", groups)
    found = admin.describe_groups(names, within_s)
    return {name: str(answer.exception() or answer.result()) for name, answer in found.items()}


@pytest.mark.usefixtures("at_once")
def test_a_coordinator_that_goes_on_moving_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = Groups({"a": KafkaError.NOT_COORDINATOR})
    assert "NOT_COORDINATOR" in described(monkeypatch, groups, "a", within_s=0.05)["a"]
    assert len(groups.requests) > 1


def test_a_refusal_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = Groups({"a": KafkaError.GROUP_AUTHORIZATION_FAILED})
    assert "GROUP_AUTHORIZATION_FAILED" in described(monkeypatch, groups, "a")["a"]
    assert groups.requests == [["a"]]


def test_librdkafka_does_not_get_settings_of_the_registry() -> None:
    extra = {"sasl.username": "edge", "schema.registry.basic.auth.user.info": "edge:secret"}
    for config in (
        client_config(NOBODY, extra),
        producer_config(NOBODY, extra),
        consumer_config(NOBODY, "group", extra),
    ):
        assert config["sasl.username"] == "edge"
        assert not [name for name in config if name.startswith("schema.registry.")]


def test_a_config_file_that_cannot_be_used_says_where_but_not_what(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("a=b\nsecret-without-equals\n")
    with pytest.raises(ConfigurationError, match="line 2: expected name=value") as caught:
        read_kafka_config(path)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="No such file"):
        read_kafka_config(tmp_path / "none")


async def deliver_to_nobody() -> int:
    producer = AsyncProducer({**producer_config(NOBODY), "message.timeout.ms": 100, "linger.ms": 0})
    with pytest.raises(DeliveryFailed):
        await producer.produce("topic", key=b"k", value=b"v")
    assert not await producer.answers(timeout_s=0.1)
    with pytest.raises(DeliveryFailed):
        await producer.produce("topic", key=None, value=b"x" * (8 << 20))
    return await producer.close(timeout_s=1)


def test_what_no_broker_acknowledged_was_not_delivered() -> None:
    assert asyncio.run(deliver_to_nobody()) == 0


class Librdkafka:
    """Acknowledges records on command, to the thread that polls."""

    def __init__(self, *_: object, **__: object) -> None:
        self.given: list[Any] = []
        self.values: list[bytes] = []
        self.full = False
        self.acknowledged = 0
        self.polls = 0
        self.polled_by = set[int]()
        self.broken = False

    def __len__(self) -> int:
        return len(self.given)

    def produce(self, _topic: str, value: bytes, _key: object, _partition: int, on_delivery: Any, *more: Any) -> None:
        if self.full:
            raise BufferError
        _, _, headers = more
        if any(not isinstance(each, bytes) for _, each in headers):
            raise TypeError("headers have bytes")
        self.values.append(value)
        self.given.append(on_delivery)

    def poll(self, timeout: float) -> None:
        assert timeout == 0, "the loop would stand still"
        self.polls += 1
        self.polled_by.add(threading.get_ident())
        if self.broken:
            self.broken = False
            raise RuntimeError("once")
        while self.acknowledged and self.given:
            self.acknowledged -= 1
            self.given.pop(0)(None, None)


@pytest.fixture
def librdkafka(monkeypatch: pytest.MonkeyPatch) -> Librdkafka:
    fake = Librdkafka()
    monkeypatch.setattr("taskbridge.runtime.producer.Producer", lambda *_, **__: fake)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    return fake


async def test_a_delivery_is_done_with_its_report_and_not_before(librdkafka: Librdkafka) -> None:
    producer = AsyncProducer({})
    await asyncio.sleep(0.01)
    delivery = producer.produce("topic", key=None, value=b"v")
    while librdkafka.polls < 3:  # noqa: ASYNC110 - a poll has no event
        await asyncio.sleep(0)
    assert not delivery.done()
    librdkafka.acknowledged = 1
    polls = librdkafka.polls
    await delivery
    assert librdkafka.polls == polls + 1
    assert librdkafka.polled_by == {threading.get_ident()}
    await producer.close()


async def test_what_one_turn_of_the_loop_sends_is_handed_over_together_and_in_order(librdkafka: Librdkafka) -> None:
    producer = AsyncProducer({})
    deliveries = [producer.produce("topic", key=None, value=b"%d" % number) for number in range(5)]
    assert (librdkafka.values, producer.pending) == ([], 5)
    await asyncio.sleep(0)
    assert (librdkafka.values, producer.pending) == ([b"0", b"1", b"2", b"3", b"4"], 5)
    librdkafka.acknowledged = 5
    await asyncio.gather(*deliveries)
    await producer.close()


async def test_a_record_cancelled_before_it_was_handed_over_is_not_sent(librdkafka: Librdkafka) -> None:
    producer = AsyncProducer({})
    producer.produce("topic", key=None, value=b"cancelled").cancel()
    producer.produce("topic", key=None, value=b"sent")
    await asyncio.sleep(0)
    assert librdkafka.values == [b"sent"]
    await producer.close(timeout_s=0)


async def test_a_full_queue_accepts_nothing(librdkafka: Librdkafka) -> None:
    producer = AsyncProducer({})
    librdkafka.full = True
    with pytest.raises(QueueFull):
        await asyncio.wait_for(producer.produce("topic", key=None, value=b"v"), 60)
    assert producer.pending == 0
    await producer.close()


async def test_a_record_that_cannot_be_handed_over_for_any_reason_fails_alone(librdkafka: Librdkafka) -> None:
    producer = AsyncProducer({})
    strange: Any = [("header", object())]
    delivery = producer.produce("topic", key=None, value=b"strange", headers=strange)
    producer.produce("topic", key=None, value=b"sent")
    with pytest.raises(DeliveryFailed, match="topic: headers"):
        await asyncio.wait_for(delivery, 60)
    assert librdkafka.values == [b"sent"]
    await producer.close(timeout_s=0)


def test_the_end_waits_for_reports_in_bounded_time(librdkafka: Librdkafka) -> None:
    async def scenario() -> int:
        producer = AsyncProducer({})
        first, _ = (producer.produce("topic", key=None, value=b"v") for _ in range(2))
        asyncio.get_running_loop().call_later(0.01, setattr, librdkafka, "acknowledged", 1)
        closing = asyncio.create_task(producer.close(timeout_s=1))
        await asyncio.wait_for(first, 60)
        return await closing

    assert asyncio.run(scenario()) == 1


def open_signals() -> int:
    """Not all files: librdkafka's threads of earlier tests may still connect."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found += "eventfd" in str(each.readlink())
    return found


def test_librdkafka_signals_reports_so_that_nobody_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pinned version is the one that ``open_report_signal`` knows: after an update its layout has to be checked."""
    monkeypatch.setattr("taskbridge.runtime.producer._SIGNALLED_POLL_S", 1000)
    monkeypatch.setattr("taskbridge.runtime.producer._IDLE_POLL_S", 1000)

    async def scenario() -> None:
        before = open_signals()
        producer = AsyncProducer({"test.mock.num.brokers": 1, "linger.ms": 0})
        assert open_signals() == before + 1
        for _ in range(20):
            deliveries = [producer.produce("topic", key=None, value=b"v") for _ in range(5)]
            async with asyncio.timeout(20):
                await asyncio.gather(*deliveries)
            await asyncio.sleep(0.001)
        assert await producer.close() == 0
        assert open_signals() == before

    asyncio.run(scenario())


def test_a_closed_producers_descriptor_gets_nothing_while_a_request_still_holds_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``list_topics`` does in its thread. The number is a client's connection by then, here a file."""
    path = tmp_path / "connection"

    async def scenario() -> None:
        producer = AsyncProducer({"linger.ms": 0})
        request, signal = producer._producer, producer._signal  # pyright: ignore[reportPrivateUsage]
        assert signal is not None, "the pinned version is known"
        delivery = producer.produce("topic", key=None, value=b"v")
        await asyncio.sleep(0)
        with path.open("wb") as connection:

            def close(number: int) -> None:
                """By putting the file there, so that no other thread gets the number in between."""
                os.dup2(connection.fileno(), number)

            monkeypatch.setattr("taskbridge.runtime.producer.os", SimpleNamespace(close=close))
            assert await producer.close(timeout_s=0) == 1
        try:
            request.purge()
            while not request.poll(1):
                pass
        finally:
            os.close(signal)
        with pytest.raises(DeliveryFailed):
            await delivery

    asyncio.run(scenario())
    assert path.read_bytes() == b""


def test_the_producer_waits_for_all_replicas_and_places_keys_as_java_does() -> None:
    config = producer_config(NOBODY, {"security.protocol": "SSL"})
    assert config["acks"] == "all"
    assert config["enable.idempotence"] is True
    assert config["partitioner"] == "murmur2_random"
    assert config["security.protocol"] == "SSL"


def test_what_is_produced_is_read_by_every_client_and_an_operator_may_decide_otherwise() -> None:
    assert producer_config(NOBODY)["compression.type"] == "none"
    assert producer_config(NOBODY, {"compression.type": "zstd"})["compression.type"] == "zstd"


def librdkafka_meets_a_fatal_error(
    producer: AsyncProducer, code: int = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER
) -> None:
    """As of a broker that lost records. The library has a function for it, which Python is not given."""
    (library,) = (Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka*")
    raise_fatal = ctypes.CDLL(str(library)).rd_kafka_test_fatal_error
    raise_fatal.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    # The handle follows the head of the Python object.
    handle = ctypes.c_void_p.from_address(id(producer._producer) + object.__basicsize__)  # pyright: ignore[reportPrivateUsage]
    assert raise_fatal(handle, code, b"test") == 0


async def test_a_producer_is_dead_after_a_fatal_error_and_reports_the_outcome_of_its_records() -> None:
    producer = AsyncProducer({"bootstrap.servers": "127.0.0.1:1", "enable.idempotence": True})
    before = producer.produce("topic", key=None, value=b"v")
    await asyncio.sleep(0.05)
    assert not producer.is_dead
    librdkafka_meets_a_fatal_error(producer)
    with pytest.raises(DeliveryFailed):
        await asyncio.wait_for(before, 60)
    assert producer.is_dead
    with pytest.raises(DeliveryFailed):
        await asyncio.wait_for(producer.produce("topic", key=None, value=b"v"), 60)
    assert await producer.close() == 0
