"""A recovered decision holds before the callback of the same decision, in any order, and before no other."""

from __future__ import annotations

from functools import reduce
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.schemas.events import Action, Change, Person, Status, View
from taskbridge.schemas.views import EntryKey, views
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.views import notifications

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DataObject, SearchStrategy

    from taskbridge.schemas.events import TaskEntry, TaskEvent, TaskNotification
    from taskbridge.streams.fold.instance import Instance

    MakeEvent = Callable[..., TaskEvent]

HANDLED = EntryKey("ann", View.HANDLED, "T-1")


def folded(events: list[TaskEvent]) -> Instance:
    instance = reduce(fold, events, None)
    assert instance is not None
    return instance


def task_of(*events: TaskEvent) -> TaskEntry:
    """The one task, after checking that every order of the events gives the same."""
    found = [folded([*order]).state.tasks for order in permutations(events)]
    assert all(each == found[0] for each in found)
    [task] = found[0]
    return task


@pytest.fixture
def completed(make_event: MakeEvent) -> Callable[..., TaskEvent]:
    def made(**fields: Any) -> TaskEvent:
        return make_event(Action.COMPLETED, **{"task_id": "T-1", "actor_id": "ann", **fields})

    return made


@pytest.fixture
def recovered(completed: MakeEvent) -> Callable[..., TaskEvent]:
    def made(**fields: Any) -> TaskEvent:
        return completed(**{"recovered_by": "reconcile", "outcome": "agree", "occurred_at": 1_000, **fields})

    return made


def test_the_recovered_decision_has_the_moment_and_the_outcome(completed: MakeEvent, recovered: MakeEvent) -> None:
    for at in (900, 1_000, 1_700):
        task = task_of(recovered(), completed(occurred_at=at))
        assert (task.decided_at, task.outcome, task.actor_id) == (1_000, "agree", "ann")


def test_the_later_recovered_decision_holds(recovered: MakeEvent) -> None:
    task = task_of(recovered(), recovered(occurred_at=2_000, outcome="disagree"))
    assert (task.decided_at, task.outcome) == (2_000, "disagree")


def test_a_callback_without_an_actor_gives_way_to_the_recovered_decision(
    completed: MakeEvent, recovered: MakeEvent
) -> None:
    assert task_of(recovered(), completed(actor_id=None, occurred_at=1_700)).actor_id == "ann"
    assert task_of(completed(), completed(actor_id=None, occurred_at=1_700)).actor_id is None


def test_a_recovered_decision_without_an_actor_gives_way_to_a_later_one(
    completed: MakeEvent, recovered: MakeEvent
) -> None:
    assert task_of(recovered(actor_id=None), completed(occurred_at=1_700)).actor_id == "ann"
    assert task_of(recovered(actor_id=None), completed(occurred_at=900)).actor_id is None


def test_the_later_decision_of_another_actor_holds(completed: MakeEvent, recovered: MakeEvent) -> None:
    forwarded, late = recovered(outcome="forward"), completed(occurred_at=1_700)
    assert task_of(forwarded, late, completed(actor_id="bob", occurred_at=1_500)).actor_id == "bob"
    task = task_of(forwarded, late, recovered(actor_id="bob", occurred_at=1_400))
    assert (task.actor_id, task.decided_at, task.outcome) == ("bob", 1_400, "agree")


def test_a_decision_between_the_recovered_time_and_its_callbacks_time_holds(
    completed: MakeEvent, recovered: MakeEvent
) -> None:
    between = completed(actor_id="bob", occurred_at=1_500, remark="mine")
    task = task_of(completed(occurred_at=1_700), between, recovered())
    assert (task.actor_id, task.decided_at, task.remark) == ("bob", 1_500, "mine")


def test_the_later_cancellation_holds_by_any_actor_recovered_or_not(
    make_event: MakeEvent, recovered: MakeEvent
) -> None:
    """The API does not return when a task was cancelled: a repair states the earliest possible time."""
    cancelled = make_event(Action.CANCELLED, task_id="T-1", actor_id="eve", occurred_at=3_000)
    found = make_event(Action.CANCELLED, task_id="T-1", occurred_at=2_000, recovered_by="reconcile")
    task = task_of(recovered(), cancelled, found)
    assert (task.status, task.decided_at, task.actor_id) == (Status.CANCELLED, 3_000, "eve")
    assert task_of(recovered(occurred_at=2_500), found).status is Status.COMPLETED


def test_at_equal_times_the_greater_event_id_holds_then_the_greater_actor(
    completed: MakeEvent, recovered: MakeEvent
) -> None:
    assert task_of(completed(event_id="1", actor_id="bob"), completed(event_id="2")).actor_id == "ann"
    again = recovered(event_id="2", outcome="disagree")
    assert task_of(recovered(event_id="1"), again).outcome == "disagree"
    # No sender of ours uses one id twice; if one does, the result is still the same in any order.
    assert task_of(*(completed(event_id="1", actor_id=each) for each in ("ann", "bob", None))).actor_id == "bob"


