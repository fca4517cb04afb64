"""After chaos, every notification was delivered, changes of an entry came in order, and receivers' lists are right.

The oracle computes the lists by ``taskbridge.schemas.views`` from the latest state of each instance, and the order from
the topic. TASKBRIDGE_CHAOS_SEEDS=1,2,3 runs more schedules, TASKBRIDGE_CHAOS_SECONDS=600 longer ones.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from msgspec.structs import asdict

from support.background import InBackground
from support.center import PostgresServer
from support.edge.process import OwnStack, wait_until
from support.forked import taskbridge
from support.streams.lives import lives, read_topic
from support.webhooks_process import Receivers, WebhooksProcess
from taskbridge.runtime.kafka import LIBRDKAFKA, producer_config
from taskbridge.schemas.cloudevents import notification_headers
from taskbridge.schemas.codec import task_notification_codec, task_state_codec
from taskbridge.schemas.events import (
    Change,
    Lifecycle,
    TaskNotification,
    notification_id_for,
    notification_key,
    state_id_for,
)
from taskbridge.schemas.topics import TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.schemas.views import views
from taskbridge.streams.fold.instance import fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from taskbridge.cli.connection import Connection
    from taskbridge.streams.fold.instance import Instance

pytestmark = [pytest.mark.integration, pytest.mark.disasters]

SECONDS = float(os.environ.get("TASKBRIDGE_CHAOS_SECONDS", "10"))
SEEDS = [int(seed) for seed in os.environ.get("TASKBRIDGE_CHAOS_SEEDS", "1").split(",")]
EVENTS_PER_S = 15
SESSION_S = 6


class Publisher(InBackground):
    """Publishes states and notifications as streams does."""

    def __init__(self, connection: Connection, seed: int) -> None:
        super().__init__()
        self._chance = random.Random(seed)
        self._states = task_state_codec(connection.registry)
        self._notifications = task_notification_codec(connection.registry)
        config: dict[str, Any] = producer_config(connection.bootstrap_servers)
        self._producer = Producer({**config, "message.timeout.ms": 300_000}, logger=LIBRDKAFKA)
        self._instances: dict[str, Instance] = {}
        self.sent = 0

    def work(self) -> None:
        began = time.monotonic()
        while not self.is_over.is_set():
            self.publish(3)
            self.is_over.wait(max(0.0, began + self.sent / EVENTS_PER_S - time.monotonic()))
        assert self._producer.flush(300) == 0

    def publish(self, instances: int) -> None:
        for event in lives(instances, seed=self._chance.randrange(1 << 30)):
            before = self._instances.get(event.instance_id)
            self._instances[event.instance_id] = after = fold(before, event)
            self._send(before, after)
            self.sent += 1
        self._producer.flush(300)

    def lists(self) -> dict[tuple[str, ...], str]:
        """The right ones: the status of each present entry."""
        found: dict[tuple[str, ...], str] = {}
        for instance in self._instances.values():
            state = instance.state
            for key, entry in views(state).items():
                place = state.corp_id, key.user_id, key.view.lower(), state.instance_id, key.task_id or ""
                found[place] = str(entry.status)
        return found

    def _send(self, before: Instance | None, after: Instance) -> None:
        state = after.state
        value = None if state.lifecycle is Lifecycle.DELETED else self._states.encode(state)
        self._producer.produce(TASK_STATES.name, key=state.instance_id.encode(), value=value)
        old, new = views(None if before is None else before.state), views(state)
        for key in old.keys() | new.keys():
            if (entry := new.get(key)) == old.get(key):
                continue
            change = Change.REMOVED if entry is None else Change.UPDATED if key in old else Change.ADDED
            event_id = state_id_for(state)
            told = TaskNotification(
                notification_id=notification_id_for(event_id, key.user_id, key.view, key.task_id, change),
                corp_id=state.corp_id,
                recipient_id=key.user_id,
                view=key.view,
                change=change,
                instance_id=state.instance_id,
                task_id=key.task_id,
                occurred_at=state.updated_at,
                event_id=event_id,
                **asdict(entry or old[key]),
            )
            self._producer.produce(
                TASK_NOTIFICATIONS.name,
                key=notification_key(told.corp_id, told.recipient_id),
                value=self._notifications.encode(told),
                headers=list[tuple[str, str | bytes | None]](notification_headers(told)),
            )
        self._producer.poll(0)


class Chaos:
    """Seeded faults, one at a time; each heals before the next."""

    def __init__(
        self, seed: int, replicas: list[WebhooksProcess], stack: OwnStack, server: PostgresServer | None
    ) -> None:
        self.log: list[str] = []
        self._chance = random.Random(seed)
        self._replicas, self._stack, self._server = replicas, stack, server

    def run(self, seconds: float) -> None:
        kinds: list[Callable[[], None]] = [self.kill, self.freeze, self.kill_kafka, self.freeze_kafka, self.restart]
        if self._server is not None:
            kinds.append(self.kill_database)
        deadline = time.monotonic() + seconds
        for kind in self._schedule(kinds):
            if len(self.log) >= len(kinds) and time.monotonic() > deadline:
                break
            began = time.monotonic()
            self.log.append(kind.__name__)
            kind()
            wait_until(lambda: all(each.is_ready() for each in self._replicas), 120, what="all replicas are ready")
            sys.stderr.write(f"\n[chaos] {kind.__name__}: {time.monotonic() - began:.1f} s")

    def _schedule(self, kinds: list[Callable[[], None]]) -> Iterator[Callable[[], None]]:
        while True:
            yield from self._chance.sample(kinds, len(kinds))

    def kill(self) -> None:
        replica = self._chance.choice(self._replicas)
        replica.kill()
        replica.start()

    def restart(self) -> None:
        replica = self._chance.choice(self._replicas)
        assert replica.stop() == 0
        replica.start()

    def freeze(self) -> None:
        """Past its session and its claims: another replica has its partitions and deliveries meanwhile."""
        replica = self._chance.choice(self._replicas)
        replica.signal(signal.SIGSTOP)
        time.sleep(SESSION_S + 1)
        replica.signal(signal.SIGCONT)

    def kill_kafka(self) -> None:
        self._stack.signal("kafka", signal.SIGKILL)
        time.sleep(0.5)
        self._stack.wait_until_back("kafka")

    def freeze_kafka(self) -> None:
        self._stack.signal("kafka", signal.SIGSTOP)
        time.sleep(self._chance.uniform(2, 4))
        self._stack.signal("kafka", signal.SIGCONT)

    def kill_database(self) -> None:
        assert self._server is not None
        self._server.kill()
        time.sleep(self._chance.uniform(0.5, 3))
        self._server.start()


def notifications(connection: Connection, skipped: set[tuple[int, int]]) -> dict[tuple[str, ...], list[str]]:
    """The ids of each entry's notifications, in the order of the topic, each once."""
    codec, found = task_notification_codec(connection.registry), dict[tuple[str, ...], list[str]]()
    for message in read_topic(connection, TASK_NOTIFICATIONS.name):
        if (message.partition(), message.offset()) not in skipped:
            told = codec.decode(message.value())
            entry = told.corp_id, told.recipient_id, told.view.lower(), told.instance_id, told.task_id or ""
            ids = found.setdefault(entry, [])
            if told.notification_id not in ids:
                ids.append(told.notification_id)
    return found


