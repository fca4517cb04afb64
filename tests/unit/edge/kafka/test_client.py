"""Records reach Kafka or are known to have failed; a failing partition and a dead producer are noticed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError
from msgspec.structs import replace

from support.edge.spool import REGISTRY, SCHEMA, TestProducer, record, until
from taskbridge.edge.kafka.client import KafkaClient, SchemaIdUnknown, Sendings
from taskbridge.edge.kafka.record import Record
from taskbridge.runtime.producer import DeliveryFailed
from taskbridge.schemas.registry import SchemaRef
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


RECORD = Record(topic="t", key=b"k", headers=(), schema="s", body=b"")


def run(scenario: Callable[[Sendings, list[object]], Awaitable[None]]) -> list[object]:
    """All that is reported, in order: failures to the path, and the outcome to each sender."""
    heard: list[object] = []

    async def main() -> None:
        await scenario(Sendings(lambda record, error: heard.append((record, str(error)))), heard)

    asyncio.run(main())
    return heard


def test_a_failure_is_reported_to_the_path_first_and_to_the_sender_in_the_next_turn() -> None:
    async def scenario(sendings: Sendings, heard: list[object]) -> None:
        sending = sendings.add(RECORD, lambda error: heard.append(str(error)), 10)
        sending.set_exception(DeliveryFailed("no"))
        assert (heard, sending.done(), dict(sendings)) == ([], True, {})
        await asyncio.sleep(0)

    assert run(scenario) == [(RECORD, "no"), "no"]


def test_each_is_late_in_its_own_time_and_one_that_arrived_never() -> None:
    async def scenario(sendings: Sendings, heard: list[object]) -> None:
        late = asyncio.Event()

        def second(error: Exception | None) -> None:
            heard.append(f"second: {error}")
            late.set()

        sendings.add(RECORD, lambda error: heard.append(f"first: {error}"), 0.02)
        arrived = sendings.add(RECORD, lambda error: heard.append(f"arrived: {error}"), 0.02)
        arrived.set_result(None)
        await asyncio.sleep(0.01)
        sendings.add(RECORD, second, 0.02)
        await late.wait()
        assert not sendings

    text = "no acknowledgement in time"
    assert run(scenario) == ["arrived: None", (RECORD, text), f"first: {text}", (RECORD, text), f"second: {text}"]


class Mortal(TestProducer):
    """Dies of the first record that fails, and of nothing else; closed, it waits for as long as it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.kills = True
        self.closing_s: list[float] = []
        self.is_closed = False
        self.let_go = asyncio.Event()
        self.let_go.set()

    def release(self) -> None:
        super().release()
        if self.kills and any(number in self.failing for number in self.sent):
            self.is_dead = True

    async def close(self, *, timeout_s: float = 5) -> int:
        self.closing_s.append(timeout_s)
        try:
            await self.let_go.wait()
        finally:
            self.is_closed = True
        return 0


class Producers:
    """Makes them, and remembers all."""

    def __init__(self) -> None:
        self.made: list[Mortal] = []
        self.fails = False
        self.problem = "too many open files"

    def __call__(self) -> Mortal:
        if self.fails:
            raise OSError(self.problem)
        self.made.append(Mortal())
        return self.made[-1]


async def open_client(producers: Producers) -> KafkaClient:
    path = KafkaClient(producers, REGISTRY)
    path.start()
    path.load_ids(SCHEMA)
    path.open(TASK_EVENTS.name, partitions=1)
    await path.check()
    return path


async def test_after_a_fatal_error_the_next_record_goes_out_by_another_producer() -> None:
    producers = Producers()
    path = await open_client(producers)
    producers.made[0].failing[0] = DeliveryFailed("fatal")
    with pytest.raises(DeliveryFailed):
        await path.send_within(record(0), timeout_s=1)
    assert path.is_failing((TASK_EVENTS.name, 0))
    path.succeed(record(0))
    await path.send_within(record(1), timeout_s=1)
    first, second = producers.made
    assert (first.sent, second.sent) == ([0], [1])
    await until(lambda: first.closing_s)
    assert second.closing_s == []
    await path.close()


async def test_records_that_fail_together_replace_their_producer_once() -> None:
    producers = Producers()
    path = await open_client(producers)
    producers.made[0].held = True
    producers.made[0].failing = {number: DeliveryFailed("fatal") for number in range(5)}
    sending = [asyncio.create_task(path.send_within(record(number), timeout_s=1)) for number in range(5)]
    await asyncio.sleep(0)
    producers.made[0].release()
    failed = await asyncio.gather(*sending, return_exceptions=True)
    assert [type(each) for each in failed] == [DeliveryFailed] * 5
    assert len(producers.made) == 2
    await path.close()


