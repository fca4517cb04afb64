"""The entries of a state, and whom it concerns, as any consumer computes them from the published state."""

from __future__ import annotations

import pytest
from hypothesis import given
from msgspec.structs import replace

from support.records import STATES
from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.events import (
    CopiedEntry,
    Lifecycle,
    Person,
    Status,
    TaskEntry,
    TaskState,
    View,
)
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.views import EntryKey, began_at_of, concerns, earliest_known, status_of, views, whole_entry

STATE = TaskState(
    instance_id="I-1",
    corp_id="corp",
    app_type="APP",
    updated_at=9_000,
    revision=5,
    title="Leave",
    url="https://yida.example/instance",
    originator=Person("ann", "Ann"),
    tasks=(
        TaskEntry("T-1", Status.COMPLETED, ("bob",), "bea", None, 1_000, 2_000, "agree", "fine"),
        TaskEntry("T-2", Status.PENDING, ("cai", "dan"), None, "https://yida.example/task", 3_000),
        TaskEntry("T-3", Status.CANCELLED, ("eve",), "fay", None, 2_000, 4_000),
    ),
    copied=(CopiedEntry("gus", 1_500), CopiedEntry("hal", 8_000)),
    finished_at=7_000,
    result="agree",
    began_at=500,
    assignee_ids=("ida",),
)


def test_each_view_has_its_people_and_each_entry_its_times() -> None:
    times = {key: (entry.entered_at, entry.updated_at) for key, entry in views(STATE).items()}
    assert times == {
        EntryKey("ann", View.CREATED, None): (500, 4_000),
        EntryKey("gus", View.COPIED, None): (1_500, 4_000),
        EntryKey("hal", View.COPIED, None): (8_000, 8_000),
        EntryKey("ida", View.PENDING, None): (500, 500),
        EntryKey("bea", View.HANDLED, "T-1"): (2_000, 2_000),
        EntryKey("cai", View.PENDING, "T-2"): (3_000, 3_000),
        EntryKey("dan", View.PENDING, "T-2"): (3_000, 3_000),
    }


def test_an_entry_about_the_instance_has_its_result_and_one_about_a_task_the_outcome() -> None:
    entries = views(STATE)
    created = entries[EntryKey("ann", View.CREATED, None)]
    assert created == whole_entry(STATE)
    assert (created.status, created.result, created.finished_at) == (Status.PENDING, "agree", 7_000)
    assert (created.outcome, created.remark, created.actor_id, created.url) == (None, None, None, STATE.url)
    handled = entries[EntryKey("bea", View.HANDLED, "T-1")]
    assert (handled.status, handled.outcome, handled.remark) == (Status.COMPLETED, "agree", "fine")
    assert (handled.result, handled.finished_at, handled.actor_id, handled.url) == (None, None, "bea", STATE.url)
    assert entries[EntryKey("cai", View.PENDING, "T-2")].url == "https://yida.example/task"


def test_an_unknown_or_deleted_instance_has_no_entries() -> None:
    assert views(None) == {}
    assert views(replace(STATE, lifecycle=Lifecycle.DELETED)) == {}


def test_a_state_without_its_beginning_began_at_the_earliest_time_in_it() -> None:
    older = replace(STATE, began_at=None)
    assert began_at_of(STATE) == 500
    assert began_at_of(older) == earliest_known(STATE) == 1_000
    assert views(older)[EntryKey("ann", View.CREATED, None)].entered_at == 1_000
    assert earliest_known(replace(STATE, tasks=STATE.tasks[1:])) == 1_500
    assert earliest_known(replace(STATE, tasks=STATE.tasks[2:], copied=())) == 2_000
    assert earliest_known(replace(STATE, tasks=(), copied=())) == 9_000


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((), Status.ACTIVE),
        ((Status.CANCELLED,), Status.CANCELLED),
        ((Status.CANCELLED, Status.COMPLETED), Status.COMPLETED),
        ((Status.COMPLETED, Status.PENDING), Status.PENDING),
    ],
)
def test_the_status_of_an_instance_is_that_of_its_most_open_task(
    statuses: tuple[Status, ...], expected: Status
) -> None:
    tasks = tuple(TaskEntry(f"{at}", status) for at, status in enumerate(statuses))
    assert status_of(replace(STATE, tasks=tasks)) is expected


def test_a_state_concerns_everyone_in_it_and_nobody_else() -> None:
    people = ["ann", "bea", "bob", "cai", "dan", "eve", "fay", "gus", "hal", "ida"]
    assert [each for each in (*people, "joe", "") if not concerns(STATE, each)] == ["joe", ""]
    assert not concerns(replace(STATE, originator=None), "ann")


@given(state=STATES)
def test_a_state_concerns_each_person_with_an_entry(state: TaskState) -> None:
    assert all(concerns(state, key.user_id) for key in views(state))


@given(state=STATES)
def test_the_published_record_has_all_that_the_entries_need(state: TaskState) -> None:
    codec = task_state_codec(FakeRegistry())
    assert views(codec.decode(codec.encode(state))) == views(state)