@pytest.mark.timeout(SECONDS + 400)
@pytest.mark.parametrize("seed", SEEDS)
# Two replicas on PostgreSQL run into each other; one on SQLite cannot.
@pytest.mark.parametrize("dialect", [pytest.param("sqlite", marks=pytest.mark.nightly), "postgresql"])
def test_every_notification_is_delivered_in_order_and_receivers_lists_are_right(
    dialect: str, connection: Connection, own_stack: OwnStack, tmp_path: Path, seed: int
) -> None:
    receivers, publisher = Receivers(seed), Publisher(connection, seed)
    endpoints = {
        "steady": receivers.url("steady"),
        "moody": receivers.url("moody"),
        "present": f'{receivers.url("present")}\nstart = "present"',
    }
    with contextlib.ExitStack() as ending:
        receivers.start()
        ending.callback(receivers.stop)
        server: PostgresServer | None = None
        environment: dict[str, str] = {}
        if dialect == "postgresql":
            server = PostgresServer()
            ending.callback(server.stop)
            environment["WEBHOOKS_DATABASE_URL"] = server.url()
        properties = tmp_path / "kafka.properties"
        properties.write_text(f"session.timeout.ms={SESSION_S * 1000}\nheartbeat.interval.ms=1000\n")
        environment["WEBHOOKS_KAFKA_CONFIG_FILE"] = str(properties)
        replicas = [
            WebhooksProcess(tmp_path, connection, endpoints, **environment) for _ in range(1 if server is None else 2)
        ]
        if server is not None:
            migrated = taskbridge("webhooks", "--migrate", environment=replicas[0].environment)
            assert migrated.returncode == 0, migrated.stderr
        for each in replicas:
            ending.callback(each.kill)
        # For the endpoint that starts with what is present.
        publisher.publish(20)
        before = {each.offset() for each in read_topic(connection, TASK_NOTIFICATIONS.name)}
        assert before
        for each in replicas:
            each.start()
        wait_until(lambda: all(each.is_ready() for each in replicas), 120, what="webhooks are ready")
        skipped = {
            (each.partition() or 0, each.offset() or 0) for each in read_topic(connection, TASK_NOTIFICATIONS.name)
        }
        with publisher:
            Chaos(seed, replicas, own_stack, server).run(SECONDS)
        receivers.is_moody = False
        topic = notifications(connection, skipped)
        wanted = {each for ids in topic.values() for each in ids}

        for name in ("steady", "moody"):
            wait_until(
                lambda name=name: wanted <= set(receivers.received[name].ids), 120, what=f"{name} has everything"
            )
            received = receivers.received[name]
            arrived: dict[tuple[str, ...], list[str]] = {}
            for entry, webhook_id in zip(received.entries, received.ids, strict=True):
                arrived.setdefault(entry, []).append(webhook_id)
            assert {entry: [each for each in ids if each in wanted] for entry, ids in arrived.items()} == topic, name

        right = publisher.lists()

        def present() -> dict[tuple[str, ...], str]:
            return {entry: data["status"] for entry, data in receivers.received["present"].lists.items()}

        wait_until(lambda: present() == right, 120, what="the lists of an endpoint that began with all are right")
