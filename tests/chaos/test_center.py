"""After chaos, everyone's lists are those of the states on the topic, and no event stream has missed a change.

The oracle computes the lists by ``taskbridge.schemas.views`` from the latest state of each instance. Clients of event
streams apply what they receive, over all reconnections: that must come to the same lists.

TASKBRIDGE_CHAOS_SEEDS=1,2,3 runs more schedules, TASKBRIDGE_CHAOS_SECONDS=600 longer ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from sqlalchemy import text

from support.background import InBackground
from support.center import PostgresServer
from support.center_process import VIEWS, CenterProcess, Follower, Line, Lists, lists_of
from support.edge.process import OwnStack, wait_until
from support.edge.spool import can_mount, fill, small_disk
from support.forked import taskbridge
from support.streams.lives import lives, read_topic
from taskbridge.runtime.database import open_database
from taskbridge.runtime.kafka import LIBRDKAFKA, producer_config
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import Lifecycle
from taskbridge.schemas.topics import TASK_STATES
from taskbridge.schemas.views import views
from taskbridge.streams.fold.instance import fold

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from taskbridge.cli.connection import Connection
    from taskbridge.runtime.database import Database
    from taskbridge.schemas.events import TaskState
    from taskbridge.schemas.views import Entry
    from taskbridge.streams.fold.instance import Instance

pytestmark = [pytest.mark.integration, pytest.mark.disasters]

SECONDS = float(os.environ.get("TASKBRIDGE_CHAOS_SECONDS", "15"))
SEEDS = [int(seed) for seed in os.environ.get("TASKBRIDGE_CHAOS_SEEDS", "1").split(",")]
CORP = "corp"
PEOPLE = [f"user-{number}" for number in range(20)]
LISTENED_TO = PEOPLE[:8]
STATES_PER_S = 40
SESSION_S = 6
DISK_MB = 96
UNDECODABLE = b"\0\0\0\0\1not Avro"


class States(InBackground):
    """Publishes states as streams does: those of the lives of new instances, event by event, and tombstones."""

    def __init__(self, connection: Connection, seed: int) -> None:
        super().__init__()
        self.undecodable = 0
        self._chance = random.Random(seed)
        self._codec = task_state_codec(connection.registry)
        config: dict[str, Any] = producer_config(connection.bootstrap_servers)
        # Kafka is away for a while; nothing may be lost on the way.
        self._producer = Producer({**config, "message.timeout.ms": 300_000}, logger=LIBRDKAFKA)
        self._instances: dict[str, Instance] = {}

    def work(self) -> None:
        began, sent = time.monotonic(), 0
        while not self.is_over.is_set():
            for event in lives(10, seed=self._chance.randrange(1 << 30)):
                before = self._instances.get(event.instance_id)
                self._instances[event.instance_id] = after = fold(before, event)
                self._send(after)
                sent += 1
                self.is_over.wait(max(0.0, began + sent / STATES_PER_S - time.monotonic()))
        assert self._producer.flush(300) == 0

    def send_undecodable(self) -> None:
        """In place of a state of an instance that has lists, and of one that has none."""
        for key in (self._chance.choice([*self._instances]), "undecodable"):
            self._producer.produce(TASK_STATES.name, key=key.encode(), value=UNDECODABLE)
            self.undecodable += 1

    def _send(self, instance: Instance) -> None:
        state = instance.state
        value = None if state.lifecycle is Lifecycle.DELETED else self._codec.encode(state)
        self._producer.produce(TASK_STATES.name, key=state.instance_id.encode(), value=value)
        self._producer.poll(0)


def expected(connection: Connection) -> dict[str, Lists]:
    """By person, in the order of the API. A record that cannot be decoded changes nothing."""
    codec, states = task_state_codec(connection.registry), dict[bytes, "TaskState"]()
    for message in read_topic(connection, TASK_STATES.name):
        key, value = bytes(message.key() or b""), message.value()
        with contextlib.suppress(RecordError):
            if value is None:
                states.pop(key, None)
            else:
                states[key] = codec.decode(value)
    entries: dict[str, list[tuple[tuple[Any, ...], Line, Entry]]] = {each: [] for each in PEOPLE}
    for state in states.values():
        for key, entry in views(state).items():
            line = Line(key.view.lower(), state.instance_id, key.task_id)
            order = (VIEWS.index(line.view), -entry.entered_at, line.instance_id, line.task_id or "")
            entries[key.user_id].append((order, line, entry))
    ordered = {person: sorted(found, key=lambda each: each[0]) for person, found in entries.items()}
    return {person: {line: shown(entry) for _, line, entry in found} for person, found in ordered.items()}


def shown(entry: Entry) -> dict[str, Any]:
    """What an item of a list and a notification have in common."""
    return {
        "title": entry.title,
        "url": entry.url,
        "app_type": entry.app_type,
        "source": entry.source,
        "process_name": entry.process_name,
        "originator": entry.originator and {"user_id": entry.originator.user_id, "name": entry.originator.name},
        "status": str(entry.status),
        "updated_at": iso(entry.updated_at),
        "entered_at": iso(entry.entered_at),
        "outcome": entry.outcome,
        "result": entry.result,
        "finished_at": entry.finished_at and iso(entry.finished_at),
    }


_SHOWN = ("title", "url", "app_type", "source", "process_name", "originator", "status", "updated_at", "outcome")


def comparable(lists: Lists) -> Lists:
    """Items of lists and data of notifications in the form of the oracle."""
    return {
        line: {
            **{name: each[name] for name in (*_SHOWN, "result", "finished_at")},
            # An item's ``created_at`` is a notification's ``entered_at``.
            "entered_at": each["entered_at"] if "entered_at" in each else each["created_at"],
        }
        for line, each in lists.items()
    }


def difference(found: Lists | None, right: Lists) -> str:
    """The first entries that differ; empty if none do, in any order."""
    if found is None:
        return "no answer"
    wrong = [line for line in found | right if found.get(line) != right.get(line)]
    return "".join(f"\n{each}: found {found.get(each)}, expected {right.get(each)}" for each in wrong[:3])


def wrong_lists(replica: CenterProcess, right: dict[str, Lists]) -> Iterator[str]:
    """A line for each person whose lists at this replica are not these, in this order."""
    for person, lists in right.items():
        found = lists_of(replica.url, CORP, person)
        if found is None or list(comparable(found).items()) != list(lists.items()):
            yield f"{person} at {replica.url}: {difference(found and comparable(found), lists) or 'another order'}"


class Installation:
    """One replica on SQLite, or two on a PostgreSQL that can be killed."""

    def __init__(self, folder: Path, connection: Connection, stack: OwnStack, server: PostgresServer | None) -> None:
        self.stack = stack
        self.server = server
        properties = folder / "kafka.properties"
        properties.write_text(f"session.timeout.ms={SESSION_S * 1000}\nheartbeat.interval.ms=1000\n")
        environment = {"CENTER_KAFKA_CONFIG_FILE": str(properties), "CENTER_LOG_LEVEL": "INFO"}
        if server is not None:
            environment["CENTER_DATABASE_URL"] = server.url()
        self.replicas = [CenterProcess(folder, connection, **environment) for _ in range(1 if server is None else 2)]
        self.frozen: CenterProcess | None = None

    @property
    def database(self) -> Database:
        return open_database(None if self.server is None else self.server.url(), self.replicas[0].data_dir)

    @contextlib.contextmanager
    def connected(self) -> Generator[Any]:
        """A connection of someone else to the same database."""
        database = self.database
        try:
            with database.engine.connect() as connection:
                yield connection
        finally:
            database.close()

    def any_url(self) -> str:
        """The address of a replica that is not frozen, for a client."""
        return random.choice([each.url for each in self.replicas if each is not self.frozen] or [self.replicas[0].url])

    def end(self) -> None:
        for each in self.replicas:
            each.kill()
            each.show_log()


class Chaos:
    """Seeded faults, one at a time; each heals before the next."""

    def __init__(self, seed: int, center: Installation, states: States, connection: Connection) -> None:
        self.log: list[str] = []
        self._chance = random.Random(seed)
        self._center = center
        self._states = states
        self._connection = connection

    def run(self, seconds: float) -> None:
        kinds: list[Callable[[], None]] = [
            self.kill_center,
            self.kill_kafka,
            self.freeze_kafka,
            self.freeze_past_session,
            self.send_undecodable,
        ]
        if self._center.server is None:
            kinds += [self.fill_disk, self.write_from_outside]
        else:
            kinds += [self.kill_database, self.deadlock, self.freeze_in_transaction]
        self.until_followed()
        deadline = time.monotonic() + seconds
        for kind in self._schedule(kinds):
            if len(self.log) >= len(kinds) and time.monotonic() > deadline:
                break
            began = time.monotonic()
            self.log.append(kind.__name__)
            kind()
            self.until_followed()
            sys.stderr.write(f"\n[chaos] {kind.__name__}: {time.monotonic() - began:.1f} s")

    def _schedule(self, kinds: list[Callable[[], None]]) -> Iterator[Callable[[], None]]:
        """Each of them once, in a seeded order, and again."""
        while True:
            yield from self._chance.sample(kinds, len(kinds))

    def until_followed(self) -> None:
        """Return when every replica is ready and states that come from now on are in the database."""
        wait_until(lambda: all(each.is_ready() for each in self._center.replicas), 120, what="all replicas are ready")
        before = self._positions()
        wait_until(lambda: self._positions() > before + STATES_PER_S / 4, 120, what="states are followed")

    def _positions(self) -> int:
        with self._center.connected() as connection:
            query = "SELECT coalesce(sum(next_offset), 0) FROM positions WHERE topic = :topic"
            return int(connection.scalar(text(query), {"topic": TASK_STATES.name}))

    def kill_center(self) -> None:
        replica = self._chance.choice(self._center.replicas)
        replica.kill()
        replica.start()

    def kill_kafka(self) -> None:
        self._center.stack.signal("kafka", signal.SIGKILL)
        time.sleep(0.5)
        self._center.stack.wait_until_back("kafka")

    def freeze_kafka(self) -> None:
        self._center.stack.signal("kafka", signal.SIGSTOP)
        self._pause(2, 4)
        self._center.stack.signal("kafka", signal.SIGCONT)

    def freeze_past_session(self) -> None:
        """Another replica has its partitions when it comes back; alone, it gets them again."""
        self._freeze(self._chance.choice(self._center.replicas))

    def freeze_in_transaction(self) -> None:
        """A frozen replica has locked rows, which the other needs."""
        replica = self._chance.choice(self._center.replicas)
        open_ones = text(
            "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND backend_xid IS NOT NULL"
            " AND wait_event IN ('ClientRead', 'ClientWrite')"
            " AND datname = current_database() AND pid <> pg_backend_pid()"
        )
        with self._center.connected() as connection:

            def caught() -> bool:
                replica.signal(signal.SIGSTOP)
                time.sleep(0.02)  # a statement under way ends
                if connection.scalar(open_ones):
                    connection.rollback()
                    return True
                connection.rollback()
                replica.signal(signal.SIGCONT)
                time.sleep(self._chance.uniform(0, 0.02))
                return False

            wait_until(caught, what="a replica is frozen in a transaction")
        self._freeze(replica)

    def _freeze(self, replica: CenterProcess) -> None:
        self._center.frozen = replica
        replica.signal(signal.SIGSTOP)
        time.sleep(SESSION_S + 1)
        if len(self._center.replicas) > 1:
            before = self._positions()
            wait_until(lambda: self._positions() > before + STATES_PER_S, 60, what="the other replica follows all")
        replica.signal(signal.SIGCONT)
        self._center.frozen = None

    def kill_database(self) -> None:
        assert self._center.server is not None
        self._center.server.kill()
        self._pause(0.5, 3)
        url = f"/v1/corps/{CORP}/users/{PEOPLE[0]}/counts"
        answers = [each.get(url, timeout_s=30) for each in self._center.replicas]
        assert [each and each.status_code for each in answers] == [503] * len(answers)
        assert all(each is not None and "retry-after" in each.headers for each in answers)
        self._center.server.start()

    def deadlock(self) -> None:
        """Lock rows in the opposite order of the follower, which is the one that the database rolls back."""
        lock = text("UPDATE change_counters SET last_seq = last_seq WHERE corp_id = :corp AND user_id = :user")
        deadlocks = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        for _ in range(20):
            with self._center.connected() as connection:
                connection.execute(text("SET deadlock_timeout = '30s'"))
                connection.commit()
                before = connection.scalar(deadlocks)
                connection.rollback()
                for user in sorted(PEOPLE, reverse=True):
                    connection.execute(lock, {"corp": CORP, "user": user})
                    time.sleep(0.1)
                connection.rollback()
            with self._center.connected() as connection:
                # Backends report their counts when they are idle.
                time.sleep(0.5)
                if connection.scalar(deadlocks) > before:
                    return
        pytest.fail("no deadlock came about")

    def fill_disk(self) -> None:
        if not can_mount():
            return
        replica = self._center.replicas[0]
        ballast = fill(replica.data_dir)
        try:
            wait_until(lambda: (found := replica.get("/readyz")) and found.json()["problems"], what="it says so")
            answer = replica.get(f"/v1/corps/{CORP}/users/{PEOPLE[0]}/counts")
            assert answer is not None
            assert answer.status_code == 200, "lists can be read without room on the disk"
        finally:
            ballast.unlink()

    def write_from_outside(self) -> None:
        """Transactions of another program, between the follower's reads and its writes, and for longer."""
        with self._center.connected() as connection:
            # Before the first write of a transaction: what SQLite then gives up is the other's, not this one.
            for number in range(40):
                connection.rollback()
                connection.exec_driver_sql("UPDATE about SET value = value WHERE name = 'epoch'")
                time.sleep(1 if number % 20 == 0 else 0.005)
                connection.commit()
                time.sleep(self._chance.uniform(0, 0.02))

    def send_undecodable(self) -> None:
        self._states.send_undecodable()

    def _pause(self, least_s: float, most_s: float) -> None:
        time.sleep(self._chance.uniform(least_s, most_s))


