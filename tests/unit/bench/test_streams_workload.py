"""The reference job's input is as the benchmark's page describes it, and equal at every run."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from tests.bench.streams.workload import EVENTS_PER_INSTANCE, workload

from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.events import Action
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.views import notifications

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskEvent
    from taskbridge.streams.fold.instance import Instance

_EVENTS = 5000


@pytest.fixture(scope="module")
def produced() -> list[tuple[bytes, TaskEvent]]:
    return list(workload(_EVENTS))


def test_it_is_the_same_at_every_run(produced: list[tuple[bytes, TaskEvent]]) -> None:
    assert list(workload(_EVENTS)) == produced


def test_another_seed_is_another_input(produced: list[tuple[bytes, TaskEvent]]) -> None:
    assert next(workload(_EVENTS, seed=1)) != produced[0]


def test_every_instance_has_ten_events_under_its_id(produced: list[tuple[bytes, TaskEvent]]) -> None:
    assert all(key == event.instance_id.encode() for key, event in produced)
    counts = Counter(key for key, _ in produced)
    assert len(counts) == _EVENTS // EVENTS_PER_INSTANCE
    assert set(counts.values()) == {EVENTS_PER_INSTANCE}


def test_an_event_has_some_900_bytes(produced: list[tuple[bytes, TaskEvent]]) -> None:
    codec = task_event_codec(FakeRegistry())
    sizes = [len(codec.encode(event)) for _, event in produced[::5]]
    assert 800 < sum(sizes) / len(sizes) < 1000


def test_an_event_makes_less_than_two_notifications(produced: list[tuple[bytes, TaskEvent]]) -> None:
    instances: dict[bytes, Instance] = {}
    made = 0
    for key, event in produced:
        before = instances.get(key)
        instances[key] = fold(before, event)
        made += len(notifications(before, instances[key], event))
    assert 1.6 < made / len(produced) < 1.9


def test_all_five_actions_and_repeats_and_wrong_orders_occur(produced: list[tuple[bytes, TaskEvent]]) -> None:
    lives: defaultdict[bytes, list[TaskEvent]] = defaultdict(list)
    for key, event in produced:
        lives[key].append(event)
    assert {event.action for _, event in produced} == set(Action) - {Action.UNKNOWN}
    assert any(len({event.event_id for event in life}) < len(life) for life in lives.values())
    assert any(life != sorted(life, key=lambda event: event.occurred_at) for life in lives.values())


def test_instances_live_side_by_side(produced: list[tuple[bytes, TaskEvent]]) -> None:
    met = {key for key, _ in islice(produced, _EVENTS // 4)}
    assert len(met) > 0.9 * _EVENTS // EVENTS_PER_INSTANCE
