"""An inbox contains all earlier notifications on entering, and then follows the topic."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from support.client import TroubledKafka
from taskbridge.client.inbox import Inbox
from taskbridge.client.source import KafkaRefused
from taskbridge.client.testing import FakeKafka, notification
from taskbridge.schemas.events import Change, View

if TYPE_CHECKING:
    from collections.abc import Callable


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - an inbox has no event for a change
        await asyncio.sleep(0.01)


def test_on_entering_all_entries_are_there_and_later_changes_follow() -> None:
    kafka = FakeKafka()
    people = [f"u-{number}" for number in range(10)]
    kafka.tell(*(notification(recipient_id=each) for each in people))

    async def follow() -> None:
        async with Inbox(kafka) as inbox:
            assert sorted(inbox.people()) == [("ding1", each) for each in people]
            kafka.tell(
                notification(change=Change.REMOVED), notification(view=View.HANDLED), notification(recipient_id="u-2")
            )
            await until(lambda: len(inbox.entries("ding1", "u-1", View.HANDLED)) == 1)
            assert inbox.counts("ding1", "u-1") == {
                View.CREATED: 0,
                View.PENDING: 0,
                View.HANDLED: 1,
                View.COPIED: 0,
            }
            assert inbox.counts("ding1", "u-2")[View.PENDING] == 1, "a repeat"

    asyncio.run(follow())


async def test_entries_are_in_the_order_of_the_task_center() -> None:
    kafka = FakeKafka()
    kafka.tell(
        notification(instance_id="b", occurred_at=5),
        notification(instance_id="a", task_id="t-2", occurred_at=5),
        notification(instance_id="a", task_id="t-1", occurred_at=5),
        notification(instance_id="c", occurred_at=9),
    )
    async with Inbox(kafka) as inbox:
        found = [(each.instance_id, each.task_id) for each in inbox.entries("ding1", "u-1", View.PENDING)]
        assert found == [("c", "t-1"), ("a", "t-1"), ("a", "t-2"), ("b", "t-1")]


async def test_records_that_cannot_be_shown_are_skipped() -> None:
    kafka = FakeKafka(partitions=1)
    kafka.put(b"ding1/u-1", b"no record")
    kafka.tell(notification(view=View.UNKNOWN), notification(), notification(change=Change.UNKNOWN, title="Later"))
    async with Inbox(kafka) as inbox:
        (entry,) = inbox.entries("ding1", "u-1", View.PENDING)
        assert entry.title == "Leave"
        assert sum(inbox.counts("ding1", "u-1").values()) == 1


async def test_a_query_raises_the_error_that_ended_the_updates() -> None:
    kafka = TroubledKafka()
    async with Inbox(kafka) as inbox:
        kafka.refuse()
        with pytest.raises(
            KafkaRefused, match=r"authorization.* lacks Read on topic taskbridge\.task-notifications\.v1"
        ):
            await until(lambda: bool(inbox.entries("ding1", "u-1", View.PENDING)))
