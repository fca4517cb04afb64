"""Whole workers after a loss: refused in one line that names it, repaired by the command named there, and all right.

One worker goes from disaster to disaster, on a Kafka of its own. The expected states are folded from the events that
were produced, because the topic loses them. All of them run nightly, and the hardest in every run.
"""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions

from support.edge.process import wait_until
from support.streams.lives import (
    assert_all_is_right,
    caught_up,
    delete_all_topics,
    expected,
    lives,
    produce,
    read_topic,
    topics_on,
)
from support.streams.processes import Rebuild, Worker, ends_of, pending_notifications
from taskbridge.runtime.kafka import consumer_config, producer_config
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.events import Lifecycle
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.contract.live_version import LiveVersion
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.stored_instance import age_of
from taskbridge.streams.rebuild.operation import delete_topics
from taskbridge.streams.table_versions import REBUILD, VERSION_KEY, VERSION_TOPIC, instances_changelog
from taskbridge.streams.transactions.offsets import Offsets
from taskbridge.streams.transactions.positions import POSITION_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from confluent_kafka import Message

    from support.kafka.brokers import OwnBroker
    from taskbridge.cli.connection import Connection
    from taskbridge.schemas.events import TaskEvent
    from taskbridge.streams.fold.instance import Instance

pytestmark = [pytest.mark.integration, pytest.mark.disasters, pytest.mark.timeout(400)]

PARTITIONS = 3


