"""What a rebuild takes from the live version: the best known state, and whether events of it are lost."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, cast

import pytest

from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.events import Action
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.views import views
from taskbridge.streams.fold.instance import EARLIEST, LATEST, fold
from taskbridge.streams.fold.stored_instance import are_events_lost, pack, unpack
from taskbridge.streams.rebuild.copies import Located
from taskbridge.streams.rebuild.new_version import are_positions_lost, complete_from, known_state
from taskbridge.streams.transactions.positions import Bounds, RecordedPosition, write_position

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from taskbridge.schemas.events import TaskEvent
    from taskbridge.streams.fold.instance import Instance

HOUR_MS = 60 * 60 * 1000
STATES = task_state_codec(cast("Any", FakeRegistry()))
KEY = b"I-1"


@pytest.fixture
def instance(make_event: Callable[..., TaskEvent]) -> Instance:
    events = [
        make_event(Action.CREATED, title="first", recipient_ids=("ann",), task_id="T-1", occurred_at=1_000),
        make_event(Action.CREATED, recipient_ids=("bob",), occurred_at=2_000),
        make_event(Action.COMPLETED, task_id="T-1", actor_id="ann", occurred_at=3_000),
    ]
    return reduce(fold, events[1:], fold(None, events[0]))


def stored(instance: Instance) -> Located:
    return Located(3, pack(STATES.encode(instance.state), instance, now_ms=7))


def published(instance: Instance) -> Located:
    return Located(3, STATES.encode(instance.state))


def test_the_changelogs_state_is_used_as_it_is(instance: Instance) -> None:
    found = known_state(KEY, stored(instance), published(instance), STATES)
    assert found == (stored(instance).value, False)


@pytest.mark.parametrize("value", [None, b"", b"\x03 damaged"], ids=["missing", "empty", "damaged"])
def test_a_published_state_has_the_same_entries_and_needs_its_later_events(
    instance: Instance, value: bytes | None
) -> None:
    changelog = None if value is None else Located(3, value)
    found = known_state(KEY, changelog, published(instance), STATES)
    assert found is not None
    assert found.is_published
    assert are_events_lost(found.stored), "so it is never folded from nothing"
    assert views(unpack(found.stored, STATES).state) == views(instance.state)
    assert known_state(KEY, changelog, None, STATES) is None


def test_a_state_under_another_key_is_not_used(instance: Instance) -> None:
    assert known_state(b"I-2", stored(instance), None, STATES) is None


BOUNDS = {0: Bounds(0, 100), 1: Bounds(0, 100)}


@pytest.mark.parametrize(
    ("position", "lost"),
    [
        (RecordedPosition("events", 100), False),
        (RecordedPosition("events", 101), True),
        (RecordedPosition("events", 70, after_loss=True), True),
        (RecordedPosition("another", 70), True),
    ],
    ids=["all-there", "the-end-is-lost", "lost-before", "recreated"],
)
def test_a_loss_on_any_partition_counts(position: RecordedPosition, *, lost: bool) -> None:
    """Before the number of partitions grew, events of any instance may have been there."""
    written = {0: write_position(RecordedPosition("events", 70)), 1: write_position(position)}
    assert are_positions_lost(written.items(), events_id="events", bounds=BOUNDS) is lost


def test_an_unreadable_position_counts_as_a_loss() -> None:
    assert are_positions_lost([(0, b"nonsense")], events_id="events", bounds=BOUNDS)
    assert not are_positions_lost([], events_id="events", bounds=BOUNDS), "of a missing changelog"


class Events:
    """The events topic: the time of each record, by partition and offset."""

    def __init__(self, records: dict[int, dict[int, int]]) -> None:
        self._records = records

    def read(self, _topic: str, starts: dict[int, int], ends: dict[int, int]) -> Generator[list[Any]]:
        for partition, start in starts.items():
            for offset, at in self._records[partition].items():
                if start <= offset < ends[partition]:
                    yield []
                    yield [cast("Any", FakeMessage(partition, at))]


class FakeMessage:
    def __init__(self, partition: int, at: int) -> None:
        self._partition, self._at = partition, at

    def partition(self) -> int:
        return self._partition

    def timestamp(self) -> tuple[int, int]:
        return 1, self._at


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ({0: Bounds(0, 9), 1: Bounds(0, 0)}, EARLIEST),
        ({0: Bounds(3, 9), 1: Bounds(0, 0)}, 1_000 + HOUR_MS),
        ({0: Bounds(3, 9), 1: Bounds(5, 9)}, 7_000 + HOUR_MS),
        ({0: Bounds(3, 9), 1: Bounds(9, 9)}, LATEST),
        ({0: Bounds(7, 9), 1: Bounds(5, 9)}, LATEST),
    ],
    ids=["nothing-deleted", "one-cut", "the-later-of-two", "all-of-one-deleted", "only-markers-left"],
)
def test_events_are_complete_from_the_first_record_on_that_is_left_anywhere(
    bounds: dict[int, Bounds], found: int
) -> None:
    events = Events({0: {4: 1_000, 6: 500}, 1: {5: 7_000, 6: 100}})
    assert complete_from(cast("Any", events), bounds) == found
