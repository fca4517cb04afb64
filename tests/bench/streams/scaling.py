"""The cost of an event, and the memory of a worker, as the number of instances grows."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace
from tests.bench.streams.checker import Decoder, Reference, check_states
from tests.bench.streams.records import Writer, fill, read_all
from tests.bench.streams.running import Running, drop_topics, make_topics
from tests.bench.streams.seeds import Seeds, instance_id
from tests.bench.streams.throughput import WARM_UP
from tests.bench.streams.workload import workload

from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.streams.contenders import Contender
    from tests.bench.streams.setup import Setup

INSTANCES = (10_000, 100_000, 1_000_000)

_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Scaled:
    cpu_us: float
    """For each event."""
    per_second: float
    memory_mb: float
    """Resident, after the last event."""


def measure_scaling(contender: Contender, setup: Setup, *, instances: int, events: int, label: str) -> Scaled:
    """Rebuild so many instances, then process events that are spread over all of them at random.

    Raises:
        NotCounted: a state is not what it should be.
    """
    channels = contender.channels(label, TASK_EVENTS.name)
    folder = setup.folder / f"{contender.name}-{label}"
    setup.kafka.create(TASK_EVENTS.name, setup.partitions, {})
    make_topics(setup, channels)
    seeds = Seeds(contender.name, setup)
    fill(setup, channels.changelog, seeds.records(instances), what=f"of {instances:,} states")
    records, reference = _spread(setup, seeds, instances, events)
    with Running(contender, channels, folder, timeout_s=_TIMEOUT_S) as running:
        writer = Writer(setup)
        for key, value in records:
            writer.write(TASK_EVENTS.name, key, value)
        writer.finish()
        running.wait_until_consumed(setup)
        clock, memory_mb = running.clock, running.memory_mb
    moments: list[float] = []
    last: dict[bytes, bytes | None] = {}
    for found in read_all(setup, channels.states):
        last[found.key] = found.value
        moments.append(found.at)
    check_states(reference, last, Decoder("TaskState", setup.schema_id(TASK_STATES)))
    moments += [found.at for found in read_all(setup, channels.notifications)]
    drop_topics(setup, channels)
    shutil.rmtree(folder, ignore_errors=True)
    moments.sort()
    began, ended = moments[int(len(moments) * WARM_UP)], moments[-1]
    counted = events * (1 - WARM_UP)
    cpu_s = clock.cpu_at(ended) - clock.cpu_at(began)
    return Scaled(cpu_us=cpu_s / counted * 1e6, per_second=counted / (ended - began), memory_mb=memory_mb)


def _spread(setup: Setup, seeds: Seeds, instances: int, events: int) -> tuple[Sequence[tuple[bytes, bytes]], Reference]:
    """All records are encoded first: an event costs more the slower they come, and so the fewer share a chunk."""
    codec, records, reference = task_event_codec(setup.registry), list[tuple[bytes, bytes]](), Reference()
    chance = random.Random(instances)
    for _, event in workload(events):
        number = chance.randrange(instances)
        moved = replace(event, instance_id=instance_id(number))
        key = moved.instance_id.encode()
        if key not in reference.instances:
            reference.instances[key] = seeds.instance(number)
        reference.apply(key, moved)
        records.append((key, codec.encode(moved)))
    return records, reference
