"""A store restored from real Kafka equals its changelog, which has tombstones and aborted transactions."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from support.streams.faust_app import faust_app
from taskbridge.runtime.kafka import consumer_config, producer_config
from taskbridge.streams.table_versions import reader_config
from taskbridge.streams.tables.changelog_reader import ChangelogReader
from taskbridge.streams.tables.recovery import TableRecovery
from taskbridge.streams.tables.store import instances_table
from taskbridge.streams.transactions.offsets import Offsets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from pathlib import Path

    from taskbridge.cli.connection import Connection
    from taskbridge.streams.tables.store import Store

pytestmark = pytest.mark.integration

PARTITIONS = (0, 1, 2)

State = dict[tuple[int, bytes], bytes]


@pytest.fixture
def topic(connection: Connection) -> Generator[str]:
    name = f"changelog-{uuid.uuid4()}"
    create(connection, name)
    yield name
    admin = connection.admin()
    admin.delete_topics([name])[name].result()


def create(connection: Connection, name: str) -> None:
    new = NewTopic(name, len(PARTITIONS), config={"cleanup.policy": "compact"})
    admin = connection.admin()
    admin.create_topics([new])[name].result()
    offsets = Offsets(consumer_config(connection.bootstrap_servers, "tests"))
    for _ in range(1200):
        with contextlib.suppress(KafkaException):
            offsets.ends(name, PARTITIONS)
            break
        time.sleep(0.05)


def write(connection: Connection, topic: str, state: State, *, seed: int, count: int = 3000) -> None:
    """Values and tombstones in transactions; the last one is aborted, so that no record is at the end."""
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = Producer({**config, "transactional.id": str(uuid.uuid4())})
    producer.init_transactions(30)
    chance = random.Random(seed)
    for aborted in (False, False, True):
        producer.begin_transaction()
        for _ in range(count // 3):
            partition, key = chance.choice(PARTITIONS), f"key-{chance.randrange(300)}".encode()
            value = None if chance.random() < 0.2 else chance.randbytes(200)
            producer.produce(topic, key=key, value=value, partition=partition)
            if aborted:
                continue
            if value is None:
                state.pop((partition, key), None)
            else:
                state[partition, key] = value
        if aborted:
            producer.flush(30)
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)


def with_recovery(
    connection: Connection,
    topic: str,
    folder: Path,
    check: Callable[[TableRecovery], Awaitable[None]],
) -> None:
    """Runs a check with the store in the folder, and closes it properly."""

    def fail(error: BaseException) -> None:
        raise AssertionError from error

    async def main() -> None:
        app = faust_app(folder, partitions=3)
        store, _ = instances_table(app, partitions=3)
        config = reader_config(consumer_config(connection.bootstrap_servers, "tests"), buffer_bytes=1 << 20)
        reader = ChangelogReader(config, topic, store, batch_bytes=1 << 14, on_failure=fail)
        recovery = TableRecovery(store, topic, reader, Offsets(config))
        try:
            await check(recovery)
        finally:
            recovery.reader.close()
            store.close()

    asyncio.run(main())


async def restored(recovery: TableRecovery) -> State:
    await asyncio.wait_for(await recovery.restore(PARTITIONS), 60)
    assert recovery.reader.followed == {}
    return held(recovery.store)


def held(store: Store) -> State:
    return {(partition, key): value for partition in PARTITIONS for key, value in held_by(store, partition).items()}


def held_by(store: Store, partition: int) -> dict[bytes, bytes]:
    return dict(store.scan(partition, b"", limit=1 << 30))


def test_an_empty_store_and_a_half_one_become_equal_to_the_changelog(
    connection: Connection, topic: str, tmp_path: Path
) -> None:
    state: State = {}
    write(connection, topic, state, seed=1)

    async def from_nothing(recovery: TableRecovery) -> None:
        assert await restored(recovery) == state
        assert recovery.reader.applied > 1000

    async def from_there(recovery: TableRecovery) -> None:
        assert await restored(recovery) == state
        assert recovery.reader.applied < 2500, "it read on from its position"

    async def again(recovery: TableRecovery) -> None:
        assert await restored(recovery) == state
        assert recovery.reader.applied == 0, "the markers at the end are not waited for twice"

    with_recovery(connection, topic, tmp_path, from_nothing)
    write(connection, topic, state, seed=2)
    with_recovery(connection, topic, tmp_path, from_there)
    with_recovery(connection, topic, tmp_path, again)


def test_a_standby_follows_and_can_be_made_active_without_reading_again(
    connection: Connection, topic: str, tmp_path: Path
) -> None:
    state: State = {}

    async def check(recovery: TableRecovery) -> None:
        await recovery.stand_by(PARTITIONS)
        await asyncio.to_thread(write, connection, topic, state, seed=3)
        for _ in range(1200):
            # The last records may change nothing.
            if held(recovery.store) == state and not any(each.remaining for each in recovery.reader.followed.values()):
                break
            await asyncio.sleep(0.1)
        applied = recovery.reader.applied
        await recovery.close_all_but(actives=PARTITIONS, standbys=())
        assert await restored(recovery) == state
        # End-of-partition events count too, one a partition.
        assert recovery.reader.applied - applied <= len(PARTITIONS)

    with_recovery(connection, topic, tmp_path, check)


def test_a_recreated_changelog_empties_the_store(connection: Connection, topic: str, tmp_path: Path) -> None:
    before: State = {}
    write(connection, topic, before, seed=4)

    async def first(recovery: TableRecovery) -> None:
        assert await restored(recovery) == before

    with_recovery(connection, topic, tmp_path, first)
    admin: AdminClient = connection.admin()
    admin.delete_topics([topic])[topic].result()
    while topic in admin.list_topics(timeout=60).topics:
        pass
    create(connection, topic)
    state: State = {}
    # More than before: its offsets alone do not distinguish it from the old one.
    write(connection, topic, state, seed=5, count=6000)

    async def second(recovery: TableRecovery) -> None:
        assert await restored(recovery) == state

    with_recovery(connection, topic, tmp_path, second)


def test_a_restoration_that_is_broken_off_continues_where_it_was(
    connection: Connection, topic: str, tmp_path: Path
) -> None:
    state: State = {}
    write(connection, topic, state, seed=6, count=6000)

    async def broken_off(recovery: TableRecovery) -> None:
        restoring = await recovery.restore(PARTITIONS)
        while recovery.reader.applied == 0:  # noqa: ASYNC110 - as early as can be
            await asyncio.sleep(0.001)
        await recovery.close_all_but(actives=(), standbys=())
        assert recovery.store.held == frozenset()
        restoring.cancel()

    async def resumed(recovery: TableRecovery) -> None:
        assert await restored(recovery) == state

    with_recovery(connection, topic, tmp_path, broken_off)
    with_recovery(connection, topic, tmp_path, resumed)
