"""Each part of a stored instance can be read and replaced without decoding the others."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import pytest

from support.streams.fold_inputs import by_version_with_offsets
from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.events import Action
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.stored_instance import (
    Age,
    age_of,
    are_events_lost,
    contents,
    pack,
    restamped,
    shown,
    unpack,
    with_events_lost,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.schemas.events import TaskEvent
    from taskbridge.streams.fold.instance import Instance

STATES = task_state_codec(FakeRegistry())


def instance_of(first: TaskEvent, *events: TaskEvent) -> Instance:
    return reduce(fold, events, fold(None, first))


@pytest.fixture
def pending(make_event: Callable[..., TaskEvent]) -> Instance:
    return instance_of(make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann",)))


def test_replacing_a_part_does_not_change_the_others(pending: Instance) -> None:
    value = STATES.encode(pending.state)
    stored = pack(value, pending, now_ms=7)
    assert restamped(stored, written_ms=9) == pack(value, pending, now_ms=9)
    lost = with_events_lost(stored)
    assert lost == with_events_lost(lost) == pack(value, pending, now_ms=7, events_lost=True)
    assert contents(lost) == contents(stored)


@pytest.mark.parametrize(("offsets", "lost"), [((0,), False), ((3, 70_000), False), ((0, 0), True), ((0, 0, 9), True)])
def test_the_offsets_of_an_older_version_tell_only_whether_events_are_lost(
    pending: Instance, offsets: tuple[int, ...], *, lost: bool
) -> None:
    stored = pack(STATES.encode(pending.state), pending, now_ms=7)
    older = by_version_with_offsets(stored, offsets)
    assert older != stored
    assert contents(older) == contents(stored)
    assert are_events_lost(older) is shown(older, STATES).events_lost is lost
    assert unpack(older, STATES) == pending
    assert with_events_lost(older) == with_events_lost(stored)


def test_its_age_shows_whether_anything_is_pending(pending: Instance, make_event: Callable[..., TaskEvent]) -> None:
    completed = fold(pending, make_event(Action.COMPLETED, task_id="T-1", actor_id="ann"))
    deleted = fold(completed, make_event(Action.DELETED))
    ages = [age_of(pack(STATES.encode(each.state), each, now_ms=7)) for each in (pending, completed, deleted)]
    assert ages == [
        Age(is_deleted=False, is_finished=False, written_ms=7),
        Age(is_deleted=False, is_finished=True, written_ms=7),
        Age(is_deleted=True, is_finished=False, written_ms=7),
    ]