def test_who_decided_is_of_the_decision_that_holds(completed: MakeEvent, recovered: MakeEvent) -> None:
    by_rule = completed(occurred_at=1_500, decided_by="AUTOMATIC")
    assert task_of(by_rule).decided_by == "AUTOMATIC"
    assert task_of(by_rule, completed(actor_id="bob", occurred_at=1_600)).decided_by is None
    assert task_of(by_rule, recovered(decided_by="DELEGATE")).decided_by == "DELEGATE"
    assert task_of(completed(decided_by="a word of later")).decided_by == "a word of later"


def test_the_latest_statement_about_a_step_holds(make_event: MakeEvent, completed: MakeEvent) -> None:
    created = make_event(Action.CREATED, task_id="T-1", occurred_at=1_000, step_name="Manager", step_id="n1", due_at=9)
    task = task_of(created, completed(occurred_at=2_000, step_name="Head of department"))
    assert (task.step_name, task.step_id, task.due_at) == ("Head of department", "n1", 9)
    postponed = make_event(Action.CREATED, task_id="T-1", occurred_at=1_500, due_at=12)
    assert task_of(postponed, created).due_at == 12


def test_an_entry_of_a_task_names_its_step_and_one_of_the_instance_none(make_event: MakeEvent) -> None:
    described: dict[str, Any] = {"step_name": "Manager", "step_id": "n1", "due_at": 9}
    created = make_event(
        Action.CREATED, originator=Person("bob"), task_id="T-1", recipient_ids=("ann",), decided_by="x", **described
    )
    shown = views(folded([created]).state)
    pending, whole = shown[EntryKey("ann", View.PENDING, "T-1")], shown[EntryKey("bob", View.CREATED, None)]
    assert (pending.step_name, pending.step_id, pending.due_at, pending.decided_by) == ("Manager", "n1", 9, None)
    assert (whole.step_name, whole.step_id, whole.due_at) == (None, None, None)


@given(data=st.data())
def test_a_late_callback_of_a_recovered_decision_changes_no_entry(
    histories: SearchStrategy[list[TaskEvent]], make_event: MakeEvent, data: DataObject
) -> None:
    decision: dict[str, Any] = {"task_id": "T-1", "actor_id": "ann"}
    at = data.draw(st.integers(1, 4))
    repair = make_event(Action.COMPLETED, **decision, occurred_at=at, recovered_by="reconcile", outcome="agree")
    before = folded([*data.draw(histories), repair])
    if data.draw(st.booleans()):
        decision["actor_id"] = data.draw(st.none() | st.just("ann"))
    late = make_event(Action.COMPLETED, **decision, occurred_at=at + data.draw(st.integers(0, 9)))
    after = fold(before, late)
    assert after.state.tasks == before.state.tasks
    assert views(after.state) == views(before.state)


def published(before: Instance, event: TaskEvent) -> list[tuple[str, View, Change, str | None, str | None, str | None]]:
    sent: list[TaskNotification] = notifications(before, fold(before, event), event)
    return [(each.recipient_id, each.view, each.change, each.outcome, each.result, each.recovered_by) for each in sent]


def test_the_outcome_updates_the_actors_entry_and_not_its_place(
    make_event: MakeEvent, completed: MakeEvent, recovered: MakeEvent
) -> None:
    created = make_event(Action.CREATED, originator=Person("bob"), task_id="T-1", recipient_ids=("ann",))
    before = folded([created, completed(occurred_at=2_000)])
    read_back = recovered(occurred_at=2_000, recovered_by="read-back", remark="fine")
    assert published(before, read_back) == [("ann", View.HANDLED, Change.UPDATED, "agree", None, "read-back")]
    line, known = views(fold(before, read_back).state)[HANDLED], views(before.state)[HANDLED]
    assert (line.entered_at, line.updated_at) == (known.entered_at, known.updated_at) == (2_000, 2_000)
    assert line.remark == "fine"


def test_the_end_of_the_instance_updates_the_entries_of_originator_and_copied_people(
    make_event: MakeEvent, completed: MakeEvent
) -> None:
    created = make_event(Action.CREATED, originator=Person("bob"), task_id="T-1", recipient_ids=("ann",))
    copied = make_event(Action.COPIED, recipient_ids=("cai",))
    before = folded([created, copied, completed(occurred_at=2_000)])
    # Of no task: it states facts alone.
    ended = completed(task_id=None, occurred_at=2_500, finished_at=2_400, approved_result="agree")
    assert published(before, ended) == [
        ("bob", View.CREATED, Change.UPDATED, None, "agree", None),
        ("cai", View.COPIED, Change.UPDATED, None, "agree", None),
    ]
    lines = views(fold(before, ended).state)
    assert {(each.finished_at, each.entered_at, each.updated_at) for key, each in lines.items() if key != HANDLED} == {
        (2_400, 1_000, 2_000)
    }
    assert (lines[HANDLED].finished_at, lines[HANDLED].result) == (None, None)
