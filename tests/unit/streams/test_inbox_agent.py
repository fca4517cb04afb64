"""Who listens is told while the lists are on the way to Kafka, and a list that is asked for then has what was told."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import httpx2
import pytest

from support.streams.api_context import AnsweringWorker, notification
from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.events import notification_key
from taskbridge.streams.api.access import Access
from taskbridge.streams.inbox import told_ahead
from taskbridge.streams.inbox.agent import InboxAgent
from taskbridge.streams.inbox.layout import APPLIED_KEY, Applied, write_applied
from taskbridge.streams.sse.hub import Hub
from taskbridge.streams.transactions.group_commit import Overtaken

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from taskbridge.streams.records import Chunk
    from taskbridge.streams.sse.subscription import Subscription

CORP, ANN, BOB = "corp", "ann", "bob"
GENERATION = 7


class Commit:
    """A group commit whose transactions end when the test says so."""

    def __init__(self) -> None:
        self.under_way: list[asyncio.Future[list[int]]] = []
        self.begun = asyncio.Event()

    def submit(self, *_args: Any, **_more: Any) -> asyncio.Future[list[int]]:
        self.under_way.append(asyncio.get_running_loop().create_future())
        self.begun.set()
        return self.under_way[-1]


class Consumer:
    working = nullcontext

    def is_current(self, _message: object) -> bool:
        return True

    def done(self, _message: object) -> None:
        """Nobody asks."""


class Worker(AnsweringWorker):
    """A worker that keeps inboxes, answers from them and has event streams."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Access(tokens=None))
        self.commit = Commit()
        self.consumer = Consumer()
        self.app = SimpleNamespace(consumer=self.consumer, consumer_generation_id=GENERATION, crash=None)
        self.codec = task_notification_codec(self.registry)
        self.agent = InboxAgent(
            cast("Any", self.app),
            store=self.inbox,
            changelog="inbox",
            group_commit=cast("Any", self.commit),
            topic_id="first",
            notifications=self.codec,
            metrics=self.metrics,
        )
        self.agent.told_ahead = self.told_ahead
        self.hub = Hub(next_offset=self.agent.next_offset, most=10, most_of_person=10)
        self.agent.listen(self.hub.told, self.hub.comes_again)
        self.partition = self.owners.of_user(CORP, ANN).partition

    def listen(self, user_id: str = ANN) -> Subscription:
        return self.hub.subscribe(CORP, user_id, self.partition, now=0)

    async def take(self, *offsets: int, generation: int = GENERATION) -> asyncio.Task[None]:
        """A chunk of notifications to Ann, each of a task of its own; returns when it waits for its transaction."""
        key = notification_key(CORP, ANN)
        records = [
            SimpleNamespace(
                partition=self.partition,
                offset=each,
                key=key,
                value=self.codec.encode(notification(user=ANN, task_id=f"T-{each}")),
                headers=[],
            )
            for each in offsets
        ]
        message = SimpleNamespace(
            partition=self.partition, generation_id=generation, tp=None, offset=offsets[-1], more_follow=False
        )
        self.commit.begun.clear()
        taking = self.agent._take(cast("Any", message), cast("Chunk", records))  # pyright: ignore[reportPrivateUsage]
        task = asyncio.create_task(taking)
        await self.commit.begun.wait()
        return task


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Worker, httpx2.AsyncClient], Any]], None]:
    @contextmanager
    def worker() -> Generator[Worker]:
        made = Worker(tmp_path)
        try:
            yield made
        finally:
            made.close()

    def run(test: Callable[[Worker, httpx2.AsyncClient], Any]) -> None:
        async def within() -> None:
            with worker() as made:
                transport = httpx2.ASGITransport(made.http())
                async with httpx2.AsyncClient(transport=transport, base_url="http://worker") as client:
                    await test(made, client)

        asyncio.run(within())

    return run


def ids(subscription: Subscription) -> list[str]:
    _, body = subscription.take()
    return [line.partition("-")[2] for line in body.decode().split("\n") if line.startswith("id: ")]