class Company:
    """A worker, and what must have become of all events that it was ever given."""

    def __init__(self, broker: OwnBroker, connection: Connection, folder: Path) -> None:
        self.broker = broker
        self.connection = connection
        self.admin: Any = connection.admin()
        self.folder = folder
        self.read: Callable[[str], list[Message]] = partial(read_topic, connection)
        self.worker = Worker(folder, connection)
        self.command = Rebuild(connection, folder)
        self.right: dict[str, Instance] = {}
        self._seed = 100

    @property
    def offsets(self) -> Offsets:
        """With a new client: one from before a broker's restart has an outdated leader epoch."""
        return Offsets(consumer_config(self.connection.bootstrap_servers, "tests"))

    @property
    def states(self) -> str:
        """The changelog of the live version."""
        live_version = LiveVersion(self.connection.bootstrap_servers, {}, self.offsets)
        return instances_changelog(live_version.read().live).name

    def happen(self, count: int = 20) -> list[TaskEvent]:
        """New instances, and their events."""
        self._seed += 1
        events = lives(count, seed=self._seed)
        for event in events:
            self.right[event.instance_id] = fold(self.right.get(event.instance_id), event)
        produce(self.connection, events)
        return events

    def work(self, worker: Worker | None = None) -> None:
        """Start the worker, and wait until it has processed everything."""
        worker = worker or self.worker
        if worker.process is None:
            worker.start()
        wait_until(worker.is_ready, what="the worker is ready")
        wait_until(partial(caught_up, self.connection), what="all events are processed")
        wait_until(lambda: not pending_notifications(self.connection), what="nothing is pending")

    def rest(self) -> None:
        assert self.worker.end(signal.SIGTERM) == 0

    def is_refused(self, *named: str, worker: Worker | None = None) -> None:
        """The worker exits, and its last line says what is wrong and what to do."""
        worker = worker or self.worker
        if worker.process is None:
            worker.start()
        assert worker.exit_code() == 1
        last = worker.log_path.read_text().splitlines()[-1]
        assert last.startswith("taskbridge streams: "), last
        for each in named:
            assert each in last

    def is_repaired(self, *command: str) -> dict[str, Any]:
        """Run the command and then a worker: all is right, also for later events."""
        found = self.command.run(*command)
        self.goes_on()
        self.rest()
        return found

    def goes_on(self) -> None:
        """Run a worker with new events: all is right."""
        self.happen(5)
        self.work()
        self.is_right()

    def is_right(self) -> None:
        """Check states, notifications, and the stored deletions."""
        assert_all_is_right(self.connection, self.read, instances=self.right, counted=False)
        deleted = {key for key, each in self.right.items() if each.state.lifecycle is Lifecycle.DELETED}
        stored = {bytes(each.key() or b""): bytes(each.value() or b"") for each in self.read(self.states)}
        del stored[POSITION_KEY]
        assert {key.decode() for key, value in stored.items() if value and age_of(value).is_deleted} == deleted

    def lose_deletions(self) -> None:
        """Published states lack deleted instances: of these, only the events that are left are known."""
        deleted = {key for key, each in self.right.items() if each.state.lifecycle is Lifecycle.DELETED}
        left = expected(self.connection, self.read)
        self.right = {key: each for key, each in self.right.items() if key not in deleted}
        self.right |= {key: each for key, each in left.items() if key in deleted}

    def lose(self, *names: str) -> None:
        delete_topics(self.admin, [*names])
        wait_until(lambda: not topics_on(self.connection).keys() & {*names}, what="they are gone")

    def recreate(self, topic: topics.Topic, partitions: int = PARTITIONS) -> None:
        self.lose(topic.name)
        apply_topics(self.admin, [topic], partitions=partitions)

    def forget(self, topic: str) -> None:
        """Delete all records, as retention does."""
        before = [TopicPartition(topic, partition, end) for partition, end in ends_of(self.connection, topic).items()]
        for each in self.admin.delete_records(before).values():
            each.result(60)

    def cut(self, topic: str) -> None:
        """Delete all records, as a changed cleanup policy does, and restore the policy."""
        self._clean_up(topic, "delete")
        self.forget(topic)
        self._clean_up(topic, "compact")

    def write(self, topic: str, key: bytes, value: bytes, *, partition: int) -> None:
        config: dict[str, Any] = producer_config(self.connection.bootstrap_servers)
        producer = Producer(config)
        producer.produce(topic, key=key, value=value, partition=partition)
        assert producer.flush(30) == 0

    def _clean_up(self, topic: str, policy: str) -> None:
        entry = ConfigEntry("cleanup.policy", policy, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        for each in self.admin.incremental_alter_configs([resource]).values():
            each.result(30)


@pytest.fixture(scope="module")
def company(
    own_broker: OwnBroker, own_kafka: Connection, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Company]:
    delete_all_topics(own_kafka)
    apply_topics(own_kafka.admin(), topics.ALL, partitions=PARTITIONS)
    found = Company(own_broker, own_kafka, tmp_path_factory.mktemp("company"))
    found.happen(40)
    found.work()
    found.rest()
    yield found
    found.worker.kill()
    found.command.kill_if_running()


@pytest.fixture(autouse=True)
def rest(company: Company) -> Generator[None]:
    """What fails leaves no worker to the next."""
    yield
    company.worker.kill()
    company.worker.process = None


class Disaster(NamedTuple):
    """What happens while no worker works."""

    name: str
    happens: Callable[[Company], object]
    named: Callable[[Company], str]


def _damaged_state(company: Company) -> None:
    key, there = _some_state(company)
    company.write(company.states, key, b"\x03 damaged", partition=cast("int", there.partition()))


def _another_instance(company: Company) -> None:
    key, there = _some_state(company)
    others = (each for each in company.read(company.states) if each.key() not in (key, POSITION_KEY) and each.value())
    value = bytes(next(others).value() or b"")
    company.write(company.states, key, value, partition=cast("int", there.partition()))
    # Known once it is read: an event comes that was folded before.
    event = next(each for each in lives(40, seed=101) if each.instance_id.encode() == key)
    produce(company.connection, [event])


def _some_state(company: Company) -> tuple[bytes, Message]:
    """Of an instance that is there since the beginning."""
    known = {each.instance_id.encode() for each in lives(40, seed=101)}
    return next((bytes(each.key() or b""), each) for each in company.read(company.states) if each.key() in known)


def _unreadable_version(company: Company) -> None:
    company.write(VERSION_TOPIC.name, VERSION_KEY, b"nonsense", partition=0)


def _widen(company: Company) -> None:
    for each in company.admin.create_partitions([NewPartitions(TASK_EVENTS.name, PARTITIONS + 1)]).values():
        each.result(30)


def _states_recreated(company: Company) -> None:
    company.recreate(next(each for each in map(instances_changelog, range(1, 30)) if each.name == company.states))


def _states(company: Company) -> str:
    return company.states


def _version(_company: Company) -> str:
    return VERSION_TOPIC.name


def _version_lost(company: Company) -> None:
    company.lose(VERSION_TOPIC.name)


def _version_recreated(company: Company) -> None:
    company.recreate(VERSION_TOPIC, 1)


def _cut(topic: Callable[[Company], str]) -> Callable[[Company], None]:
    def cut(company: Company) -> None:
        company.cut(topic(company))

    return cut


DISASTERS = [
    Disaster("states-recreated", _states_recreated, _states),
    Disaster("states-cut", _cut(_states), _states),
    Disaster("a-state-damaged", _damaged_state, _states),
    Disaster("a-state-under-another-key", _another_instance, _states),
    Disaster("version-lost", _version_lost, _version),
    Disaster("version-recreated", _version_recreated, _version),
    Disaster("version-cut", _cut(_version), _version),
    Disaster("version-unreadable", _unreadable_version, _version),
]


# First: events still describe their instances.
@pytest.mark.nightly
@pytest.mark.parametrize("disaster", DISASTERS, ids=lambda disaster: disaster.name)
def test_a_loss_is_refused_and_named_and_repaired_by_the_command(company: Company, disaster: Disaster) -> None:
    disaster.happens(company)
    company.is_refused(disaster.named(company), REBUILD)
    company.is_repaired("--rebuild")


@pytest.mark.nightly
def test_a_recreated_topic_that_is_lost_before_any_worker_has_started_is_missed(company: Company) -> None:
    company.command.run("--rebuild")
    _states_recreated(company)
    company.is_refused(f"{company.states} was deleted and recreated", REBUILD)
    assert company.is_repaired("--rebuild")["lost"] == 0


# In every run, test_disasters.py cuts the end of a changelog.
@pytest.mark.nightly
def test_a_changelog_that_lost_its_end_is_refused(company: Company) -> None:
    states = company.states
    found = company.broker.folder.rglob(f"{states}-*/00000000000000000000.log")
    files = sorted(each for each in found if not each.parent.name.endswith("-delete"))  # Kafka's, of a topic that was
    assert len(files) == PARTITIONS
    offsets, partitions = company.offsets, range(PARTITIONS)
    wait_until(lambda: offsets.decided(states, partitions) == offsets.ends(states, partitions), what="nothing is open")
    whole = {path: path.stat().st_size for path in files}
    company.happen(10)
    company.work()
    company.rest()

    def cut() -> None:
        for path, size in whole.items():
            os.truncate(path, size)

    company.broker.change_files(cut)
    company.is_refused(f"{states}, partition", "is truncated", REBUILD)
    company.is_repaired("--rebuild")


def test_lost_events_are_missed_by_every_later_rebuild_after_any_further_loss(company: Company) -> None:
    again = lives(40, seed=101)
    company.recreate(TASK_EVENTS)
    # Of instances that are there, and of none in whole. Workers go on with these before there is a rebuild.
    produce(company.connection, again[:60])
    company.happen(5)
    company.work()
    company.rest()
    assert company.is_repaired("--rebuild")["lost"] == 0
    company.recreate(TASK_EVENTS)
    produce(company.connection, again[60:120])
    company.command.run("--rebuild")
    # No worker has gone on in between.
    assert company.command.run("--rebuild")["lost"] == 0
    company.goes_on()
    # The last one: open work is not committed then, and comes again.
    company.happen()
    with company.broker.frozen():
        assert company.worker.end(signal.SIGTERM, within_s=30) == 0, "it does not wait for Kafka"


def lost_notifications_are_published_again(company: Company) -> None:
    company.lose(TASK_NOTIFICATIONS.name)
    company.happen(5)
    company.work()
    company.rest()
    company.is_repaired("--republish")


def events_that_went_before_a_worker_could_read_them_end_it_and_it_goes_on_behind_them(company: Company) -> None:
    again = lives(40, seed=101)
    worker = Worker(company.folder, company.connection, STREAMS_SESSION_TIMEOUT_S="30")
    worker.start()
    try:
        company.work(worker)
        worker.signal(signal.SIGSTOP)
        # The first may be read already: a fetch was waiting for it. Nothing of these is new, so nothing is missed.
        for _ in range(2):
            produce(company.connection, again)
        company.forget(TASK_EVENTS.name)
        worker.signal(signal.SIGCONT)
        assert worker.exit_code() == 1
        assert "deleted before they were read" in worker.log_path.read_text().splitlines()[-1]
        company.happen(5)
        company.work(worker)
        assert worker.metrics()['taskbridge_streams_positions_lost_total{reason="out-of-range"}'] > 0
        company.is_right()
        assert worker.end(signal.SIGTERM) == 0
    finally:
        worker.kill()
        shutil.rmtree(worker.data_dir)


def published_states_that_are_lost_come_back_by_a_rebuild(company: Company) -> None:
    company.lose(TASK_STATES.name)
    company.work()
    company.rest()
    found = company.is_repaired("--rebuild")
    assert found["states"] > 0


def a_topic_with_another_number_of_partitions_is_named_and_all_get_it(company: Company) -> None:
    """The last of these: from here on there are more."""
    _widen(company)
    company.is_refused(f"{TASK_EVENTS.name} has {PARTITIONS + 1}", f"{REBUILD} --partitions")
    company.command.run("--rebuild", "--partitions", str(PARTITIONS + 1))
    company.goes_on()


OTHERS = [
    lost_notifications_are_published_again,
    events_that_went_before_a_worker_could_read_them_end_it_and_it_goes_on_behind_them,
    published_states_that_are_lost_come_back_by_a_rebuild,
    a_topic_with_another_number_of_partitions_is_named_and_all_get_it,
]


@pytest.mark.nightly
@pytest.mark.parametrize("happens", OTHERS, ids=lambda happens: happens.__name__)
def test_other_disasters_end_as_the_table_says(company: Company, happens: Callable[[Company], None]) -> None:
    happens(company)


def test_without_changelog_and_old_events_all_but_deletions_come_back_from_published_states(company: Company) -> None:
    """Last: events of before that come again would decide otherwise than at first."""
    company.work()
    company.rest()
    states = company.states
    company.forget(TASK_EVENTS.name)
    company.lose(states)
    company.is_refused(f"{states} is missing", REBUILD)
    company.lose_deletions()
    before = len(company.right)
    company.happen(5)
    found = company.is_repaired("--rebuild")
    assert (found["from_published"], found["carried_over"], found["lost"]) == (before, before, 0)
