"""A rebuild that changes every instance: wrong states to start with, its cost, and the cost of publishing."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace
from tests.bench.command import NotCounted
from tests.bench.services import wait_until
from tests.bench.sizing.holding import Worker, topic_bytes
from tests.bench.streams.records import Writer
from tests.bench.streams.seeds import instance_id
from tests.bench.streams.workload import Life

from taskbridge.runtime.kafka import consumer_config
from taskbridge.schemas import topics
from taskbridge.schemas.codec import task_event_codec, task_state_codec
from taskbridge.schemas.topics import TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.engine.joint_producer import JointProducer
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.stored_instance import pack
from taskbridge.streams.rebuild.command import rebuild
from taskbridge.streams.table_versions import instances_changelog
from taskbridge.streams.transactions.offsets import Offsets
from taskbridge.streams.transactions.positions import POSITION_KEY, RecordedPosition, write_position

if TYPE_CHECKING:
    from tests.bench.streams.setup import Setup


_TEMPLATES = 200
_CREATED_WITH_A_TASK = 1
"""Which of a life's events: it names originator and assignee, so that two people see the instance."""


def make_wrong_states(setup: Setup, instances: int) -> None:
    """One event of each instance on its topic; in changelog and states each has another title than in its event."""
    registry, servers = setup.registry, setup.bootstrap_servers
    for topic in topics.ALL:
        setup.kafka.create(topic.name, setup.partitions, topic.settings)
    setup.progress(f"writing {instances:,} instances")
    changelog = instances_changelog(1)
    setup.kafka.create(changelog.name, setup.partitions, changelog.settings)
    events, states = task_event_codec(registry), task_state_codec(registry)
    templates: list[tuple[bytes, bytes, bytes, bytes]] = []
    for number in range(_TEMPLATES):
        event = Life(number).event(_CREATED_WITH_A_TASK)
        wrong = fold(None, replace(event, title="wrong"))
        state = states.encode(wrong.state)
        stored = pack(state, wrong, now_ms=time.time_ns() // 1_000_000)
        templates.append((event.instance_id.encode(), events.encode(event), stored, state))
    writer = Writer(setup)
    for number in range(instances):
        key = instance_id(number).encode()
        old, event, stored, state = templates[number % _TEMPLATES]
        # Of the same length, so no length before it changes.
        writer.write(topics.TASK_EVENTS.name, key, event.replace(old, key))
        writer.write(changelog.name, key, stored.replace(old, key))
        writer.write(topics.TASK_STATES.name, key, state.replace(old, key))
    writer.finish()
    offsets = Offsets(consumer_config(servers, "bench"))
    topic_id = offsets.topic_id(topics.TASK_EVENTS.name)
    ends = offsets.ends(topics.TASK_EVENTS.name, range(setup.partitions))
    with closing(JointProducer({"bootstrap.servers": servers}, "bench")) as producer:
        producer.claim()
        with producer.transaction():
            for partition, end in ends.items():
                position = write_position(RecordedPosition(topic_id, end))
                producer.send(changelog.name, [(POSITION_KEY, position, [])], partition=partition)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Of so many instances, each of which differs after the rebuild."""

    instances: int
    notifications: int
    seconds: float
    cpu_s: float
    standstill_s: float
    """From the request that workers stop until the new version is live; no worker runs meanwhile."""
    publishing_s: float
    publishing_cpu_s: float
    changelog_bytes: int


def measure_rebuild(setup: Setup, instances: int) -> Rebuilt:
    """Raises NotCounted where not all of it is published."""
    kafka, partitions = setup.kafka, setup.partitions
    kafka.forget(APP_ID)
    kafka.delete([name for name in kafka.names() if name.startswith("taskbridge-streams-")])
    setup.progress(f"{instances:,} instances, each of which was folded wrongly")
    make_wrong_states(setup, instances)
    folder = setup.folder / f"rebuild-{instances}"
    environment = {
        "STREAMS_KAFKA_BOOTSTRAP_SERVERS": setup.bootstrap_servers,
        "STREAMS_SCHEMA_REGISTRY_URL": setup.registry_url,
        "STREAMS_DATA_DIR": str(folder),
    }
    began, cpu_before = time.monotonic(), time.process_time()
    steps: dict[str, float] = {}

    def print_line(line: str) -> None:
        setup.progress(line)
        steps[line.partition(" ")[0]] = time.monotonic()

    found = rebuild(environment, dry_run=False, report=print_line)
    ended, cpu_s = time.monotonic(), time.process_time() - cpu_before
    if (found["states"], found["instances"]) != (instances, instances):
        raise NotCounted(f"of {instances} instances {found['states']} differ after the rebuild: {found}")
    changelog_bytes = topic_bytes(setup, instances_changelog(2).name)
    before = sum(kafka.ends(TASK_STATES.name, partitions))
    with Worker(setup, f"publishing-{instances}") as worker:
        worker.until_ready(active=partitions)
        ready_cpu_s, ready = worker.cpu_s, time.monotonic()
        wait_until(lambda: worker.logged("rebuilt_instances_published") == partitions, "all is published")
        publishing_s, publishing_cpu_s = time.monotonic() - ready, worker.cpu_s - ready_cpu_s
        if sum(kafka.ends(TASK_STATES.name, partitions)) - before < instances:
            raise NotCounted("not every state is published")
    if sum(kafka.ends(TASK_NOTIFICATIONS.name, partitions)) < found["notifications"]:
        raise NotCounted("not every notification is published")
    return Rebuilt(
        instances,
        found["notifications"],
        ended - began,
        cpu_s,
        steps["version"] - steps["stopping"],
        publishing_s,
        publishing_cpu_s,
        changelog_bytes,
    )