async def test_an_error_that_is_not_fatal_replaces_nothing() -> None:
    producers = Producers()
    path = await open_client(producers)
    producers.made[0].kills = False
    producers.made[0].failing[0] = DeliveryFailed("late")
    with pytest.raises(DeliveryFailed):
        await path.send_within(record(0), timeout_s=1)
    await path.send_within(record(1), timeout_s=1)
    assert len(producers.made) == 1
    await path.close()


async def test_a_dead_producer_is_polled_for_its_last_reports_and_delays_no_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("taskbridge.edge.kafka.client._HOPELESS_FLUSH_S", 0.05)
    producers = Producers()
    path = await open_client(producers)
    first = producers.made[0]
    first.let_go.clear()
    first.failing[0] = DeliveryFailed("fatal")
    with pytest.raises(DeliveryFailed):
        await path.send_within(record(0), timeout_s=1)
    await until(lambda: first.closing_s)
    assert first.closing_s[0] > 30, "librdkafka reports on a record after message.timeout.ms at the latest"
    async with asyncio.timeout(60):
        await path.close()
    await asyncio.sleep(0)
    assert first.is_closed, "nothing of it continues after the end"


async def test_where_no_producer_can_be_made_kafka_is_away_and_each_check_tries_again() -> None:
    producers = Producers()
    path = await open_client(producers)
    [first] = producers.made
    first.failing[0] = DeliveryFailed("fatal")
    producers.fails = True
    with pytest.raises(DeliveryFailed, match="fatal"):
        await path.send_within(record(0), timeout_s=1)
    path.succeed(record(0))
    assert not path.accepts(record(1))
    assert not await path.check()
    assert first.closing_s == [], "it is still the only one"
    producers.fails = False
    assert await path.check()
    assert path.accepts(record(1))
    await path.send_within(record(1), timeout_s=1)
    assert [each.sent for each in producers.made] == [[0], [1]]
    assert first.closing_s != []
    await path.close()


async def test_a_producer_that_stays_silent_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    producers = Producers()
    path = await open_client(producers)
    (first,) = producers.made
    first.held, first.reachable = True, False
    under_way = path.send(record(0))
    assert not await path.check()
    assert len(producers.made) == 1, "a short silence is none"
    monkeypatch.setattr("taskbridge.edge.kafka.client._SILENT_S", 0)
    assert not await path.check()
    monkeypatch.undo()
    assert await path.check()
    assert len(producers.made) == 2
    await path.send_within(record(1), timeout_s=1)
    assert [each.sent for each in producers.made] == [[0], [1]]
    assert not under_way.done()
    first.release()
    await under_way  # what it had in hand still gets its report
    await until(lambda: first.is_closed)
    await path.close()


EVENTS, QUARANTINE = TASK_EVENTS.name, CALLBACKS_QUARANTINE.name
FIRST, SECOND = record(0, key="k0"), record(1, key="k3")
"""Of two partitions, one each: see below."""
AWAY = DeliveryFailed("away")


async def two_partitions(producers: Producers) -> KafkaClient:
    path = await open_client(producers)
    path.open(EVENTS, partitions=2)
    assert path.partition_of(FIRST) != path.partition_of(SECOND)
    return path


async def test_a_record_is_accepted_once_a_broker_answers_its_topic_is_there_and_its_schema_known() -> None:
    path = KafkaClient(Producers(), REGISTRY)
    path.start()

    def known() -> tuple[bool, ...]:
        return path.answers, path.has(EVENTS), path.usable, path.accepts(FIRST)

    assert known() == (False, False, False, False)
    assert path.partition_of(FIRST) == (EVENTS, -1)
    path.open(EVENTS, partitions=1)
    assert known() == (False, True, False, False)
    assert path.partition_of(FIRST) == (EVENTS, 0)
    assert not path.accepts_any_of(EVENTS)
    assert await path.check()
    assert known() == (True, True, True, False)
    assert not path.can_frame(FIRST.schema)
    with pytest.raises(SchemaIdUnknown):
        path.send(FIRST)
    path.load_ids(SCHEMA, SchemaRef("of nobody", '"string"'))
    assert path.can_frame(FIRST.schema)
    assert not path.can_frame(SchemaRef("of nobody", '"string"').key)
    assert known() == (True, True, True, True)
    assert path.accepts_any_of(EVENTS)
    assert not path.accepts(record(topic=QUARANTINE))


