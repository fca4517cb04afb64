"""After the repairs everybody sees the lists of a bridge that lost nothing. A late callback changes no list.

The properties run over lives of instances: some callbacks arrive, DingTalk is read, repairs are published, and then
the other callbacks arrive after all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from support.reconcile import APP_TYPE, CORP_ID, MINUTE_MS, NOW, assigned, filed, happened
from taskbridge.dingtalk import wire
from taskbridge.local.fake_answers import by_minute
from taskbridge.local.fake_dingtalk import (
    Company,
    instance_answer,
    operation_records_answer,
    running_tasks_answer,
)
from taskbridge.reconcile.repairs import LOST, Kind, deletion, differences, needs_details
from taskbridge.reconcile.snapshots import Snapshot, decisions
from taskbridge.schemas.events import Action, Person, Status
from taskbridge.schemas.views import views
from taskbridge.streams.fold.instance import fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from taskbridge.schemas.events import TaskEvent, TaskState
    from taskbridge.schemas.views import Entries
    from taskbridge.streams.fold.instance import Instance

PEOPLE = ("u-li", "u-wang", "u-chen", "u-zhao")


@dataclass(frozen=True)
class Life:
    callbacks: tuple[TaskEvent, ...]
    arrived: tuple[TaskEvent, ...]
    """Those that arrived in time, in some order."""

    @property
    def late(self) -> list[TaskEvent]:
        return [each for each in self.callbacks if each not in self.arrived]


@st.composite
def lives(draw: st.DrawFn) -> Life:
    at = NOW - 600 * MINUTE_MS + draw(st.integers(0, MINUTE_MS))

    def later() -> int:
        nonlocal at
        at += draw(st.integers(1, 3 * MINUTE_MS))
        return at

    start = at
    callbacks = [filed(at=start, instance_status=wire.RUNNING)]
    outcome = None
    for number in range(draw(st.integers(1, 3))):
        task_id = f"T-{number}"
        people = draw(st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=3, unique=True))
        callbacks.append(assigned(task_id, *people, at=later(), instance_status=wire.RUNNING))
        if draw(st.booleans()) and len(people) > 1:
            callbacks.append(assigned(task_id, people[-1], at=later()))
        outcome = draw(st.sampled_from([None, wire.AGREE, wire.AGREE, wire.DISAGREE, wire.REVOKED]))
        if outcome is None:
            break
        actor = "u-zhang" if outcome == wire.REVOKED else draw(st.sampled_from(people))
        action = Action.CANCELLED if outcome == wire.REVOKED else Action.COMPLETED
        callbacks.append(happened(action, later(), task_id=task_id, actor_id=actor))
        if outcome != wire.AGREE:
            break
    if outcome is not None:
        status = wire.TERMINATED if outcome == wire.REVOKED else wire.COMPLETED
        result = None if outcome == wire.REVOKED else outcome
        end = later()
        ended = {"instance_status": status, "approved_result": result, "finished_at": end, "created_at": start}
        callbacks.append(filed("I-1", end, event_id="ended", **ended))
        copied = draw(st.lists(st.sampled_from(PEOPLE), max_size=2, unique=True))
        callbacks += [happened(Action.COPIED, later(), recipient_ids=(each,)) for each in copied]
    arrived = draw(st.lists(st.sampled_from(callbacks), unique_by=lambda each: each.event_id))
    return Life(tuple(callbacks), tuple(draw(st.permutations(arrived))))


def folded(events: Iterable[TaskEvent], instance: Instance | None = None) -> Instance | None:
    for event in events:
        instance = fold(instance, event)
    return instance


def snapshot(company: Company, time_text: Callable[[int], str] = by_minute) -> Snapshot:
    known = company.instance("I-1", at_ms=NOW)
    assert known is not None
    return Snapshot(
        CORP_ID,
        APP_TYPE,
        instance_answer(known, time_text),
        running_tasks_answer(known, time_text),
        operation_records_answer(known, time_text),
    )


def state_of(instance: Instance | None) -> TaskState | None:
    return None if instance is None else instance.state


def repaired(life: Life) -> tuple[Instance, list[TaskEvent]]:
    arrived = folded(life.arrived)
    found = differences(snapshot(Company(life.callbacks)), state_of(arrived), received_at=NOW, with_copies=True)
    events = [each.event for each in found]
    instance = folded(events, arrived)
    assert instance is not None
    return instance, events


def seen(lines: Entries) -> dict[object, tuple[object, ...]]:
    """The entries that people see, without times."""
    return {
        key: (each.status, each.title, each.originator, each.actor_id, each.app_type) for key, each in lines.items()
    }


@given(lives())
def test_after_the_repairs_everybody_sees_the_same_as_without_losses(life: Life) -> None:
    instance, _ = repaired(life)
    whole = folded(life.callbacks)
    assert whole is not None
    assert seen(views(instance.state)) == seen(views(whole.state))
    for key, line in views(whole.state).items():
        repaired_line = views(instance.state)[key]
        if life.callbacks[0] in life.arrived:
            assert abs(repaired_line.entered_at - line.entered_at) <= MINUTE_MS
        assert abs(repaired_line.updated_at - line.updated_at) <= MINUTE_MS


@given(lives(), st.randoms(use_true_random=False))
def test_late_callbacks_change_no_list_in_any_order(life: Life, chance: object) -> None:
    instance, repairs = repaired(life)
    late = life.late
    after = folded(late, instance)
    assert after is not None
    assert seen(views(after.state)) == seen(views(instance.state))
    if life.callbacks[0] in life.arrived or not life.arrived:
        assert views(after.state) == views(instance.state), "not even a time"
    ends = [(each.instance_status, each.approved_result) for each in (after.state, instance.state)]
    assert ends[0] == ends[1] or None in ends[1], "nor the end"
    shuffled = [*life.arrived, *repairs, *late]
    chance.shuffle(shuffled)  # pyright: ignore[reportAttributeAccessIssue]
    other = folded(shuffled)
    assert other is not None
    assert (other.marks, views(other.state)) == (after.marks, views(after.state))
    for task in after.state.tasks:
        if task.status is not Status.PENDING:
            assert task.outcome is not None, "no callback contains it, and no late callback removes it"


@given(lives())
def test_a_repair_has_the_same_id_at_any_time(life: Life) -> None:
    found = snapshot(Company(life.callbacks))
    state = state_of(folded(life.arrived))
    made = [differences(found, state, received_at=at, with_copies=True) for at in (NOW, NOW + 99 * MINUTE_MS)]
    first, second = ([each.event.event_id for each in repairs] for repairs in made)
    assert first == second
    assert len({*first}) == len(first)


def test_nothing_is_concluded_from_answers_that_were_not_requested() -> None:
    life = [filed(), assigned("T-1", "u-li", at=NOW - 50 * MINUTE_MS)]
    known = folded(life)
    decided = [*life, happened(Action.COMPLETED, NOW - 40 * MINUTE_MS, task_id="T-1", actor_id="u-li")]
    whole = snapshot(Company(decided))
    for running, records in ((None, None), (whole.running, None), (None, whole.records)):
        partly = Snapshot(CORP_ID, APP_TYPE, whole.instance, running, records)
        assert differences(partly, state_of(known), received_at=NOW) == []
    [found] = differences(whole, state_of(known), received_at=NOW)
    assert (found.kind, found.event.action, found.event.outcome) == (Kind.DECISION, Action.COMPLETED, wire.AGREE)


def test_steps_and_who_decided_come_from_the_records() -> None:
    step = {"step_name": "部门审批", "step_id": "n1"}
    opened = assigned("T-1", "u-li", at=NOW - 50 * MINUTE_MS)
    said = replace(opened, **step)
    for decided_by in ("PERSON", "AUTOMATIC", "DELEGATE"):
        decision = {"task_id": "T-1", "actor_id": "u-li", "decided_by": decided_by}
        decided = happened(Action.COMPLETED, NOW - 40 * MINUTE_MS, **decision)
        [found] = differences(
            snapshot(Company([filed(), said, decided])), state_of(folded([filed(), opened])), received_at=NOW
        )
        state = state_of(folded([filed(), opened, found.event]))
        assert state is not None
        [task] = state.tasks
        assert (task.step_name, task.step_id, task.decided_by) == ("部门审批", "n1", decided_by)
    open_, known = snapshot(Company([filed(), said])), folded([filed(), opened])
    [named] = differences(open_, state_of(known), received_at=NOW)
    assert named.kind is Kind.STEP
    after = folded([named.event], known)
    assert known is not None
    assert after is not None
    assert (after.state.tasks, after.state.began_at) == ((replace(known.state.tasks[0], **step),), known.state.began_at)


def test_a_record_without_a_known_type_proves_no_person() -> None:
    [decision] = decisions([wire.OperationRecord(task_id="1", action_exit="agree", operate_time="2026-01-01")])
    assert (decision.decided_by, decision.step) == (None, (None, None))
    filtered = wire.OperationRecord(
        task_id="1", action_exit="agree", operate_time="2026-01-01", task_execute_type="FILTERED"
    )
    assert [each.decided_by for each in decisions([filtered])] == ["AUTOMATIC"]


def test_fields_that_no_callback_contains_do_not_count_as_lost() -> None:
    life = [
        filed(),
        assigned("T-1", "u-li", at=NOW - 50 * MINUTE_MS),
        happened(Action.COMPLETED, NOW - 40 * MINUTE_MS, task_id="T-1", actor_id="u-li"),
    ]
    ended = filed(at=NOW - 39 * MINUTE_MS, event_id="e", instance_status=wire.COMPLETED, approved_result=wire.AGREE)
    found = differences(snapshot(Company([*life, ended])), state_of(folded(life)), received_at=NOW)
    assert [each.kind for each in found] == [Kind.END, Kind.OUTCOME]
    assert not {each.kind for each in found} & LOST
    end, outcome = (each.event for each in found)
    assert (end.instance_status, end.approved_result) == (wire.COMPLETED, wire.AGREE)
    assert outcome.occurred_at == NOW - 40 * MINUTE_MS + 1
    assert (outcome.actor_id, outcome.outcome, outcome.remark) == ("u-li", wire.AGREE, None)


def test_remarks_are_included_only_if_configured() -> None:
    life = [filed(), happened(Action.COMPLETED, NOW - 40 * MINUTE_MS, task_id="T-1", actor_id="u-li", remark="fine")]
    for remarks, remark in ((False, None), (True, "fine")):
        found = differences(snapshot(Company(life)), None, received_at=NOW, remarks=remarks)
        assert [each.event.remark for each in found if each.kind is Kind.DECISION] == [remark]


def test_copies_are_read_from_records_only_if_configured() -> None:
    life = [filed(), happened(Action.COPIED, NOW - 40 * MINUTE_MS, recipient_ids=("u-li",))]
    state = state_of(folded(life[:1]))
    assert differences(snapshot(Company(life)), state, received_at=NOW) == []
    [found] = differences(snapshot(Company(life)), state, received_at=NOW, with_copies=True)
    assert (found.event.action, found.event.recipient_ids) == (Action.COPIED, ("u-li",))


def test_an_undecided_task_is_closed_and_every_decision_wins_against_it() -> None:
    life = [
        filed(),
        assigned("T-1", "u-li", at=NOW - 50 * MINUTE_MS),
        filed(at=NOW - 39 * MINUTE_MS, event_id="e", instance_status=wire.TERMINATED),
    ]
    whole = snapshot(Company(life))
    ended = Snapshot(CORP_ID, APP_TYPE, whole.instance, [], whole.records)
    state = folded(life)
    end, found = differences(ended, state_of(state), received_at=NOW)
    assert end.kind is Kind.END
    assert (found.kind, found.event.action, found.event.outcome) == (Kind.CLOSED, Action.CANCELLED, None)
    completed = happened(Action.COMPLETED, NOW - 49 * MINUTE_MS, task_id="T-1", actor_id="u-li")
    for order in ([found.event, completed], [completed, found.event]):
        after = folded(order, state)
        assert after is not None
        assert after.state.tasks[0].status is Status.COMPLETED


def test_a_withdrawal_without_a_task_ends_all_open_tasks() -> None:
    life = [filed(), assigned("T-1", "u-li", at=NOW - 50 * MINUTE_MS)]
    whole = snapshot(Company(life))
    record = wire.OperationRecord(
        task_id="null", operator_user_id="u-zhang", action_exit="revoked", operate_time=by_minute(NOW)
    )
    withdrawn = Snapshot(CORP_ID, APP_TYPE, whole.instance, [], [record])
    [found] = differences(withdrawn, state_of(folded(life)), received_at=NOW)
    assert (found.event.task_id, found.event.action, found.event.actor_id) == ("T-1", Action.CANCELLED, "u-zhang")
    assert found.event.outcome == wire.REVOKED
    later_task = folded([filed(), assigned("T-1", "u-li", at=NOW + 2 * MINUTE_MS)])
    [found] = differences(withdrawn, state_of(later_task), received_at=NOW)
    assert (found.kind, found.event.outcome) == (Kind.CLOSED, None), "a later task was not withdrawn"


def test_a_common_step_is_read_person_by_person_and_ids_may_be_numbers() -> None:
    parts = [
        wire.OperationRecordPart(task_id=11, operator="u-li", action="已同意", operate_time="2026-09-21T10:00Z"),
        wire.OperationRecordPart(task_id=12, operator="u-wang", format_action="拒绝", operate_time="2026-09-21T10:01Z"),
    ]
    record = wire.OperationRecord(task_id="null", domain_list=parts)
    whole = Snapshot(CORP_ID, APP_TYPE, wire.Instance("I-1"), [], [record])
    found = [each.event for each in differences(whole, None, received_at=NOW)]
    assert [(each.task_id, each.actor_id, each.outcome) for each in found] == [
        ("11", "u-li", wire.AGREE),
        ("12", "u-wang", wire.DISAGREE),
    ]


def test_an_instance_of_another_app_and_a_deleted_one_are_not_repaired() -> None:
    life = [filed()]
    whole = snapshot(Company([*life, assigned("T-1", "u-li", at=NOW)]))
    for events in ([filed(app_type="APP_2")], [*life, happened(Action.DELETED, NOW)]):
        state = state_of(folded(events))
        assert differences(whole, state, received_at=NOW) == []
        assert not needs_details(whole, state)


def test_an_instance_without_a_difference_needs_no_details() -> None:
    life: Sequence[TaskEvent] = [filed(), assigned("T-1", "u-li", at=NOW - 50 * MINUTE_MS)]
    assert not needs_details(snapshot(Company(life)), state_of(folded(life)))
    assert needs_details(snapshot(Company(life)), None)
    assert needs_details(snapshot(Company(life)), state_of(folded(life[:1])))
    decided = happened(Action.COMPLETED, NOW - 40 * MINUTE_MS, task_id="T-1", actor_id="u-li")
    assert needs_details(snapshot(Company([*life, decided])), state_of(folded(life)))


def test_a_deletion_has_the_same_id_at_any_time() -> None:
    found = [
        deletion(CORP_ID, APP_TYPE, "I-1", first_absent_ms=NOW, received_at=at).event for at in (NOW, NOW + MINUTE_MS)
    ]
    assert found[0].event_id == found[1].event_id
    assert (found[0].action, found[0].occurred_at) == (Action.DELETED, NOW)


def test_an_unknown_instance_is_repaired_with_its_form_and_originator() -> None:
    form = {"textField_a": "x", "employeeField_b": None}
    whole = snapshot(Company([filed(form_data=form)]))
    whole.instance.data["listField_c"] = ["好", 1]  # pyright: ignore[reportOptionalSubscript]
    whole = Snapshot(CORP_ID, APP_TYPE, whole.instance, [], whole.records, "https://yida.example/I-1", "Leave")
    [found] = differences(whole, None, received_at=NOW)
    assert found.kind is Kind.INSTANCE
    assert found.event.form_data == {**form, "listField_c": '["好",1]'}
    assert (found.event.originator, found.event.url) == (Person("u-zhang", "张红"), "https://yida.example/I-1")
