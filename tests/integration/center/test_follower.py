"""Followers on a real Kafka: they fill a database, follow, restart, share partitions and read again."""

from __future__ import annotations

import socket
import time
import uuid
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from sqlalchemy import delete, insert, select, update
from structlog.testing import capture_logs

from support.center import PostgresServer
from support.center_records import lines_in, lines_of, states_of
from support.streams.lives import lives
from taskbridge.center.follow.lists import States
from taskbridge.center.migrations import FOLDER
from taskbridge.center.tables import entries, instances
from taskbridge.runtime.follow import follower as module
from taskbridge.runtime.follow.follower import Follower
from taskbridge.runtime.follow.positions import progress
from taskbridge.runtime.follow.tables import positions
from taskbridge.runtime.kafka import producer_config
from taskbridge.runtime.migrations import migrate
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.events import Lifecycle, TaskState
from taskbridge.schemas.topics import TASK_STATES, Topic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable

    from support.center import Databases
    from taskbridge.cli.connection import Connection
    from taskbridge.runtime.database import Database

pytestmark = pytest.mark.integration

PARTITIONS = 4


class StatesTopic:
    """A topic of states of the test's own, and followers of it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.topic = Topic(f"states-{uuid.uuid4()}", None, TASK_STATES.settings)
        self.group = uuid.uuid4().hex
        self.published: list[TaskState] = []
        self.changed: Counter[tuple[str, str]] = Counter()
        self.make()

    def make(self) -> None:
        apply_topics(self.connection.admin(), [self.topic], partitions=PARTITIONS)
        config: dict[str, Any] = producer_config(self.connection.bootstrap_servers)
        # In transactions, as the streams service: partitions end with markers, which are no records.
        self._producer = Producer({**config, "transactional.id": uuid.uuid4().hex})
        self._producer.init_transactions(30)

    def publish(self, states: Iterable[TaskState]) -> None:
        codec = task_state_codec(self.connection.registry)
        self._producer.begin_transaction()
        for each in states:
            value = None if each.lifecycle is Lifecycle.DELETED else codec.encode(each)
            self._producer.produce(self.topic.name, key=each.instance_id.encode(), value=value)
            self.published.append(each)
        self._producer.commit_transaction(30)

    def delete(self) -> None:
        admin = self.connection.admin()
        admin.delete_topics([self.topic.name])[self.topic.name].result(30)
        self.published.clear()

    def follower(self, database: Database, **kafka: str) -> Follower:
        states = States(database, self.connection.registry)
        states.topic = self.topic  # pyright: ignore[reportAttributeAccessIssue] - of the test's own name
        return Follower(
            database,
            self.group,
            [states],
            service="center",
            servers=self.connection.bootstrap_servers,
            kafka=kafka,
            on_change=self._on_change,
        )

    @contextmanager
    def followed(self, *databases: Database) -> Generator[list[Follower]]:
        followers = [self.follower(each) for each in databases]
        for each in followers:
            each.start()
        try:
            yield followers
        finally:
            for each in followers:
                each.stop()

    def is_written(self, database: Database) -> bool:
        with database.read() as connection:
            if not progress(connection, self.topic.name).complete:
                return False
        return lines_in(database) == lines_of(self.published)

    def _on_change(self, people: Collection[tuple[str, str]]) -> None:
        self.changed.update(people)


@pytest.fixture
def topic(connection: Connection) -> StatesTopic:
    return StatesTopic(connection)


def test_a_database_is_filled_and_follows(
    topic: StatesTopic, database: Database, eventually: Callable[..., Any]
) -> None:
    states = states_of(lives(40, seed=1))
    topic.publish(states[:200])
    with topic.followed(database) as [follower]:
        eventually(lambda: topic.is_written(database), what="the database is filled")
        assert not topic.changed
        topic.publish(states[200:])
        eventually(lambda: topic.is_written(database), what="new states are written")
        assert topic.changed
        eventually(
            lambda: follower.health().lag == 0 and all(each.complete for each in follower.health().partitions),
            what="nothing is left",
        )
        eventually(lambda: sum(follower.health().records.values()) >= len(states), what="they are counted")
        assert follower.health().problem is None
        assert follower.health().records == {topic.topic.name: len(states)}


def test_a_restarted_follower_goes_on_where_it_was(
    topic: StatesTopic, database: Database, eventually: Callable[..., Any]
) -> None:
    states = states_of(lives(20, seed=2))
    topic.publish(states[:100])
    with topic.followed(database):
        eventually(lambda: topic.is_written(database), what="the database is filled")
    topic.publish(states[100:])
    with topic.followed(database) as [follower]:
        eventually(lambda: topic.is_written(database), what="new states are written")
        # Counted after the commit.
        eventually(lambda: sum(follower.health().records.values()) >= len(states) - 100, what="they are counted")
        assert follower.health().records == {topic.topic.name: len(states) - 100}


def test_two_replicas_share_the_partitions(
    topic: StatesTopic, databases: Databases, eventually: Callable[..., Any]
) -> None:
    url = databases.new_url("postgresql")
    replicas = [databases.open(url), databases.open(url)]
    states = states_of(lives(40, seed=3))
    topic.publish(states[:100])
    with topic.followed(*replicas) as [first, second]:

        def shares() -> list[int]:
            return sorted(len(each.health().partitions) for each in (first, second))

        eventually(lambda: shares() == [2, 2], what="each has a half")
        for at in range(100, len(states), 20):
            topic.publish(states[at : at + 20])
        eventually(lambda: topic.is_written(replicas[0]), what="all states are written")
        # Counted after the commit.
        eventually(lambda: all(sum(each.health().records.values()) for each in (first, second)), what="each wrote some")
        first.stop()
        eventually(lambda: shares() == [0, 4], what="the other takes over")
        more = states_of(lives(10, seed=4))
        topic.publish(more)
        eventually(lambda: topic.is_written(replicas[0]), what="it goes on with all")


def test_a_recreated_topic_is_read_from_its_beginning(
    topic: StatesTopic, database: Database, eventually: Callable[..., Any]
) -> None:
    topic.publish(states_of(lives(20, seed=7)))
    with topic.followed(database):
        eventually(lambda: topic.is_written(database), what="the database is filled")
        topic.delete()
        admin = topic.connection.admin()
        eventually(lambda: topic.topic.name not in admin.list_topics(timeout=60).topics, what="it is gone")
        topic.make()
        topic.publish(states_of(lives(3, seed=8)))
        eventually(lambda: topic.is_written(database), what="rows are those of the new topic")


def test_rows_of_a_stale_position_are_read_again(
    topic: StatesTopic, database: Database, eventually: Callable[..., Any]
) -> None:
    topic.publish(states_of(lives(10, seed=10)))
    with topic.followed(database):
        eventually(lambda: topic.is_written(database), what="the database is filled")
    days_ago = time.time_ns() // 1_000_000 - 24 * 60 * 60 * 1000
    with database.write() as connection:
        # Its tombstone came and was compacted away while nobody read.
        connection.execute(insert(instances).values(instance_id="ghost", corp_id="corp", state=b"{}", partition=0))
        connection.execute(update(positions).values(at=days_ago))
    with topic.followed(database):
        eventually(lambda: "ghost" not in ids_in(database), what="the ghost is gone")
        eventually(lambda: topic.is_written(database), what="the database is filled again")


def test_a_position_that_is_out_of_range_has_its_partition_read_again(
    topic: StatesTopic, database: Database, eventually: Callable[..., Any]
) -> None:
    topic.publish(states_of(lives(10, seed=11)))
    with topic.followed(database):
        eventually(lambda: topic.is_written(database), what="the database is filled")
    with database.write() as connection:
        connection.execute(delete(entries))
        connection.execute(update(positions).values(next_offset=positions.c.next_offset + 1_000))
    with topic.followed(database):
        eventually(lambda: topic.is_written(database), what="the database is filled again")


def test_a_database_that_comes_back_gets_what_was_read(
    topic: StatesTopic, databases: Databases, eventually: Callable[..., Any]
) -> None:
    states = states_of(lives(20, seed=12))
    server = PostgresServer()
    try:
        database = databases.open(server.url())
        migrate(database, FOLDER)
        with topic.followed(database) as [follower]:
            topic.publish(states[:100])
            eventually(lambda: topic.is_written(database), what="the database is filled")
            server.kill()
            topic.publish(states[100:])
            eventually(lambda: follower.health().problem, what="health says that the database is away")
            assert follower.health().problem is not None
            server.start()
            eventually(lambda: topic.is_written(database), what="all states are written")
            eventually(lambda: follower.health().problem is None, what="health says that it goes on")
            database.close()
    finally:
        server.stop()


def test_a_broker_that_does_not_answer_is_reported_holds_nothing_up_and_is_left(
    topic: StatesTopic, sqlite_database: Database, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, silent = cast("Any", topic.connection.admin()), list[Any]()

    def describe_topics(*topics: Any, **options: Any) -> Any:
        return (silent or [real])[0].describe_topics(*topics, **options)

    clients = iter([SimpleNamespace(describe_topics=describe_topics, list_offsets=real.list_offsets)])

    def admin_client(*_arguments: object) -> Any:
        return next(clients, real)

    monkeypatch.setattr(module, "admin_client", admin_client)
    monkeypatch.setattr(module, "_ANSWER_S", 5.0)
    monkeypatch.setattr(module, "_EVERY_S", {"health": 1.0, "topics": 0.1, "renewal": 600.0, "purge": 3600.0})
    states = states_of(lives(5, seed=9))
    with socket.create_server(("127.0.0.1", 0)) as server, topic.followed(sqlite_database) as [follower]:
        topic.publish(states[:5])
        eventually(lambda: topic.is_written(sqlite_database), what="the database is filled")
        with capture_logs() as logs:
            silent.append(AdminClient({"bootstrap.servers": f"127.0.0.1:{server.getsockname()[1]}"}))
            server.accept()[0].close()
            topic.publish(states[5:])
            eventually(lambda: topic.is_written(sqlite_database), what="new states are written")
            assert logs == []
            eventually(lambda: logs, what="the request has failed")
            assert "Failed while waiting for controller" in logs[0]["problem"]
            eventually(lambda: follower.health().problem is None, what="another client is answered")


def test_positions_are_renewed_at_rest_and_nothing_waits_for_it(
    topic: StatesTopic, sqlite_database: Database, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EVERY_S", {"health": 1.0, "topics": 600.0, "renewal": 0.1, "purge": 3600.0})
    monkeypatch.setattr(module, "_ANSWER_S", 5.0)

    def renewed_at() -> int:
        with sqlite_database.read() as connection:
            return min(connection.scalars(select(positions.c.at)))

    states = states_of(lives(5, seed=10))
    topic.publish(states[:5])
    # A broker answers the requests of a connection one after the other, and a fetch at rest waits for records.
    follower = topic.follower(sqlite_database, **{"fetch.wait.max.ms": "8000"})
    with capture_logs() as logs:
        follower.start()
        try:
            eventually(lambda: topic.is_written(sqlite_database), what="the database is filled")
            before = renewed_at()
            eventually(lambda: renewed_at() > before, what="positions are renewed")
            topic.publish(states[5:])
            eventually(lambda: topic.is_written(sqlite_database), what="new states are written")
        finally:
            follower.stop()
    assert [each for each in logs if each["event"] == "follower_waits"] == []


def ids_in(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.execute(select(instances.c.instance_id)).scalars())
