"""States rebuilt while workers run, on a Kafka of their own, because Kafka records which version is live."""

from __future__ import annotations

import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import Producer, TopicPartition
from msgspec import structs

from support.forked import COMMAND
from support.streams.fold_inputs import by_first_state_schema, published_schema
from support.streams.lives import (
    assert_all_is_right,
    assert_notified_exactly_once,
    expected,
    lives,
    produce,
    states_on_topic,
)
from support.streams.processes import (
    Load,
    Worker,
    ends,
    ends_of,
    pending_notifications,
    processed,
    versions,
)
from taskbridge.runtime.kafka import consumer_config, producer_config
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.codec import task_event_codec, task_notification_codec, task_state_codec
from taskbridge.schemas.events import SOURCE_TASKBRIDGE, Action, Lifecycle, event_id_for, notification_key
from taskbridge.schemas.registry import SchemaRef
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.contract.live_version import REBUILD_ID
from taskbridge.streams.fold.instance import DETAILS, Instance, fold
from taskbridge.streams.fold.stored_instance import age_of, are_events_lost, pack, state_value, unpack
from taskbridge.streams.fold.views import notifications
from taskbridge.streams.instances.pending_notifications import FIRST_INSTANCE
from taskbridge.streams.rebuild.operation import CannotRun, alone
from taskbridge.streams.table_versions import VERSION_TOPIC, Versions, instances_changelog
from taskbridge.streams.transactions.offsets import Offsets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from support.streams.processes import Read, Rebuild
    from taskbridge.cli.connection import Connection
    from taskbridge.schemas.events import TaskEvent, TaskNotification, TaskState

pytestmark = [pytest.mark.integration, pytest.mark.disasters, pytest.mark.timeout(400)]


