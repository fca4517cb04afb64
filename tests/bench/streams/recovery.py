"""How long a worker with an empty disk takes to rebuild its states from the changelog."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace
from tests.bench.command import NotCounted
from tests.bench.streams.checker import Decoder, Reference, check_states
from tests.bench.streams.records import Writer, fill, read_all
from tests.bench.streams.running import Running, drop_topics, make_topics
from tests.bench.streams.seeds import Seeds
from tests.bench.streams.workload import Life

from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES

if TYPE_CHECKING:
    from tests.bench.streams.contenders import Contender
    from tests.bench.streams.setup import Setup

_TIMEOUT_S = 1800.0
_PROVEN = 200
"""How many instances get an event after the restart, to show that their states are there."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What rebuilding took beyond a start without any states."""

    states: int
    seconds: float
    cpu_us: float
    """For each state."""
    peak_mb: float

    @property
    def per_second(self) -> float:
        return self.states / self.seconds


def measure_recovery(contender: Contender, setup: Setup, states: int, label: str) -> Restored:
    """Start the contender on an empty disk, first without states, then with a changelog of so many.

    The difference is what rebuilding takes: process start, joining the group and the rest are in both. Counts only if
    events that come afterwards find their instances as they were.

    Raises:
        NotCounted: they do not, or it was not ready in time.
    """
    channels = contender.channels(f"{label}-empty", TASK_EVENTS.name)
    folder = setup.folder / f"{contender.name}-{label}"
    setup.kafka.create(TASK_EVENTS.name, setup.partitions, {})
    make_topics(setup, channels)
    with Running(contender, channels, folder, timeout_s=_TIMEOUT_S) as empty:
        pass
    drop_topics(setup, channels)
    shutil.rmtree(folder, ignore_errors=True)
    channels = contender.channels(f"{label}-full", TASK_EVENTS.name)
    make_topics(setup, channels)
    seeds = Seeds(contender.name, setup)
    fill(setup, channels.changelog, seeds.records(states), what=f"of {states:,} states for {contender.name}")
    setup.progress(f"{contender.name} rebuilds {states:,} states")
    with Running(contender, channels, folder, timeout_s=_TIMEOUT_S) as full:
        seconds, cpu_s = full.ready_s - empty.ready_s, full.ready_cpu_s - empty.ready_cpu_s
        reference = _go_on(setup, seeds, states)
        full.wait_until_consumed(setup)
    last = {found.key: found.value for found in read_all(setup, channels.states)}
    drop_topics(setup, channels)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        check_states(reference, last, Decoder("TaskState", setup.schema_id(TASK_STATES)))
    except NotCounted as error:
        raise NotCounted(f"{contender.name}, after rebuilding: {error}") from error
    if seconds <= 0:
        raise NotCounted(f"{contender.name} rebuilds {states:,} states in no time: give more --states")
    return Restored(states=states, seconds=seconds, cpu_us=cpu_s / states * 1e6, peak_mb=full.peak_mb)


def _go_on(setup: Setup, seeds: Seeds, states: int) -> Reference:
    """Write events of some instances; returns what their states must come to."""
    codec, writer, reference = task_event_codec(setup.registry), Writer(setup), Reference()
    for number in random.Random(states).sample(range(states), min(_PROVEN, states)):
        instance = seeds.instance(number)
        event = replace(Life(number + 1).event(7), instance_id=instance.state.instance_id)
        key = event.instance_id.encode()
        reference.instances[key] = instance
        reference.apply(key, event)
        writer.write(TASK_EVENTS.name, key, codec.encode(event))
    writer.finish()
    return reference