# In every run, faults of PostgreSQL are in the schedule of webhooks; its deadlocks, and a replica that is frozen in a
# transaction, in tests/unit/center/test_database.py.
@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.nightly)])
def center(
    request: pytest.FixtureRequest, connection: Connection, own_stack: OwnStack, tmp_path: Path
) -> Generator[Installation]:
    with contextlib.ExitStack() as ending:
        server: PostgresServer | None = None
        if request.param == "postgresql":
            server = PostgresServer()
            ending.callback(server.stop)
        found = Installation(tmp_path, connection, own_stack, server)
        if server is None and can_mount():
            ending.enter_context(small_disk(found.replicas[0].data_dir, megabytes=DISK_MB))
        ending.callback(found.end)
        if server is not None:
            migrated = taskbridge("center", "--migrate", environment=found.replicas[0].environment)
            assert migrated.returncode == 0, migrated.stderr
        yield found


@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.parametrize("seed", SEEDS)
def test_lists_are_those_of_the_states_and_no_event_stream_misses_a_change(
    center: Installation, connection: Connection, seed: int
) -> None:
    for each in center.replicas:
        each.start()
    wait_until(lambda: all(each.is_ready() for each in center.replicas), 120, what="the center is ready")
    followers = [Follower(CORP, user, center.any_url) for user in LISTENED_TO]
    for each in followers:
        each.start()
    states = States(connection, seed)
    chaos = Chaos(seed, center, states, connection)
    try:
        with states:
            chaos.run(SECONDS)
        right = expected(connection)

        def wrong() -> list[str]:
            lists = [each for replica in center.replicas for each in wrong_lists(replica, right)]
            events = [(each, difference(comparable(each.lists), right[each.user_id])) for each in followers]
            return lists + [f"{each.user_id} by events: {found}" for each, found in events if found]

        with contextlib.suppress(AssertionError):
            wait_until(lambda: not wrong(), 60)
        sys.stderr.write(f"\n[chaos] seed {seed}: {sum(map(len, right.values()))} entries, ")
        sys.stderr.write(f"{[each.connections for each in followers]} connections\n")
        assert "\n".join(wrong()) == ""
        assert [each.resets for each in followers] == [[]] * len(followers)
        assert sum(map(len, right.values())) > 20 * SECONDS, "too little was followed"
        with center.connected() as database:
            skipped = database.execute(text("SELECT topic, key FROM skipped")).all()
        assert {each.topic for each in skipped} == {TASK_STATES.name}
        assert len(skipped) == states.undecodable
        for each in center.replicas:
            assert each.stop() == 0
    finally:
        for each in followers:
            each.stop()


