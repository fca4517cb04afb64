"""Rows are those of the views of the states, in any order and with any repetition."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from support.center_records import FakeTopic, Replica, changes_in, lines_in, lines_of, states_in, states_of
from support.streams.lives import lives
from taskbridge.schemas.events import Lifecycle

if TYPE_CHECKING:
    from taskbridge.center.database import Database


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_rows_equal_the_views_of_the_latest_states(database: Database, batch: int) -> None:
    states = states_of(lives(15, seed=batch))
    topic = FakeTopic()
    for each in states:
        topic.append_state(each)
    Replica(database, topic).follow(batch=batch, chance=random.Random(batch))
    assert lines_in(database) == lines_of(states)
    last = {each.instance_id: each for each in states}
    assert states_in(database) == {key: each for key, each in last.items() if each.lifecycle is Lifecycle.ACTIVE}
    folded: dict[tuple[str, str], set[tuple[str, str, str | None]]] = {}
    for person, found in changes_in(database).items():
        held = folded.setdefault(person, set())
        for each in found:
            line = each["view"], each["instance_id"], each["task_id"]
            assert (line in held) == (each["change"] != "ADDED")
            (held.discard if each["change"] == "REMOVED" else held.add)(line)
    assert {
        (*person, view.upper(), instance_id, task_id or "")
        for person, held in folded.items()
        for view, instance_id, task_id in held
    } == lines_of(states).keys()
