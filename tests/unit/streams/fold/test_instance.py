"""The fold ends in the same instance in any order and repetition of events, and follows the contract's rules."""

from __future__ import annotations

from contextlib import suppress
from functools import reduce
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from taskbridge.schemas.events import Action, CopiedEntry, Lifecycle, Person, Status
from taskbridge.schemas.views import views
from taskbridge.streams.fold.instance import (
    EARLIEST,
    FORM_BYTES,
    LATEST,
    Instance,
    fold,
    from_published,
    published_form,
    unnamed_assignees,
)
from taskbridge.streams.fold.rejections import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from hypothesis.strategies import DataObject, SearchStrategy

    from taskbridge.schemas.events import TaskEvent

    MakeEvent = Callable[..., TaskEvent]


EVERY = ("*",)


def folded(events: Iterable[TaskEvent], form_fields: Collection[str] = ()) -> Instance:
    result: Instance | None = None
    for event in events:
        result = fold(result, event, form_fields)
    assert result is not None
    return result


def without_revision(instance: Instance) -> Instance:
    return replace(instance, state=replace(instance.state, revision=0))


@given(data=st.data())
def test_any_permutation_with_any_duplicates_ends_in_the_same_instance(
    histories: SearchStrategy[list[TaskEvent]], data: DataObject
) -> None:
    events = data.draw(histories)
    repeats = data.draw(st.lists(st.sampled_from(events), max_size=8))
    shuffled = data.draw(st.permutations(events + repeats))
    assert without_revision(folded(shuffled, EVERY)) == without_revision(folded(events, EVERY))


@given(data=st.data())
def test_a_repetition_at_any_later_time_changes_nothing(
    histories: SearchStrategy[list[TaskEvent]], data: DataObject
) -> None:
    events = data.draw(histories)
    instance = folded(events, EVERY)
    assert fold(instance, data.draw(st.sampled_from(events)), EVERY) is instance


class Compared(str):
    """A text that counts how often it is compared with another."""

    __slots__ = ()
    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return super().__eq__(other)

    __hash__ = str.__hash__


def test_a_repetition_with_many_people_compares_each_a_few_times(make_event: MakeEvent) -> None:
    def created() -> TaskEvent:
        people = tuple(Compared(f"{number:04}") for number in range(2000))
        return make_event(Action.CREATED, task_id="t", recipient_ids=people)

    instance = fold(None, created())
    Compared.times = 0
    fold(instance, created())
    assert Compared.times < 10 * 2000


@given(data=st.data())
def test_revision_counts_the_changes(histories: SearchStrategy[list[TaskEvent]], data: DataObject) -> None:
    revision = 0
    instance = None
    for event in data.draw(histories):
        after = fold(instance, event)
        revision += after is not instance
        instance = after
        assert instance.state.revision == revision


def test_complete_before_create_makes_a_shell_that_create_fills_in(make_event: MakeEvent) -> None:
    completed = make_event(Action.COMPLETED, task_id="T-1", actor_id="bob", occurred_at=5_000)
    shell = folded([completed])
    assert shell.state.title is None
    assert [(task.status, task.assignee_ids, task.created_at) for task in shell.state.tasks] == [
        (Status.COMPLETED, (), None)
    ]
    created = make_event(
        Action.CREATED,
        task_id="T-1",
        recipient_ids=("bob",),
        title="Visit",
        originator=Person("ann", "Ann"),
        occurred_at=1_000,
    )
    filled = fold(shell, created)
    assert filled.state.title == "Visit"
    assert filled.state.originator == Person("ann", "Ann")
    [task] = filled.state.tasks
    assert (task.status, task.assignee_ids, task.created_at, task.decided_at) == (
        Status.COMPLETED,
        ("bob",),
        1_000,
        5_000,
    )


def test_the_latest_writer_wins_each_fact_by_itself(make_event: MakeEvent) -> None:
    late = make_event(Action.CREATED, title="late", occurred_at=2_000)
    early = make_event(Action.CREATED, title="early", url="https://yida.example/1", occurred_at=1_000)
    for order in ([late, early], [early, late]):
        state = folded(order).state
        assert (state.title, state.url) == ("late", "https://yida.example/1")


def test_a_copy_also_states_facts(make_event: MakeEvent) -> None:
    assert folded([make_event(Action.COPIED, title="From cc", recipient_ids=("cai",))]).state.title == "From cc"