# In every run, tests/unit/center has its parts: damage is found in test_database.py, and repaired in test_app.py.
@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_a_damaged_sqlite_file_is_reported_and_rebuilt(connection: Connection, tmp_path: Path) -> None:
    with CenterProcess(tmp_path, connection) as replica:
        replica.start()
        with States(connection, 7):
            wait_until(replica.is_ready, 120, what="the center is ready")
            time.sleep(2)
        right = expected(connection)
        assert sum(map(len, right.values())) > STATES_PER_S / 4
        wait_until(lambda: not any(wrong_lists(replica, right)), 60, what="the lists are filled")
        assert replica.stop() == 0
        file = replica.data_dir / "center.db"
        for each in replica.data_dir.glob("center.db-*"):
            each.unlink()
        with file.open("r+b") as opened:
            for page in range(1, file.stat().st_size // 4096):
                opened.seek(page * 4096)
                opened.write(b"damaged!" * 64)
        replica.start()

        def report() -> str:
            answer = replica.get("/readyz")
            return json.dumps(answer.json()) if answer is not None else replica.log_path.read_text()[-3000:]

        wait_until(lambda: "taskbridge center --rebuild" in report(), what="it says how to repair it")
        assert "damaged" in report()
        replica.kill()
        rebuilt = taskbridge("center", "--rebuild", environment=replica.environment)
        assert rebuilt.returncode == 0, rebuilt.stderr
        replica.start()
        wait_until(replica.is_ready, 60, what="the lists are filled again")
        assert [*wrong_lists(replica, right)] == []
