"""What ``subscribe`` promises: at least once, once within the window, in order, and nothing stops it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from taskbridge.client.source import Kafka
from taskbridge.client.subscription import subscribe
from taskbridge.client.testing import FakeKafka, notification
from taskbridge.schemas.codec import Undecodable, task_notification_codec
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.events import View, notification_key
from taskbridge.schemas.registry import schema_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Coroutine

    from taskbridge.client.reading import Record
    from taskbridge.schemas.events import TaskNotification

GROUP = "g"
LATER = 4_000_000
"""The id of a schema that no client has seen."""


async def take(subscription: AsyncIterable[TaskNotification], into: list[TaskNotification]) -> None:
    async for each in subscription:
        into.append(each)  # noqa: PERF401 - what was taken counts when this is cancelled too


async def until_done(kafka: FakeKafka, running: Coroutine[None, None, None]) -> None:
    """Run it until its group has done everything, then cancel it."""
    task = asyncio.create_task(running)
    await kafka.done(GROUP)
    await cancelled(task)


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def taken(kafka: FakeKafka, subscription: AsyncIterable[TaskNotification]) -> list[TaskNotification]:
    """What it gives until its group has done everything."""
    found: list[TaskNotification] = []
    asyncio.run(until_done(kafka, take(subscription, found)))
    return found


def test_each_filter_takes_one_or_several() -> None:
    kafka = FakeKafka()
    wanted = notification()
    others = [
        notification(corp_id="ding2"),
        notification(recipient_id="u-2"),
        notification(view=View.HANDLED),
        notification(app_type="APP_2"),
        notification(source="flowable"),
    ]
    kafka.tell(wanted, *others)
    one = subscribe(kafka, group=GROUP, corp="ding1", person="u-1", view="PENDING", app="APP_1", source="yida")
    assert taken(kafka, one) == [wanted]
    kafka = FakeKafka()
    kafka.tell(wanted, *others)
    two = subscribe(
        kafka,
        group=GROUP,
        corp=["ding1", "ding2"],
        person={"u-1", "u-2"},
        view=[View.PENDING, View.HANDLED],
        app=("APP_1", "APP_2"),
        source=["yida", "flowable"],
    )
    assert len(taken(kafka, two)) == 6


def test_a_persons_notifications_come_in_their_order() -> None:
    kafka = FakeKafka()
    told = [notification(recipient_id=f"u-{number % 5}") for number in range(50)]
    kafka.tell(*told)
    found = taken(kafka, subscribe(kafka, group=GROUP))
    for person in {each.recipient_id for each in told}:
        assert [each for each in found if each.recipient_id == person] == [
            each for each in told if each.recipient_id == person
        ]


def test_what_is_done_does_not_come_again_and_what_was_left_by_a_break_does() -> None:
    kafka = FakeKafka()
    first, second, third = notification(), notification(), notification()
    kafka.tell(first, second, third)

    async def leave_at_the_second() -> None:
        async for each in subscribe(kafka, group=GROUP):
            if each == second:
                break

    asyncio.run(leave_at_the_second())
    assert taken(kafka, subscribe(kafka, group=GROUP)) == [second, third]


def test_what_raised_in_the_body_comes_again_to_the_same_subscription() -> None:
    kafka = FakeKafka()
    told = [notification(), notification()]
    kafka.tell(*told)
    subscription = subscribe(kafka, group=GROUP)

    async def fail() -> None:
        async for _ in subscription:
            raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            asyncio.run(fail())
    assert taken(kafka, subscription) == told


def test_a_repeat_is_passed_over_within_the_window_only() -> None:
    told = [notification(), notification(), notification()]
    for window, comes in ((2, [*told, told[0]]), (3, told), (0, [*told, told[0], told[2]])):
        kafka = FakeKafka()
        kafka.tell(*told, told[0], told[2])
        assert taken(kafka, subscribe(kafka, group=GROUP, dedupe_window=window)) == comes


def test_what_is_given_anew_after_a_rebalance_is_passed_over_if_it_is_done() -> None:
    kafka = FakeKafka()
    told = [notification() for _ in range(3)]
    kafka.tell(*told)
    found: list[TaskNotification] = []

    async def take_with_a_rebalance() -> None:
        async for each in subscribe(kafka, group=GROUP):
            found.append(each)
            kafka.rewind(GROUP)

    asyncio.run(until_done(kafka, take_with_a_rebalance()))
    assert found == told


def test_with_explicit_acks_only_they_count() -> None:
    kafka = FakeKafka()
    told = [notification() for _ in range(6)]
    kafka.tell(*told)

    async def ack_the_third_and_fail_at_the_fifth() -> None:
        subscription = subscribe(kafka, group=GROUP, explicit_ack=True)
        async for each in subscription:
            if each == told[2]:
                subscription.ack()
            if each == told[4]:
                raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(ack_the_third_and_fail_at_the_fifth())
    assert taken(kafka, subscribe(kafka, group=GROUP)) == told[3:]


def test_with_explicit_acks_what_is_passed_over_does_not_ack_what_was_given() -> None:
    kafka = FakeKafka()
    kafka.tell(notification(), notification(app_type="APP_2"))

    async def look_for_the_second() -> None:
        subscription = subscribe(kafka, group=GROUP, app="APP_1", explicit_ack=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await take(subscription, [])
        assert kafka.left(GROUP) == 2

    asyncio.run(look_for_the_second())


def test_two_members_share_what_comes_and_one_that_leaves_hands_over() -> None:
    kafka = FakeKafka(partitions=4)
    told = [notification(recipient_id=f"u-{number}") for number in range(40)]
    kafka.tell(*told[:20])
    found: tuple[list[TaskNotification], list[TaskNotification]] = ([], [])

    async def both() -> None:
        tasks = [asyncio.create_task(take(subscribe(kafka, group=GROUP), each)) for each in found]
        await kafka.done(GROUP)
        await cancelled(tasks[0])
        kafka.tell(*told[20:])
        await kafka.done(GROUP)
        await cancelled(tasks[1])

    asyncio.run(both())
    assert sorted(each.recipient_id for all_ in found for each in all_) == sorted(each.recipient_id for each in told)
    assert all(found)


def test_a_record_that_cannot_be_decoded_is_logged_and_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    kafka = FakeKafka(partitions=1)
    told = [notification(), notification()]
    kafka.tell(told[0])
    kafka.put(b"ding1/u-1", b"no record")
    kafka.put(b"ding1/u-1", None)
    kafka.tell(told[1])
    with caplog.at_level(logging.ERROR, "taskbridge.client"):
        assert taken(kafka, subscribe(kafka, group=GROUP)) == told
    assert [each.getMessage().partition(" error=")[0] for each in caplog.records] == [
        "record_undecodable partition=0 offset=1",
        "record_undecodable partition=0 offset=2",
    ]


def test_what_is_told_of_a_record_that_cannot_be_decoded_may_end_the_loop_with_the_record_not_done() -> None:
    kafka = FakeKafka(partitions=1)
    kafka.tell(notification())
    kafka.put(b"ding1/u-1", b"no record")
    asked: list[Record] = []

    def refuse(record: Record) -> None:
        asked.append(record)
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            asyncio.run(take(subscribe(kafka, group=GROUP, on_undecodable=refuse), []))
    assert [(each.partition, each.offset, each.message.value()) for each in asked] == 2 * [(0, 1, b"no record")]
    assert all(isinstance(each.content, Undecodable) for each in asked)


def test_a_registry_that_is_away_is_waited_for_and_told(caplog: pytest.LogCaptureFixture) -> None:
    kafka = FakeKafka(partitions=1)
    told = [notification(), notification(), notification()]
    kafka.tell(told[0])
    written = task_notification_codec(kafka.registry).encode(told[1])
    kafka.put(notification_key("ding1", "u-1"), b"\x00" + LATER.to_bytes(4, "big") + written[5:])
    kafka.tell(told[2])
    kafka.registry.away = True
    away = "registry_unreachable error=the fake registry is away"
    found: list[TaskNotification] = []

    async def come_back() -> None:
        running = asyncio.create_task(take(subscribe(kafka, group=GROUP), found))
        async with asyncio.timeout(60):
            while not caplog.records:  # noqa: ASYNC110 - a log has no event
                await asyncio.sleep(0.01)
        assert found == told[:1]
        kafka.registry.others[LATER] = schema_text("TaskNotification")
        kafka.registry.away = False
        await kafka.done(GROUP)
        await cancelled(running)

    asyncio.run(come_back())
    assert (found, [each.getMessage() for each in caplog.records]) == (told, [away])


def test_a_member_that_lost_its_coordinator_joins_anew() -> None:
    """Seen with a broker killed while a member joined: librdkafka stays in the group, and reads nothing for ever."""
    kafka = FakeKafka()
    told = [notification() for _ in range(3)]
    kafka.tell(*told)
    found: list[TaskNotification] = []

    async def take_and_stall() -> None:
        async for each in subscribe(kafka, group=GROUP):
            found.append(each)
            if each == told[1]:
                kafka.stall(GROUP)

    asyncio.run(until_done(kafka, take_and_stall()))
    assert found == told


def test_cancelling_leaves_the_group() -> None:
    kafka = FakeKafka()
    found: list[TaskNotification] = []
    told = [notification()]
    kafka.tell(*told)
    asyncio.run(until_done(kafka, take(subscribe(kafka, group=GROUP), found)))
    assert (found, kafka.members(GROUP)) == (told, 0)


def test_properties_that_librdkafka_does_not_take_are_named() -> None:
    kafka = Kafka("127.0.0.1:1", "http://127.0.0.1:1", {"sasl.pasword": "x"})
    with pytest.raises(ConfigurationError, match=r"sasl\.pasword"):
        asyncio.run(take(subscribe(kafka, group=GROUP), []))


def test_what_the_guarantees_rest_on_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[dict[str, object]] = []

    class Recorded:
        def __init__(self, config: dict[str, object], **_: object) -> None:
            configs.append(config)

        def subscribe(self, topics: list[str]) -> None:
            assert topics == ["taskbridge.task-notifications.v1"]

    monkeypatch.setattr("confluent_kafka.Consumer", Recorded)
    wished = {"isolation.level": "read_uncommitted", "enable.auto.offset.store": True, "sasl.username": "me"}
    Kafka("kafka:9092", "http://registry", wished).member(GROUP)
    (config,) = configs
    assert config["isolation.level"] == "read_committed"
    assert config["enable.auto.offset.store"] is False
    assert config["sasl.username"] == "me"


def test_a_password_is_in_no_text_of_the_source() -> None:
    assert "secret" not in repr(Kafka("kafka:9092", "http://registry", {"sasl.password": "secret"}))
