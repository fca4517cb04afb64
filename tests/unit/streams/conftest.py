"""Events of a small world, so that every kind of collision is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st

from support.records import event
from taskbridge.schemas.events import Action, Person, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

PEOPLE = ("ann", "bob", "cai")


_TEXTS = st.none() | st.sampled_from(("x", "y"))
# Put together once: what is drawn from is looked through when it is new, which took longer than the drawing.
_EVENTS = st.builds(
    event,
    action=st.sampled_from([action for action in Action if action is not Action.UNKNOWN]),
    event_id=st.uuids().map(str),
    task_id=st.none() | st.sampled_from(("T-1", "T-2")),
    actor_id=st.none() | st.sampled_from(PEOPLE),
    recipient_ids=st.lists(st.sampled_from(PEOPLE), max_size=2).map(tuple),
    originator=st.none() | st.builds(Person, st.sampled_from(PEOPLE), _TEXTS),
    title=_TEXTS,
    url=_TEXTS,
    process_code=_TEXTS,
    process_name=_TEXTS,
    form_uuid=_TEXTS,
    serial_no=_TEXTS,
    instance_status=_TEXTS,
    approved_result=_TEXTS | st.just(""),
    finished_at=st.none() | st.integers(1, 4),
    outcome=_TEXTS,
    remark=_TEXTS,
    step_name=_TEXTS,
    step_id=_TEXTS,
    decided_by=_TEXTS,
    due_at=st.none() | st.integers(1, 4),
    recovered_by=st.none() | st.just("reconcile"),
    form_data=st.dictionaries(st.sampled_from(("a", "b")), _TEXTS, max_size=2),
    created_at=st.none() | st.integers(1, 4),
    occurred_at=st.integers(1, 4),
)


@pytest.fixture
def make_event() -> Callable[..., TaskEvent]:
    return event


@pytest.fixture(scope="session")
def histories() -> SearchStrategy[list[TaskEvent]]:
    """The events of one instance, each with an id of its own."""
    return st.lists(_EVENTS, min_size=1, max_size=8, unique_by=lambda each: each.event_id)
