"""The guarantees of ``subscribe``: at least once, once within the window, in order, through outages."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from support.client import TroubledKafka
from taskbridge.client.source import Kafka
from taskbridge.client.subscription import subscribe
from taskbridge.client.testing import FakeKafka, notification
from taskbridge.schemas.codec import Undecodable, task_notification_codec
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.events import View, notification_key
from taskbridge.schemas.registry import schema_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Coroutine

    from taskbridge.client.source import Record
    from taskbridge.schemas.events import TaskNotification

GROUP = "g"
LATER = 4_000_000
"""The id of a schema that the client does not know."""


async def collect(subscription: AsyncIterable[TaskNotification], into: list[TaskNotification]) -> None:
    async for each in subscription:
        into.append(each)  # noqa: PERF401 - the list must be filled when this is cancelled too


async def until_done(kafka: FakeKafka, running: Coroutine[None, None, None]) -> None:
    """Run it until its group has processed everything, then cancel it."""
    task = asyncio.create_task(running)
    await kafka.done(GROUP)
    await cancelled(task)


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def collected(kafka: FakeKafka, subscription: AsyncIterable[TaskNotification]) -> list[TaskNotification]:
    """The notifications until its group has processed everything."""
    found: list[TaskNotification] = []
    await until_done(kafka, collect(subscription, found))
    return found


async def test_each_filter_accepts_one_or_several_values() -> None:
    kafka = FakeKafka()
    selected = notification()
    others = [
        notification(corp_id="ding2"),
        notification(recipient_id="u-2"),
        notification(view=View.HANDLED),
        notification(app_type="APP_2"),
        notification(source="flowable"),
    ]
    kafka.tell(selected, *others)
    one = subscribe(kafka, group=GROUP, corp="ding1", person="u-1", view="PENDING", app="APP_1", source="yida")
    assert await collected(kafka, one) == [selected]
    kafka = FakeKafka()
    kafka.tell(selected, *others)
    two = subscribe(
        kafka,
        group=GROUP,
        corp=["ding1", "ding2"],
        person={"u-1", "u-2"},
        view=[View.PENDING, View.HANDLED],
        app=("APP_1", "APP_2"),
        source=["yida", "flowable"],
    )
    assert len(await collected(kafka, two)) == 6


async def test_a_persons_notifications_come_in_order() -> None:
    kafka = FakeKafka()
    sent = [notification(recipient_id=f"u-{number % 5}") for number in range(50)]
    kafka.tell(*sent)
    found = await collected(kafka, subscribe(kafka, group=GROUP))
    for person in {each.recipient_id for each in sent}:
        assert [each for each in found if each.recipient_id == person] == [
            each for each in sent if each.recipient_id == person
        ]


async def test_after_a_break_only_unprocessed_notifications_come_again() -> None:
    kafka = FakeKafka()
    first, second, third = notification(), notification(), notification()
    kafka.tell(first, second, third)

    async def leave_at_the_second() -> None:
        async for each in subscribe(kafka, group=GROUP):
            if each == second:
                break

    await leave_at_the_second()
    assert await collected(kafka, subscribe(kafka, group=GROUP)) == [second, third]


async def test_a_notification_whose_body_raised_comes_again() -> None:
    kafka = FakeKafka()
    sent = [notification(), notification()]
    kafka.tell(*sent)
    subscription = subscribe(kafka, group=GROUP)

    async def fail() -> None:
        async for _ in subscription:
            raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            await fail()
    assert await collected(kafka, subscription) == sent


async def test_a_repeat_is_skipped_within_the_window_only() -> None:
    sent = [notification(), notification(), notification()]
    for window, comes in ((2, [*sent, sent[0]]), (3, sent), (0, [*sent, sent[0], sent[2]])):
        kafka = FakeKafka()
        kafka.tell(*sent, sent[0], sent[2])
        assert await collected(kafka, subscribe(kafka, group=GROUP, dedupe_window=window)) == comes


async def test_a_processed_notification_is_skipped_after_a_rebalance() -> None:
    kafka = FakeKafka()
    sent = [notification() for _ in range(3)]
    kafka.tell(*sent)
    found: list[TaskNotification] = []

    async def collect_with_a_rebalance() -> None:
        async for each in subscribe(kafka, group=GROUP):
            found.append(each)
            kafka.rewind(GROUP)

    await until_done(kafka, collect_with_a_rebalance())
    assert found == sent


async def test_with_explicit_acks_only_acks_count() -> None:
    kafka = FakeKafka()
    sent = [notification() for _ in range(6)]
    kafka.tell(*sent)

    async def ack_the_third_and_fail_at_the_fifth() -> None:
        subscription = subscribe(kafka, group=GROUP, explicit_ack=True)
        async for each in subscription:
            if each == sent[2]:
                subscription.ack()
            if each == sent[4]:
                raise KeyError

    with pytest.raises(KeyError):
        await ack_the_third_and_fail_at_the_fifth()
    assert await collected(kafka, subscribe(kafka, group=GROUP)) == sent[3:]


async def test_two_members_share_the_partitions_and_one_inherits_the_other() -> None:
    kafka = FakeKafka(partitions=4)
    sent = [notification(recipient_id=f"u-{number}") for number in range(40)]
    kafka.tell(*sent[:20])
    found: tuple[list[TaskNotification], list[TaskNotification]] = ([], [])

    async def both() -> None:
        tasks = [asyncio.create_task(collect(subscribe(kafka, group=GROUP), each)) for each in found]
        await kafka.done(GROUP)
        await cancelled(tasks[0])
        kafka.tell(*sent[20:])
        await kafka.done(GROUP)
        await cancelled(tasks[1])

    await both()
    assert sorted(each.recipient_id for all_ in found for each in all_) == sorted(each.recipient_id for each in sent)
    assert all(found)


async def test_an_undecodable_record_is_logged_and_skipped(caplog: pytest.LogCaptureFixture) -> None:
    kafka = FakeKafka(partitions=1)
    sent = [notification(), notification()]
    kafka.tell(sent[0])
    kafka.put(b"ding1/u-1", b"no record")
    kafka.put(b"ding1/u-1", None)
    kafka.tell(sent[1])
    with caplog.at_level(logging.ERROR, "taskbridge.client"):
        assert await collected(kafka, subscribe(kafka, group=GROUP)) == sent
    assert [each.getMessage().partition(" error=")[0] for each in caplog.records] == [
        "record_undecodable partition=0 offset=1",
        "record_undecodable partition=0 offset=2",
    ]


async def test_on_undecodable_may_end_the_loop_with_the_record_unprocessed() -> None:
    kafka = FakeKafka(partitions=1)
    kafka.tell(notification())
    kafka.put(b"ding1/u-1", b"no record")
    reported: list[Record] = []

    def refuse(record: Record) -> None:
        reported.append(record)
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            await collect(subscribe(kafka, group=GROUP, on_undecodable=refuse), [])
    assert [(each.partition, each.offset, each.message.value()) for each in reported] == 2 * [(0, 1, b"no record")]
    assert all(isinstance(each.content, Undecodable) for each in reported)


async def test_a_subscription_waits_for_the_registry_and_logs_it(caplog: pytest.LogCaptureFixture) -> None:
    kafka = FakeKafka(partitions=1)
    sent = [notification(), notification(), notification()]
    kafka.tell(sent[0])
    written = task_notification_codec(kafka.registry).encode(sent[1])
    kafka.put(notification_key("ding1", "u-1"), b"\x00" + LATER.to_bytes(4, "big") + written[5:])
    kafka.tell(sent[2])
    kafka.registry.away = True
    away = "registry_unreachable error=the fake registry is away"
    found: list[TaskNotification] = []

    async def come_back() -> None:
        running = asyncio.create_task(collect(subscribe(kafka, group=GROUP), found))
        async with asyncio.timeout(60):
            while not caplog.records:  # noqa: ASYNC110 - a log has no event
                await asyncio.sleep(0.01)
        assert found == sent[:1]
        kafka.registry.others[LATER] = schema_text("TaskNotification")
        kafka.registry.away = False
        await kafka.done(GROUP)
        await cancelled(running)

    await come_back()
    assert (found, [each.getMessage() for each in caplog.records]) == (sent, [away])


async def test_a_member_that_lost_its_coordinator_joins_again() -> None:
    """Seen when a broker was killed while a member joined: librdkafka stays in the group, and never reads again."""
    kafka = TroubledKafka()
    sent = [notification() for _ in range(3)]
    kafka.tell(*sent)
    found: list[TaskNotification] = []

    async def collect_and_stall() -> None:
        async for each in subscribe(kafka, group=GROUP):
            found.append(each)
            if each == sent[1]:
                kafka.stall()

    await until_done(kafka, collect_and_stall())
    assert found == sent


async def test_cancelling_leaves_the_group() -> None:
    kafka = TroubledKafka()
    found: list[TaskNotification] = []
    sent = [notification()]
    kafka.tell(*sent)
    await until_done(kafka, collect(subscribe(kafka, group=GROUP), found))
    assert (found, kafka.consumers) == (sent, [])


async def test_properties_that_librdkafka_rejects_are_named() -> None:
    kafka = Kafka("127.0.0.1:1", "http://127.0.0.1:1", {"sasl.no-such-property": "x"})
    with pytest.raises(ConfigurationError, match=r"sasl\.no-such-property"):
        await collect(subscribe(kafka, group=GROUP), [])


def test_properties_that_the_guarantees_need_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[dict[str, object]] = []

    class Recorded:
        def __init__(self, config: dict[str, object], **_: object) -> None:
            configs.append(config)

        def subscribe(self, topics: list[str]) -> None:
            assert topics == ["taskbridge.task-notifications.v1"]

    monkeypatch.setattr("confluent_kafka.Consumer", Recorded)
    properties = {"isolation.level": "read_uncommitted", "enable.auto.offset.store": True, "sasl.username": "me"}
    Kafka("kafka:9092", "http://registry", properties).member(GROUP)
    (config,) = configs
    assert config["isolation.level"] == "read_committed"
    assert config["enable.auto.offset.store"] is False
    assert config["sasl.username"] == "me"