async def pending(client: httpx2.AsyncClient, user_id: str = ANN) -> list[str]:
    answer = await client.get(f"/v1/corps/{CORP}/users/{user_id}/tasks?view=pending")
    assert answer.status_code == 200, answer.text
    return sorted(each["task_id"] for each in answer.json()["items"])


async def counts(client: httpx2.AsyncClient, user_id: str = ANN) -> int:
    return (await client.get(f"/v1/corps/{CORP}/users/{user_id}/counts")).json()["pending"]


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def test_who_listens_is_told_before_the_transaction_ends_and_then_finds_it_in_the_list(run: Any) -> None:
    async def test(worker: Worker, client: httpx2.AsyncClient) -> None:
        ann = worker.listen()
        task = await worker.take(0, 1)
        assert ids(ann) == ["1", "2"]

        asked = [asyncio.create_task(each) for each in (pending(client), counts(client))]
        await turns()
        assert not any(each.done() for each in asked)
        worker.commit.under_way[-1].set_result([5])
        assert await asyncio.gather(*asked) == [["T-0", "T-1"], 2]
        await task

    run(test)


def test_the_position_in_a_deleted_topic_does_not_apply_to_the_recreated_one(run: Any) -> None:
    async def test(worker: Worker, _client: httpx2.AsyncClient) -> None:
        applied = write_applied(Applied("another", 7))
        worker.inbox.write_chunk(worker.partition, {APPLIED_KEY: applied}, changelog_offset=0)
        assert (worker.agent.next_offset(worker.partition), worker.listen().begins) == (0, 0)

    run(test)


def test_nobody_waits_for_what_others_were_told(run: Any) -> None:
    async def test(worker: Worker, client: httpx2.AsyncClient) -> None:
        task = await worker.take(0)
        assert await pending(client, BOB) == []
        worker.commit.under_way[-1].set_result([5])
        await task
        assert await pending(client) == ["T-0"]

    run(test)


def test_a_stream_that_begins_meanwhile_begins_behind_what_was_told(run: Any) -> None:
    async def test(worker: Worker, _client: httpx2.AsyncClient) -> None:
        task = await worker.take(0, 1)
        late = worker.listen()
        assert late.begins == 2
        worker.commit.under_way[-1].set_result([5])
        await task
        assert (worker.agent.next_offset(worker.partition), ids(late)) == (2, [])
        task = await worker.take(2)
        assert ids(late) == ["3"]
        worker.commit.under_way[-1].set_result([6])
        await task

    run(test)


@pytest.mark.parametrize("how", ["the commit is refused", "the group has moved on"])
def test_where_a_rebalance_comes_between_a_list_is_asked_for_later_and_all_is_told_again(run: Any, how: str) -> None:
    async def test(worker: Worker, client: httpx2.AsyncClient) -> None:
        ann = worker.listen()
        task = await worker.take(0, 1)
        assert ids(ann) == ["1", "2"]
        asked = asyncio.create_task(client.get(f"/v1/corps/{CORP}/users/{ANN}/counts"))
        await turns()
        if how == "the commit is refused":
            worker.commit.under_way[-1].set_exception(Overtaken("a rebalance"))
        else:
            worker.app.consumer_generation_id = GENERATION + 1
            worker.commit.under_way[-1].set_result([5])
        await task
        assert (await asked).status_code == 503
        assert worker.agent.next_offset(worker.partition) == 0

        worker.app.consumer_generation_id = GENERATION + 1
        task = await worker.take(0, 1, generation=GENERATION + 1)
        assert ids(ann) == ["1", "2"]
        worker.commit.under_way[-1].set_result([5])
        await task
        assert await pending(client) == ["T-0", "T-1"]

    run(test)


def test_a_list_is_answered_as_it_stands_where_kafka_takes_nothing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told_ahead, "_AT_MOST_S", 0)

    async def test(worker: Worker, client: httpx2.AsyncClient) -> None:
        task = await worker.take(0)
        assert await pending(client) == []
        worker.commit.under_way[-1].set_result([5])
        await task
        assert await pending(client) == ["T-0"]

    run(test)