async def test_that_a_broker_answers_is_waited_for_and_looked_after_more_often_while_none_does() -> None:
    producers = Producers()
    path = KafkaClient(producers, REGISTRY)
    path.start()
    producers.made[0].reachable = False
    assert not await path.check()
    away_s = path.next_check_s
    waiting = asyncio.create_task(path.until_answers())
    path.open(EVENTS, partitions=1)
    await asyncio.sleep(0)
    assert not waiting.done()
    producers.made[0].reachable = True
    assert await path.check()
    await waiting
    assert path.next_check_s > away_s
    producers.made[0].reachable = False
    await path.check()
    waiting = asyncio.create_task(path.until_answers())
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_a_failure_is_one_of_its_partition_until_something_arrives_there() -> None:
    path = await two_partitions(Producers())
    path.open(QUARANTINE, partitions=1)
    assert (path.failing(EVENTS), path.problem_of(EVENTS)) == (0, None)
    path.fail(FIRST, AWAY)
    assert (path.accepts(FIRST), path.accepts(SECOND), path.usable) == (False, True, False)
    assert (path.failing(EVENTS), path.failing(QUARANTINE)) == (1, 0)
    assert (path.accepts_any_of(EVENTS), path.accepts_any_of(QUARANTINE)) == (True, True)
    path.fail(SECOND, DeliveryFailed("later"))
    assert (path.failing(EVENTS), path.accepts_any_of(EVENTS)) == (2, False)
    assert path.problem_of(EVENTS) == "later"
    path.fail(FIRST, DeliveryFailed("last of all"))
    assert path.problem_of(EVENTS) == "last of all"
    assert path.problem_of(QUARANTINE) is None
    path.succeed(FIRST)
    assert (path.is_failing(path.partition_of(FIRST)), path.is_failing(path.partition_of(SECOND))) == (False, True)
    assert path.problem_of(EVENTS) == "later"
    path.succeed(SECOND)
    assert path.usable


async def test_who_waits_for_the_partition_that_failed_hears_of_it_at_once_and_nobody_else() -> None:
    producers = Producers()
    path = await two_partitions(producers)
    producers.made[0].held = True
    same = asyncio.create_task(path.send_within(record(2, key="k0"), timeout_s=10))
    other = asyncio.create_task(path.send_within(SECOND, timeout_s=10))
    await asyncio.sleep(0)
    path.fail(FIRST, AWAY)
    path.fail(FIRST, AWAY)  # no sender hears of it twice
    with pytest.raises(DeliveryFailed, match="another delivery failed: away"):
        await same
    assert not other.done()
    producers.made[0].release()
    await other


async def test_a_record_that_is_not_acknowledged_in_time_has_failed() -> None:
    producers = Producers()
    path = await two_partitions(producers)
    producers.made[0].held = True
    with pytest.raises(DeliveryFailed, match="in time"):
        await path.send_within(FIRST, timeout_s=0.01)
    assert path.problem_of(EVENTS) == "no acknowledgement in time"
    assert path._sendings == {}  # pyright: ignore[reportPrivateUsage]


async def test_what_a_broker_has_against_one_record_is_no_failure_of_its_partition() -> None:
    producers = Producers()
    path = await two_partitions(producers)
    producers.made[0].kills = False
    producers.made[0].failing[0] = DeliveryFailed("too large", KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    with pytest.raises(DeliveryFailed, match="too large"):
        await path.send_within(FIRST, timeout_s=1)
    assert path.usable


async def test_a_topic_that_is_gone_is_not_open_until_it_is_made_sure_of_again() -> None:
    path = await open_client(Producers())
    gone = DeliveryFailed("gone", KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    path.fail(FIRST, gone)
    assert not path.has(EVENTS)
    path.fail(FIRST, gone)
    path.open(EVENTS, partitions=1)
    assert path.has(EVENTS)


async def test_after_a_while_a_failed_partition_may_be_tried_unless_a_spooled_record_tries_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = await two_partitions(Producers())
    path.fail(FIRST, AWAY)
    path.fail(SECOND, AWAY)
    path.forgive()
    assert path.failing(EVENTS) == 2, "not at once"
    monkeypatch.setattr("taskbridge.edge.kafka.client._FORGIVE_S", -1)
    path.forgive(but={path.partition_of(SECOND)})
    assert (path.accepts(FIRST), path.accepts(SECOND)) == (True, False)
    path.forgive()
    assert path.usable


async def test_the_id_of_a_schema_is_requested_once_and_only_where_the_schema_itself_is_known() -> None:
    registry = FakeRegistry()
    path = KafkaClient(Producers(), registry)
    path.start()
    assert not await path.fetch_id(SCHEMA.key, {})
    assert await path.fetch_id(SCHEMA.key, {SCHEMA.key: (SCHEMA.subject, SCHEMA.text)})
    registry.learn_id = None  # type: ignore[assignment]
    assert await path.fetch_id(SCHEMA.key, {SCHEMA.key: (SCHEMA.subject, SCHEMA.text)})
    assert await path.fetch_id(SCHEMA.key, {})
    strange = replace(FIRST, schema="strange")
    assert not await path.fetch_id(strange.schema, {SCHEMA.key: (SCHEMA.subject, SCHEMA.text)})


async def test_the_end_waits_long_only_for_a_kafka_that_answers() -> None:
    producers = Producers()
    await (await open_client(producers)).close()
    path = await open_client(producers)
    path.fail(FIRST, AWAY)
    await path.close()
    well, failing = (each.closing_s for each in producers.made)
    assert (well, failing) == ([5], [1])