def test_assignees_are_the_union_over_a_tasks_creates(make_event: MakeEvent) -> None:
    events = [
        make_event(Action.CREATED, task_id="T-1", recipient_ids=("bob",), occurred_at=1_000),
        make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann",), occurred_at=2_000),
    ]
    assert folded(events).state.tasks[0].assignee_ids == ("ann", "bob")


@pytest.mark.parametrize(
    ("completed_at", "cancelled_at", "status"),
    [
        (2_000, 1_000, Status.COMPLETED),
        (1_000, 2_000, Status.CANCELLED),
        (1_000, 1_000, Status.COMPLETED),
    ],
)
def test_the_later_decision_holds_and_at_equal_times_completed(
    make_event: MakeEvent, completed_at: int, cancelled_at: int, status: Status
) -> None:
    # By the ids alone, the cancellation would hold.
    completed = make_event(Action.COMPLETED, event_id="1", task_id="T-1", actor_id="bob", occurred_at=completed_at)
    cancelled = make_event(Action.CANCELLED, event_id="2", task_id="T-1", actor_id="ann", occurred_at=cancelled_at)
    for order in ([completed, cancelled], [cancelled, completed]):
        [task] = folded(order).state.tasks
        assert task.status is status
        assert task.actor_id == ("bob" if status is Status.COMPLETED else "ann")


def test_copied_has_the_earliest_time(make_event: MakeEvent) -> None:
    events = [
        make_event(Action.COPIED, recipient_ids=("cai",), occurred_at=2_000),
        make_event(Action.COPIED, recipient_ids=("cai", "bob"), occurred_at=1_000),
        make_event(Action.COPIED, recipient_ids=("bob",), occurred_at=3_000),
    ]
    assert folded(events).state.copied == (CopiedEntry("bob", 1_000), CopiedEntry("cai", 1_000))


def test_a_deletion_is_not_undone_by_later_events(make_event: MakeEvent) -> None:
    deleted = make_event(Action.DELETED, occurred_at=1_000)
    late = make_event(Action.CREATED, title="late", occurred_at=9_000)
    assert folded([deleted, late]).state.lifecycle is Lifecycle.DELETED
    assert folded([deleted, late]).marks.deleted_at == 1_000


def test_an_instance_has_a_result_once_its_sender_reports_that_it_is_finished(make_event: MakeEvent) -> None:
    agreed = make_event(Action.CREATED, approved_result="agree", instance_status="COMPLETED", occurred_at=2_000)
    assert folded([agreed]).state.result is None
    finished = make_event(Action.CREATED, finished_at=1_900, occurred_at=3_000)
    state = folded([finished, agreed]).state
    assert (state.result, state.finished_at) == ("agree", 1_900)
    withdrawn = make_event(Action.CREATED, approved_result="", instance_status="TERMINATED", occurred_at=4_000)
    assert folded([agreed, withdrawn, finished]).state.result == "TERMINATED"


def test_a_state_has_the_named_fields_of_the_latest_form_and_by_default_none(make_event: MakeEvent) -> None:
    late = make_event(Action.CREATED, form_data={"days": "3", "reason": "ill"}, occurred_at=2_000)
    early = make_event(Action.CREATED, form_data={"days": "2"}, occurred_at=1_000)
    later = make_event(Action.COPIED, form_data={"reason": None}, occurred_at=3_000)
    for order in ([early, late, later], [later, late, early]):
        assert folded(order).state.form_data == {}
        assert folded(order, ("days",)).state.form_data == {"days": "3"}
        assert folded(order, EVERY).state.form_data == {"reason": None}


def test_a_tasks_outcome_and_remark_are_those_of_the_decision_that_holds(make_event: MakeEvent) -> None:
    task = {"task_id": "T-1", "actor_id": "ann"}
    first = make_event(Action.COMPLETED, **task, outcome="refuse", remark="no", occurred_at=1_000)
    last = make_event(Action.COMPLETED, **task, outcome="agree", occurred_at=2_000)
    for events in ([first, last], [last, first]):
        [entry] = folded(events).state.tasks
        assert (entry.outcome, entry.remark) == ("agree", None)


def test_an_event_of_another_corp_is_refused(make_event: MakeEvent) -> None:
    instance = folded([make_event(Action.CREATED)])
    with pytest.raises(Refused, match="the event to somebody-else"):
        fold(instance, make_event(Action.DELETED, corp_id="somebody-else"))


