"""A system every one of whose instances was folded wrongly: what a rebuild has the most to do with."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec.structs import replace
from tests.bench.streams.records import Writer
from tests.bench.streams.seeds import instance_id
from tests.bench.streams.workload import Life

from taskbridge.runtime.kafka import consumer_config
from taskbridge.schemas import topics
from taskbridge.schemas.codec import task_event_codec, task_state_codec
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.stored_instance import pack
from taskbridge.streams.offsets import Offsets
from taskbridge.streams.positions import POSITION_KEY, RecordedPosition, write_position
from taskbridge.streams.table_versions import instances_changelog
from taskbridge.streams.transactions.bulk_producer import TransactionalWriter

if TYPE_CHECKING:
    from tests.bench.streams.setup import Setup

_TEMPLATES = 200
_CREATED_WITH_A_TASK = 1
"""Which of a life's events: it names originator and assignee, so that two people see the instance."""
_OFFSET = (1,)
"""Where the only event of an instance may be: on its partition, and not the first."""


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
        stored = pack(state, wrong, _OFFSET, now_ms=time.time_ns() // 1_000_000)
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
    producer = TransactionalWriter({"bootstrap.servers": servers}, "bench")
    producer.claim()
    with producer.transaction():
        for partition, end in ends.items():
            position = write_position(RecordedPosition(topic_id, end))
            producer.write(changelog.name, POSITION_KEY, position, partition=partition)
