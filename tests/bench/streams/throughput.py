"""The reference job over a topic that is there already: events per second and per CPU second."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.command import NotCounted
from tests.bench.streams.checker import Decoder, Notified, check_notifications, check_states
from tests.bench.streams.records import read_all
from tests.bench.streams.running import Running, drop_topics, make_topics

from taskbridge.schemas.topics import TASK_NOTIFICATIONS, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.streams.checker import Reference
    from tests.bench.streams.contenders import Channels, Contender
    from tests.bench.streams.records import Found
    from tests.bench.streams.running import Clock
    from tests.bench.streams.setup import Setup

WARM_UP = 1 / 2
"""The share of the notifications that passes before the clock starts: start-up, first fetches, the JIT compiler."""

_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Window:
    """The measured part of one run."""

    per_second: float
    per_cpu_second: float
    peak_mb: float
    seconds: float
    notifications: int
    states: int
    """Records on the states topic: a contender may publish one for several events."""


def measure(
    contender: Contender,
    setup: Setup,
    topic: str,
    reference: Reference,
    label: str,
) -> Window:
    """Run the contender over the topic, check what it wrote, and read its clock.

    Raises:
        NotCounted: the outputs are not what they should be, or it did not get through.
    """
    channels = contender.channels(label, topic)
    folder = setup.folder / f"{contender.name}-{label}"
    make_topics(setup, channels)
    with Running(contender, channels, folder, timeout_s=_TIMEOUT_S) as running:
        running.wait_until_consumed(setup)
        clock, peak_mb = running.clock, running.peak_mb
    try:
        return _read(setup, channels, reference, clock, peak_mb)
    except NotCounted as error:
        raise NotCounted(f"{contender.name}: {error}") from error
    finally:
        drop_topics(setup, channels)
        shutil.rmtree(folder, ignore_errors=True)


def _read(setup: Setup, channels: Channels, reference: Reference, clock: Clock, peak_mb: float) -> Window:
    last: dict[bytes, bytes | None] = {}
    states, ended = 0, 0.0
    for found in read_all(setup, channels.states):
        last[found.key] = found.value
        states, ended = states + 1, max(ended, found.at)
    check_states(reference, last, Decoder("TaskState", setup.schema_id(TASK_STATES)))
    moments: list[float] = []
    decoder = Decoder("TaskNotification", setup.schema_id(TASK_NOTIFICATIONS))
    count = check_notifications(reference, _notified(read_all(setup, channels.notifications), moments), decoder)
    moments.sort()
    began, ended = moments[int(count * WARM_UP)], max(ended, moments[-1])
    events = reference.events_behind(WARM_UP)
    cpu_s = clock.cpu_at(ended) - clock.cpu_at(began)
    if not cpu_s:
        raise NotCounted("its CPU time was not read while it worked")
    return Window(
        per_second=events / (ended - began),
        per_cpu_second=events / cpu_s,
        peak_mb=peak_mb,
        seconds=ended - began,
        notifications=count,
        states=states,
    )


def _notified(records: Iterator[Found], moments: list[float]) -> Iterator[Notified]:
    for found in records:
        moments.append(found.at)
        yield Notified(found.key, found.value or b"", found.ce_id)
