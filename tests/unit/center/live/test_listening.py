"""Changes that another replica has committed reach the streams here, also when commits cross or connections break."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from sqlalchemy import text

from support.live import CORP, StreamClient, add_changes, set_epoch
from taskbridge.center.live import changes
from taskbridge.center.live.hub import Hub
from taskbridge.center.tables import CHANGES_CHANNEL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from sqlalchemy import Connection

    from support.center import Databases
    from taskbridge.runtime.database import Database


def write(connection: Connection, database: Database, *user_ids: str) -> None:
    """As the follower does, in its transaction."""
    for each in user_ids:
        add_changes(connection, database, each)
    notify(connection, *user_ids)


def notify(connection: Connection, *user_ids: str) -> None:
    payload = msgspec.json.encode([(CORP, each) for each in user_ids]).decode()
    connection.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANGES_CHANNEL, "payload": payload})


@asynccontextmanager
async def replica_of(database: Database) -> AsyncGenerator[Hub]:
    hub = Hub(database, most=10, most_of_person=10, heartbeat_s=3600)
    running = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        running.cancel()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(cast("Any", test()))


@pytest.fixture
def replicas(databases: Databases) -> tuple[Database, Database]:
    """One database, as two replicas have it open."""
    url = databases.new_url("postgresql")
    first, second = databases.open(url), databases.open(url)
    set_epoch(first)
    return first, second


def test_a_commit_of_one_replica_reaches_the_streams_of_both(replicas: tuple[Database, Database]) -> None:
    async def test() -> None:
        async with replica_of(replicas[0]) as first, replica_of(replicas[1]) as second:
            streams = [await StreamClient().open(each) for each in (first, second)]
            with replicas[0].write() as connection:
                write(connection, replicas[0], "ann", "bob")
            for each in streams:
                await each.until_numbers(1)

    run(test)


def test_commits_that_cross_lose_nothing(replicas: tuple[Database, Database]) -> None:
    """The second writer waits for the number of the first one, so it cannot become visible before it."""

    async def test() -> None:
        async with replica_of(replicas[1]) as hub:
            ann, bob = await StreamClient().open(hub), await StreamClient().open(hub, "bob")
            begun = threading.Event()

            def second() -> None:
                with replicas[1].write() as connection:
                    write(connection, replicas[1], "bob")
                    begun.set()
                    write(connection, replicas[1], "ann")

            crossing = threading.Thread(target=second)
            with replicas[0].write() as connection:
                write(connection, replicas[0], "ann")
                crossing.start()
                assert await asyncio.to_thread(begun.wait, 60)
                # A reader that is awake now must not go on from the number that is committed later.
                with replicas[1].write() as other:
                    notify(other, "ann", "bob")
            await asyncio.to_thread(crossing.join)
            await ann.until_numbers(1, 2)
            await bob.until_numbers(1)

    run(test)


def test_commits_while_the_connection_is_lost_reach_the_streams_afterwards(
    replicas: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_RETRY_S", 0.01)

    async def test() -> None:
        async with replica_of(replicas[1]) as hub:
            ann = await StreamClient().open(hub)
            with replicas[0].write() as connection:
                write(connection, replicas[0], "ann")
            await ann.until_numbers(1)

            with replicas[0].write() as connection:
                # Nobody is notified of this one.
                add_changes(connection, replicas[0], "ann")
                listeners = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
                assert connection.execute(text(listeners + " AND datname = current_database()")).all() == [(True,)]
            await ann.until_numbers(1, 2)

            with replicas[0].write() as connection:
                write(connection, replicas[0], "ann")
            await ann.until_numbers(1, 2, 3)

    run(test)