def test_a_token_of_another_app_completes_and_deletes_nothing(make_event: MakeEvent) -> None:
    instance = folded([make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann",))])
    for action in (Action.CREATED, Action.COMPLETED, Action.CANCELLED, Action.COPIED, Action.DELETED):
        forged = make_event(action, task_id="T-1", actor_id="eve", app_type="B", received_at=1_001, occurred_at=1)
        with pytest.raises(Refused, match="belongs to yida/APP, the event to yida/B"):
            fold(instance, forged)


def test_another_source_completes_and_deletes_nothing_though_its_app_has_the_same_name(make_event: MakeEvent) -> None:
    instance = folded([make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann",), source="flowable")])
    assert instance.state.source == "flowable"
    for action in (Action.CREATED, Action.COMPLETED, Action.CANCELLED, Action.COPIED, Action.DELETED):
        forged = make_event(action, task_id="T-1", actor_id="eve", received_at=1_001, occurred_at=1)
        with pytest.raises(Refused, match="belongs to flowable/APP, the event to yida/APP"):
            fold(instance, forged)


def test_a_forged_event_that_is_folded_first_does_not_own_the_instance(make_event: MakeEvent) -> None:
    """The genuine event was received before it, and waited in an edge's spool."""
    created = make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann",), originator=Person("bob"))
    for action in (Action.COMPLETED, Action.DELETED):
        forged = make_event(action, task_id="T-1", actor_id="eve", app_type="B", received_at=1_001)
        after = fold(folded([forged]), created)
        assert without_revision(after) == without_revision(folded([created]))
        assert after.state.revision == 2


@given(data=st.data())
def test_whose_instance_it_is_does_not_depend_on_the_order(
    histories: SearchStrategy[list[TaskEvent]], data: DataObject
) -> None:
    """Once the owner's dead letters are replayed, nothing depends on the order."""
    events = [
        replace(
            each,
            app_type=data.draw(st.sampled_from(("A", "B"))),
            source=data.draw(st.sampled_from(("yida", "flowable"))),
            received_at=data.draw(st.integers(1, 4)),
        )
        for each in data.draw(histories)
    ]
    owner = min((each.received_at, each.app_type, each.source) for each in events)[1:]
    theirs = [each for each in events if (each.app_type, each.source) == owner]
    found: Instance | None = None
    for event in data.draw(st.permutations(events)):
        with suppress(Refused):
            found = fold(found, event)
    assert found is not None
    assert (found.state.app_type, found.state.source) == owner
    found = reduce(fold, theirs, found)
    assert without_revision(found) == without_revision(folded(theirs))


def test_an_instance_stored_without_its_time_of_receipt_stays_with_its_app(
    make_event: MakeEvent,
) -> None:
    instance = folded([make_event(Action.CREATED)])
    older = replace(instance, marks=replace(instance.marks, first_received_at=EARLIEST))
    with pytest.raises(Refused, match="belongs to yida/APP, the event to yida/B"):
        fold(older, make_event(Action.DELETED, app_type="B", received_at=1))


def test_an_action_of_a_newer_schema_is_refused(make_event: MakeEvent) -> None:
    with pytest.raises(Refused, match="does not know the event's action"):
        fold(None, make_event(Action.UNKNOWN))


def test_the_same_event_once_more_changes_nothing(make_event: MakeEvent) -> None:
    event = make_event(Action.CREATED, task_id="T-1", recipient_ids=("bob",))
    instance = fold(None, event)
    assert instance.state.revision == 1
    assert fold(instance, event) is instance


def test_of_two_equal_decisions_the_one_with_the_greater_event_id_holds(make_event: MakeEvent) -> None:
    first, second = (
        make_event(Action.COMPLETED, event_id=event_id, task_id="T-1", actor_id=actor_id, occurred_at=1_000)
        for event_id, actor_id in (("1", "ann"), ("2", "bob"))
    )
    for order in ([first, second], [second, first]):
        instance = folded(order)
        assert instance.state.tasks[0].actor_id == "bob"
        assert instance.marks.tasks[0].actor_ids == ("ann", "bob")


def test_a_moment_before_1970_counts_like_any_other(make_event: MakeEvent) -> None:
    created = make_event(Action.CREATED, task_id="T-1", url="https://yida.example/1", occurred_at=-5_000)
    completed = make_event(Action.COMPLETED, task_id="T-1", actor_id="bob", occurred_at=-4_000)
    instance = folded([created, completed])
    [task] = instance.state.tasks
    assert (task.url, task.status, task.decided_at) == ("https://yida.example/1", Status.COMPLETED, -4_000)
    assert instance.marks.began_at == -5_000


def test_a_moment_fits_into_64_bits() -> None:
    assert (EARLIEST, LATEST) == (-(2**63), 2**63 - 1)


def test_tasks_are_in_the_order_of_their_ids_without_duplicates(make_event: MakeEvent) -> None:
    events = [
        make_event(action, event_id=f"{action}{task_id}", task_id=task_id, actor_id="bob", recipient_ids=("bob",))
        for action, task_id in (
            (Action.CREATED, "T-2"),
            (Action.CREATED, "T-1"),
            (Action.CREATED, "T-3"),
            (Action.COMPLETED, "T-1"),
            (Action.COMPLETED, "T-2"),
        )
    ]
    tasks = folded(events).state.tasks
    assert [(task.task_id, task.status) for task in tasks] == [
        ("T-1", Status.COMPLETED),
        ("T-2", Status.COMPLETED),
        ("T-3", Status.PENDING),
    ]


def test_a_later_create_that_has_no_url_leaves_the_tasks_url(make_event: MakeEvent) -> None:
    first = make_event(Action.CREATED, task_id="T-1", url="https://yida.example/1", occurred_at=1_000)
    second = make_event(Action.CREATED, task_id="T-1", occurred_at=2_000)
    assert folded([first, second]).state.tasks[0].url == "https://yida.example/1"


@given(data=st.data())
def test_a_state_publishes_its_beginning_and_the_assignees_whom_no_task_has_named(
    histories: SearchStrategy[list[TaskEvent]], data: DataObject
) -> None:
    instance = folded(data.draw(histories))
    state, marks = instance.state, instance.marks
    tasks = zip(state.tasks, marks.tasks, strict=True)
    named = {each for task, task_marks in tasks for each in (*task.assignee_ids, *task_marks.actor_ids)}
    assert state.began_at == marks.began_at
    assert state.assignee_ids == tuple(sorted({*marks.assignee_ids} - named))


@given(data=st.data())
def test_the_entries_of_a_state_are_the_same_after_its_events_in_any_order(
    histories: SearchStrategy[list[TaskEvent]], data: DataObject
) -> None:
    events = data.draw(histories)
    repeats = data.draw(st.lists(st.sampled_from(events), max_size=4))
    again = data.draw(st.permutations(events + repeats))
    assert views(folded(again).state) == views(folded(events).state)


@given(data=st.data())
def test_an_instance_of_which_only_the_state_is_left_has_the_same_entries(
    histories: SearchStrategy[list[TaskEvent]], data: DataObject
) -> None:
    state = folded(data.draw(histories)).state
    left = from_published(state)
    assert left.state == state
    assert unnamed_assignees(left.state, left.marks) == state.assignee_ids


def test_an_instance_of_which_only_an_older_state_is_left_began_at_its_earliest_time(make_event: MakeEvent) -> None:
    events = [
        make_event(Action.CREATED, originator=Person("ann"), occurred_at=500),
        make_event(Action.CREATED, task_id="T-1", recipient_ids=("bob",), occurred_at=2_000),
    ]
    older = replace(folded(events).state, began_at=None)
    left = from_published(older)
    assert (left.state.began_at, left.marks.began_at) == (2_000, 2_000)


FORMS = st.dictionaries(st.text(max_size=4), st.none() | st.text(max_size=9) | st.just("长" * 2_000), max_size=5)


def test_only_the_named_form_fields_are_published() -> None:
    form = {"b": "2", "a": None, "c": ""}
    assert list(published_form(form, {"*"}).items()) == [("a", None), ("b", "2"), ("c", "")]
    assert published_form(form, {"b", "d"}) == {"b": "2"}
    assert published_form(form, ()) == {}


def test_form_fields_that_do_not_fit_are_left_out_and_smaller_ones_may_still_fit() -> None:
    form = {"a": "x" * (FORM_BYTES - 4), "b": "长", "c": "zz"}
    assert published_form(form, {"*"}) == {"a": form["a"], "c": "zz"}
    assert published_form({"a": "x" * FORM_BYTES}, {"*"}) == {}


@given(FORMS)
def test_a_published_form_is_bounded_and_publishing_it_again_changes_nothing(form: dict[str, str | None]) -> None:
    found = published_form(form, {"*"})
    assert sum(len(name.encode()) + len((value or "").encode()) for name, value in found.items()) <= FORM_BYTES
    assert list(found.items()) == sorted(found.items(), key=lambda each: each[0])
    assert published_form(found, {"*"}) == found