class Stored:
    """The instances in the live changelog, with methods that write values there that the program would not."""

    def __init__(self, connection: Connection, read: Read, *, version: int = 1) -> None:
        self._connection = connection
        self._producer = Producer(cast("dict[str, Any]", producer_config(connection.bootstrap_servers)))
        self._states = task_state_codec(connection.registry)
        self._notifications = task_notification_codec(connection.registry)
        self.topic = instances_changelog(version).name
        self._last = {
            bytes(each.key() or b""): each for each in read(self.topic) if bytes(each.key() or b"") >= FIRST_INSTANCE
        }

    @property
    def known(self) -> list[str]:
        """Their ids."""
        return sorted(key.decode() for key in self._last)

    def instance(self, key: str) -> Instance:
        return unpack(bytes(self._last[key.encode()].value() or b""), self._states)

    def write(
        self, key: str, instance: Instance, published: Iterable[TaskNotification], *, value: bytes | None = None
    ) -> None:
        """Write as a worker would after an event that does not exist, or with a ``value`` that no worker writes."""
        producer = self._producer
        known = self._last.get(key.encode())
        state = self._states.encode(instance.state)
        lost = known is not None and are_events_lost(bytes(known.value() or b""))
        stored = pack(state, instance, now_ms=time.time_ns() // 1_000_000, events_lost=lost)
        producer.produce(
            self.topic,
            key=key,
            value=stored if value is None else value,
            partition=3 if known is None else known.partition() or 0,
        )
        deleted = instance.state.lifecycle is Lifecycle.DELETED
        producer.produce(TASK_STATES.name, key=key, value=None if deleted else state)
        for each in published:
            producer.produce(
                TASK_NOTIFICATIONS.name,
                key=notification_key(each.corp_id, each.recipient_id),
                value=self._notifications.encode(each),
            )
        assert producer.flush(30) == 0

    def write_as_first_version(self, key: str) -> None:
        """Write an instance as the first version would have stored and published it."""
        registry = self._connection.registry
        schema_id = registry.learn_id(SchemaRef(TASK_STATES.subject, published_schema("TaskState", 1)))
        known = self._last[key.encode()]
        older = by_first_state_schema(bytes(known.value() or b""), schema_id=schema_id)
        producer = self._producer
        producer.produce(self.topic, key=key, value=older, partition=known.partition() or 0)
        producer.produce(TASK_STATES.name, key=key, value=None if age_of(older).is_deleted else state_value(older))
        assert producer.flush(30) == 0


def history(seed: int, key: str) -> list[TaskEvent]:
    """Events of one instance that are on no topic."""
    return [structs.replace(each, instance_id=key) for each in lives(1, seed=seed) if each.action is not Action.DELETED]


def folded(events: Iterable[TaskEvent], before: Instance | None = None) -> tuple[Instance, list[TaskNotification]]:
    published: list[TaskNotification] = []
    for event in events:
        after = fold(before, event)
        published += notifications(before, after, event)
        before = after
    assert before is not None
    return before, published


def test_wrong_states_are_corrected_while_events_arrive_and_facts_of_the_old_version_alone_remain(
    connection: Connection, workers: tuple[Worker, Worker], rebuild: Rebuild, read: Read, eventually: Any
) -> None:
    produce(connection, lives(150, seed=21))
    first, _ = workers
    first.start()
    processed(connection, [first], eventually)
    assert first.end(signal.SIGTERM) == 0

    stored = Stored(connection, read)
    alive = [key for key in stored.known if stored.instance(key).state.lifecycle is Lifecycle.ACTIVE]
    wrong = alive[::7]
    for number, key in enumerate(wrong):
        before = stored.instance(key)
        after, published = folded(history(number, key), before)
        stored.write(key, after, published)
    only_old, published = folded(history(1000, "only-old"))
    stored.write("only-old", only_old, published)

    before = ends(connection)
    tried = rebuild.run("--rebuild", "--dry-run")
    assert ends(connection) == before, "a dry run changes nothing"
    assert not rebuild.data_dir.exists(), "nor leaves anything behind"
    assert (tried["carried_over"], tried["switched"]) == (1, False)
    assert tried["states"] == len(wrong)

    for worker in workers:
        worker.start()
    processed(connection, workers, eventually)
    load = Load(connection, seed=22)
    try:
        found = rebuild.run()
        assert found["switched"]
        assert (found["carried_over"], found["states"]) == (1, len(wrong)), "what was on its way is no difference"
    finally:
        load.stop()
    assert versions(connection) == Versions(2)
    processed(connection, workers, eventually)
    for worker in workers:
        assert "streams_restarting" in worker.log_path.read_text()
    assert_all_is_right(connection, read, instances={**expected(connection, read), "only-old": only_old})
    codec = task_event_codec(connection.registry)
    others = [event for event in map(codec.decode, values(read, TASK_EVENTS.name)) if event.instance_id not in wrong]
    assert_notified_exactly_once(connection, read, others)

    again = rebuild.run("--rebuild", "--dry-run")
    assert (again["version"], again["states"], again["notifications"]) == (2, 0, 0), "right states do not change"
    for worker in workers:
        assert worker.end(signal.SIGTERM) == 0


KILLED_WHILE_PUBLISHING = """
import asyncio, os, signal
from taskbridge.streams.instances import task_agent, upkeep
upkeep._PUBLISHED = 2
write, left = task_agent.TaskAgent.write_changes, 15
async def counted(self, *arguments):
    global left
    left -= 1
    if left == 0:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGKILL)
    return await write(self, *arguments)
task_agent.TaskAgent.write_changes = counted
from taskbridge.streams.app import main
main()
"""
"""A worker that is killed during its fifteenth transaction of pending notifications, with most of them left."""


def test_changed_instances_are_published_once_by_workers_that_are_killed_meanwhile(
    connection: Connection, workers: tuple[Worker, Worker], rebuild: Rebuild, read: Read, eventually: Any
) -> None:
    produce(connection, lives(250, seed=33))
    first, _ = workers
    first.start()
    processed(connection, [first], eventually)
    assert first.end(signal.SIGTERM) == 0
    stored = Stored(connection, read)
    wrong = [key for key in stored.known if stored.instance(key).state.lifecycle is Lifecycle.ACTIVE]
    for number, key in enumerate(wrong):
        after, published = folded(history(number, key), stored.instance(key))
        stored.write(key, after, published)

    before = ends(connection)
    found = rebuild.run()
    assert (found["states"], found["switched"]) == (len(wrong), True)
    assert found["notifications"] > len(wrong)
    after = ends(connection)
    for topic in (TASK_NOTIFICATIONS.name, TASK_STATES.name):
        assert after[topic] == before[topic], "the switch publishes nothing: workers do"
    assert pending_notifications(connection) == set(map(str.encode, wrong))

    # A second rebuild takes over the pending notifications of the first.
    number = ends_of(connection, VERSION_TOPIC.name)[0]
    again = rebuild.run()
    assert (again["version"], again["states"], again["notifications"]) == (3, len(wrong), found["notifications"])
    load = Load(connection, seed=34)
    try:
        for worker in workers:
            left = len(pending_notifications(connection))
            worker.start(KILLED_WHILE_PUBLISHING)
            assert worker.exit_code(timeout_s=120) == -signal.SIGKILL
            assert 0 < len(pending_notifications(connection)) < left - 20, "some notifications are published"
        late = [each for key in sorted(pending_notifications(connection))[::3] for each in history(99, key.decode())]
        produce(connection, late)
    finally:
        load.stop()
    for worker in workers:
        worker.start()
    processed(connection, workers, eventually)
    assert_all_is_right(connection, read)
    codec = task_notification_codec(connection.registry)
    causes = {cause_of_rebuild(key, number) for key in wrong}
    all_published = [*map(codec.decode, values(read, TASK_NOTIFICATIONS.name))]
    ids = Counter(each.notification_id for each in all_published if each.event_id in causes)
    assert ids
    assert set(ids.values()) == {1}, "each is published once"
    late_ids, behind = {each.event_id for each in late}, set[tuple[str, str]]()
    for each in all_published:
        whose = (each.instance_id, each.recipient_id)
        assert each.event_id not in causes or whose not in behind, "pending ones come before those of later events"
        if each.event_id in late_ids:
            behind.add(whose)
    assert behind
    once_more = rebuild.run("--rebuild", "--dry-run")
    assert (once_more["states"], once_more["notifications"]) == (0, 0)


def cause_of_rebuild(key: str, number: int) -> str:
    """The id of the event that is the cause of a rebuild's notifications."""
    named = {"instance_id": key, "number": str(number)}
    return event_id_for(SOURCE_TASKBRIDGE, "rebuilt", named)


KILLED_AT = f"""
import os, signal
from taskbridge.streams.rebuild import operation
operation.{{}} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
{COMMAND}
"""
"""A rebuild that is killed before it announces the switch, or while it waits for the workers."""


def test_a_killed_rebuild_changes_nothing_and_the_next_one_completes(
    connection: Connection, workers: tuple[Worker, Worker], rebuild: Rebuild, read: Read, eventually: Any
) -> None:
    first, second = workers
    produce(connection, lives(200, seed=23))
    first.start()
    processed(connection, [first], eventually)

    for at in ("Operation.workers_stopped", "Workers.wait_until_gone"):
        assert rebuild.start(code=KILLED_AT.format(at)).wait(180) == -signal.SIGKILL
        assert any(ends_of(connection, instances_changelog(2).name).values()), "the new changelog is written"
        assert versions(connection).live == 1
    second.start()
    produce(connection, lives(50, seed=24))
    processed(connection, workers, eventually)
    assert versions(connection) == Versions(1)
    assert_all_is_right(connection, read)

    assert rebuild.run()["switched"]
    assert versions(connection) == Versions(2)
    processed(connection, workers, eventually)
    assert_all_is_right(connection, read)


def test_a_second_rebuild_is_refused(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    apply_topics(connection.admin(), [VERSION_TOPIC], partitions=1)
    consumer = consumer_config(connection.bootstrap_servers, REBUILD_ID)
    with alone(Offsets(consumer), consumer):
        monkeypatch.setattr("taskbridge.streams.rebuild.operation._ANSWER_S", 0)
        with pytest.raises(CannotRun, match="another rebuild is running"), alone(Offsets(consumer), consumer):
            pass


# In every run, test_worker_disasters.py has a rebuild from published states alone, and one from half of the events.
@pytest.mark.nightly
def test_what_events_lack_is_read_from_the_old_states_and_what_those_lack_from_published_states(
    connection: Connection, workers: tuple[Worker, Worker], rebuild: Rebuild, read: Read, eventually: Any
) -> None:
    worker, _ = workers
    events = lives(200, seed=25)
    produce(connection, events[:700])
    worker.start()
    processed(connection, [worker], eventually)
    cut = ends_of(connection, TASK_EVENTS.name)
    produce(connection, events[700:])
    processed(connection, [worker], eventually)
    right = expected(connection, read)
    assert worker.end(signal.SIGTERM) == 0
    # The retention of the first events is over.
    before = [TopicPartition(TASK_EVENTS.name, partition, end) for partition, end in cut.items()]
    admin = connection.admin()
    for each in cast("dict[TopicPartition, Any]", admin.delete_records(before)).values():
        each.result(60)

    stored = Stored(connection, read)
    for key in [key for key, each in right.items() if each.state.lifecycle is Lifecycle.ACTIVE][::5]:
        stored.write(key, right[key], [], value=b"\x01 of a format before")

    found = rebuild.run()
    assert found["built_upon"] > found["from_published"] > 0
    assert found["carried_over"] > 0
    assert found["lost"] == 0
    assert found["states"] <= found["from_published"], "only their revisions differ"
    assert_all_is_right(connection, read, instances=right, counted=False)

    # Now the changelog is lost too: what is left is what was published.
    changelog = instances_changelog(2).name
    admin.delete_topics([changelog])[changelog].result(60)
    eventually(lambda: changelog not in admin.list_topics(timeout=60).topics, what="it is gone")
    found = rebuild.run()
    assert found["from_published"] > 0
    assert versions(connection) == Versions(3)
    assert instances_changelog(1).name not in admin.list_topics(timeout=60).topics, "replaced before the last rebuild"
    worker.start()
    processed(connection, [worker], eventually)
    # Nothing is published of deleted instances: of those, only the events that are left are known.
    deleted = {key for key, each in right.items() if each.state.lifecycle is Lifecycle.DELETED}
    left = {key: each for key, each in expected(connection, read).items() if key in deleted}
    known = {key: each for key, each in right.items() if key not in deleted}
    assert_all_is_right(connection, read, instances={**known, **left}, counted=False)


# In every run, tests/unit/streams/test_native_core.py reads such states, and test_upgrade.py those of the last release.
@pytest.mark.nightly
def test_states_of_the_first_version_are_folded_further_and_a_rebuild_completes_them(
    connection: Connection, workers: tuple[Worker, Worker], rebuild: Rebuild, read: Read, eventually: Any
) -> None:
    worker, _ = workers
    events = lives(60, seed=31)
    produce(connection, events[:300])
    worker.start()
    processed(connection, [worker], eventually)
    assert worker.end(signal.SIGTERM) == 0
    stored = Stored(connection, read)
    for key in stored.known:
        stored.write_as_first_version(key)

    produce(connection, events[300:])
    worker.start()
    processed(connection, [worker], eventually)
    right = {key: each.state for key, each in expected(connection, read).items()}
    found = states_on_topic(connection, read)
    assert {without_details(each) for each in found.values()} == {without_details(right[key]) for key in found}, (
        "nothing that they stored is lost"
    )
    assert any(each.serial_no is None for each in found.values())

    done = rebuild.run()
    assert done["switched"]
    assert done["states"] > 0
    assert done["notifications"] > 0, "lines show how something was decided or ended"
    processed(connection, [worker], eventually)
    assert_all_is_right(connection, read, counted=False)


def without_details(state: TaskState) -> str:
    """The parts of an instance that the first version stored."""
    unknown: dict[str, Any] = dict.fromkeys((*DETAILS[:-1], "result"))
    tasks = tuple(structs.replace(each, outcome=None, remark=None) for each in state.tasks)
    return str(structs.replace(state, **unknown, tasks=tasks, revision=0, began_at=None, assignee_ids=()))


def values(read: Read, topic: str) -> list[bytes]:
    return [bytes(each.value() or b"") for each in read(topic)]
