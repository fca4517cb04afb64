"""The native core has the same results as the Python implementation, byte for byte, for any chunk and stored instances.

That includes the texts of errors: the Python codec reports what the core cannot read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from support.streams.fold_inputs import (
    CHUNKS,
    EVENTS,
    NEVER_SEEN,
    OWN_AGAIN,
    REGISTRY,
    SAME_INSTANCE,
    FakeRecord,
    by_first_state_schema,
    by_older_state_schema,
    by_third_state_schema,
    by_version_with_offsets,
    by_version_without_beginnings,
    by_version_without_recovery,
    by_version_without_steps,
    damaged,
    event,
    reading,
)
from support.wheels import WHERE_THE_CORE_IS
from taskbridge.schemas.codec import framed, task_event_head_codec, task_notification_codec, task_state_codec
from taskbridge.schemas.dead_letters import DlqReason
from taskbridge.schemas.errors import RecordError, TaskbridgeError
from taskbridge.schemas.events import Action, Person
from taskbridge.schemas.registry import RegistryUnavailable
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.streams.fold.core import MAX_PUBLISHED_BYTES, NONE, Folded
from taskbridge.streams.fold.instance import DETAILS, StepMarks, unnamed_assignees
from taskbridge.streams.fold.native import IS_BUILT, NativeCore
from taskbridge.streams.fold.python import PythonCore
from taskbridge.streams.fold.stored_instance import StoreUnreadable, are_events_lost, unpack
from taskbridge.streams.tables.store import OFFSET_KEY, PartitionNotHeld

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hypothesis.strategies import DataObject

    from taskbridge.schemas.events import TaskEvent
    from taskbridge.streams.fold.core import Core
    from taskbridge.streams.fold.instance import Instance

pytestmark = WHERE_THE_CORE_IS

STATES = task_state_codec(REGISTRY)


def could_be_folded(instance: Instance) -> bool:
    """Whether it is the key's instance, ids are ordered and distinct, and the state has what follows from the marks."""
    state, marks = instance.state, instance.marks
    lists = [
        [each.task_id for each in state.tasks],
        [each.user_id for each in state.copied],
        marks.originator_ids,
        marks.assignee_ids,
        *(each.assignee_ids for each in state.tasks),
        *(each.actor_ids for each in marks.tasks),
    ]
    result = None if state.finished_at is None else state.approved_result or state.instance_status
    derived = (marks.began_at, unnamed_assignees(state, marks), result)
    if StepMarks() in [each.step for each in marks.tasks]:
        return False
    if state.instance_id != "I" or (state.began_at, state.assignee_ids, state.result) != derived:
        return False
    return all(list(each) == sorted(set(each)) for each in lists)


def new_core(
    kind: type[Core],
    *,
    now_ms: int = 0,
    max_published_bytes: int = MAX_PUBLISHED_BYTES,
    form_fields: frozenset[str] = frozenset(),
) -> Core:
    return kind(
        events=task_event_head_codec(REGISTRY, with_form=bool(form_fields)),
        states=task_state_codec(REGISTRY),
        notifications=task_notification_codec(REGISTRY),
        form_fields=form_fields,
        now_ms=lambda: now_ms,
        max_published_bytes=max_published_bytes,
    )


def plain(folded: Folded) -> dict[str, Any]:
    return {
        "stored": list(folded.stored.items()),
        "changelog": list(folded.changelog),
        "states": list(folded.states),
        "notifications": list(folded.notifications),
        "causes": list(folded.causes()),
        "rejected": [(each.record.offset, type(each.reason), str(each.reason)) for each in folded.rejected],
        "actions": dict(folded.actions),
        "changes": dict(folded.changes),
        "folded": folded.folded,
        "largest": folded.largest,
        "unpublished": sorted(folded.unpublished),
    }


def fold_both(records: Sequence[FakeRecord], stored: dict[bytes, bytes]) -> tuple[Folded | type, Folded | type]:
    """The result of each, or the class of its error."""
    found: list[Folded | type] = []
    for kind in (NativeCore, PythonCore):
        try:
            found.append(new_core(kind).fold(list(records), reading(stored)))
        except TaskbridgeError as error:
            found.append(type(error))
    return found[0], found[1]


def stored_after(events: Iterable[TaskEvent]) -> dict[bytes, bytes]:
    records: list[Any] = [
        FakeRecord(each.instance_id.encode(), EVENTS.encode(each), at) for at, each in enumerate(events)
    ]
    return new_core(PythonCore).fold(records, reading({})).stored


@given(
    chunks=CHUNKS,
    now_ms=st.integers(-(1 << 63), (1 << 63) - 1),
    too_large=st.just(NONE) | st.sets(st.integers(0, 5)),
    max_published_bytes=st.sampled_from((MAX_PUBLISHED_BYTES, 200, 0)),
    form_fields=st.sampled_from(("", "*", "a", ("b", "长"))).map(frozenset),
)
def test_any_chunks_have_the_same_results(
    chunks: list[list[FakeRecord]],
    now_ms: int,
    too_large: set[int],
    max_published_bytes: int,
    form_fields: frozenset[str],
) -> None:
    options: dict[str, Any] = {"now_ms": now_ms, "max_published_bytes": max_published_bytes, "form_fields": form_fields}
    native, python = new_core(NativeCore, **options), new_core(PythonCore, **options)
    stored: dict[bytes, bytes] = {}
    for chunk in chunks:
        records: list[Any] = list(chunk)
        ours = native.fold(records, reading(stored), too_large=too_large)
        theirs = python.fold(records, reading(stored), too_large=too_large)
        assert plain(ours) == plain(theirs)
        stored |= ours.stored


@given(life=st.data(), repeats=st.integers(1, 3))
def test_an_instance_has_the_same_bytes_after_its_events_in_any_order(life: DataObject, repeats: int) -> None:
    """All events are of one instance of one organisation, so that none is refused."""
    events: list[TaskEvent] = life.draw(st.lists(SAME_INSTANCE, min_size=1, max_size=25))
    order: list[TaskEvent] = life.draw(st.permutations(events * repeats))
    records: list[Any] = [FakeRecord(b"I", EVENTS.encode(each), 7 * at) for at, each in enumerate(order)]
    every = frozenset("*")
    native, python = (new_core(each, form_fields=every) for each in (NativeCore, PythonCore))
    ours, theirs = (each.fold(records, reading({})) for each in (native, python))
    assert plain(ours) == plain(theirs)
    assert ours.folded == len(records)


def test_large_instances_have_the_same_bytes() -> None:
    """Their lists, texts and numbers need the longest form of each length."""
    many = tuple(f"{number}" for number in range(66_000))
    large = [event(event_id="1", recipient_ids=many), event(event_id="2" * 300, action=Action.DELETED)]
    wide = [event(event_id="1" * 70_000, originator=Person("ann"), title="长" * 70_000)]
    long = [event(event_id=f"e{n}", task_id=f"T-{n}", recipient_ids=many[: n % 40], url="u" * n) for n in range(300)]
    for events in (large, wide, long):
        records = [FakeRecord(b"I", EVENTS.encode(each), at << 20) for at, each in enumerate(events)]
        ours, theirs = fold_both(records, {})
        assert isinstance(ours, Folded)
        assert isinstance(theirs, Folded)
        assert plain(ours) == plain(theirs)


@given(data=st.data())
def test_a_damaged_instance_is_unreadable_to_both_or_the_same_to_both(data: DataObject) -> None:
    events: list[TaskEvent] = data.draw(st.lists(SAME_INSTANCE, min_size=1, max_size=4))
    stored = {key: data.draw(damaged(value)) for key, value in stored_after(events).items()}
    try:
        instance = unpack(stored[b"I"], STATES)
    except StoreUnreadable:
        instance = None
    ours, theirs = fold_both([FakeRecord(b"I", EVENTS.encode(event(event_id="last")), 9)], stored)
    if instance is None:
        assert ours is theirs is StoreUnreadable
    elif instance == unpack(stored_after(events)[b"I"], STATES) or could_be_folded(instance):
        assert not isinstance(ours, type)
        assert not isinstance(theirs, type)
        assert plain(ours) == plain(theirs)
    # Otherwise the damage made an instance that no fold can result in: the two may read it differently.


@given(events=st.lists(SAME_INSTANCE, min_size=1, max_size=6))
def test_an_instance_of_an_older_schema_is_read_by_both(events: list[TaskEvent]) -> None:
    stored = {key: by_older_state_schema(value) for key, value in stored_after(events).items()}
    ours, theirs = fold_both([FakeRecord(b"I", EVENTS.encode(event(event_id="last")), 9)], stored)
    assert not isinstance(ours, type)
    assert not isinstance(theirs, type)
    assert plain(ours) == plain(theirs)


STEP = ("step_name", "step_id", "decided_by", "due_at")
"""Of the version that knew steps first."""


@given(events=st.lists(SAME_INSTANCE, min_size=1, max_size=6))
def test_an_instance_of_the_first_version_is_of_yida_and_lacks_later_fields(
    events: list[TaskEvent],
) -> None:
    unknown: dict[str, Any] = dict.fromkeys((*DETAILS[:-1], "outcome", "remark", *STEP))
    stored = stored_after(structs.replace(each, **unknown, form_data={}) for each in events)
    last = [FakeRecord(b"I", EVENTS.encode(event(event_id="last", serial_no="17")), 9)]
    older = {key: by_first_state_schema(value) for key, value in stored.items()}
    ours, theirs = fold_both(last, older)
    assert not isinstance(ours, type)
    assert not isinstance(theirs, type)
    assert plain(ours) == plain(theirs) == plain(new_core(PythonCore).fold([*last], reading(stored)))


@given(events=st.lists(SAME_INSTANCE, min_size=1, max_size=6))
def test_a_state_without_its_beginning_and_assignees_gets_them_from_the_marks(events: list[TaskEvent]) -> None:
    unknown: dict[str, Any] = dict.fromkeys(STEP)
    stored = stored_after(structs.replace(each, **unknown) for each in events)
    older = {key: by_third_state_schema(value) for key, value in stored.items()}
    assert unpack(older[b"I"], STATES) == unpack(stored[b"I"], STATES)
    last = [FakeRecord(b"I", EVENTS.encode(event(event_id="last")), 9)]
    ours, theirs = fold_both(last, older)
    assert not isinstance(ours, type)
    assert not isinstance(theirs, type)
    assert plain(ours) == plain(theirs) == plain(new_core(PythonCore).fold([*last], reading(stored)))


@pytest.mark.parametrize(("offsets", "lost"), [((0, 7), False), ((0, 0), True), ((0, 0, 7), True)])
@given(events=st.lists(SAME_INSTANCE, min_size=1, max_size=6))
def test_of_the_offsets_that_an_older_version_stored_both_keep_whether_events_are_lost(
    offsets: tuple[int, ...], events: list[TaskEvent], *, lost: bool
) -> None:
    stored = {key: by_version_with_offsets(value, offsets) for key, value in stored_after(events).items()}
    last = [FakeRecord(b"I", EVENTS.encode(event(event_id="last")), 9)]
    ours, theirs = fold_both(last, stored)
    assert not isinstance(ours, type)
    assert not isinstance(theirs, type)
    assert plain(ours) == plain(theirs)
    assert are_events_lost(ours.stored[b"I"]) is lost


@pytest.mark.parametrize(
    "by_version", [by_version_without_beginnings, by_version_without_recovery, by_version_without_steps]
)
@given(events=st.lists(SAME_INSTANCE, min_size=1, max_size=6))
def test_an_instance_of_a_version_with_fewer_marks_is_read_by_both(
    by_version: Callable[[bytes], bytes], events: list[TaskEvent]
) -> None:
    stored = {key: by_version(value) for key, value in stored_after(events).items()}
    ours, theirs = fold_both([FakeRecord(b"I", EVENTS.encode(event(event_id="last")), 9)], stored)
    assert not isinstance(ours, type)
    assert not isinstance(theirs, type)
    assert plain(ours) == plain(theirs)


def test_only_the_first_event_of_our_own_schema_under_another_id_is_translated() -> None:
    translated: list[bytes | None] = []

    class Counting(NativeCore):
        def _translate(self, value: bytes | None) -> bytes | RecordError:
            translated.append(value)
            return super()._translate(value)

    native = new_core(Counting)
    value = framed(OWN_AGAIN, EVENTS.encode_body(event(event_id="1")))
    for offset in range(3):
        records: list[Any] = [FakeRecord(b"I", value, offset), FakeRecord(b"I", EVENTS.encode(event(event_id="2")))]
        assert native.fold(records, reading({})).folded == 2
    assert len(translated) == 2


def test_a_registry_that_does_not_answer_rejects_no_record() -> None:
    away = FakeRegistry()
    away.away = True
    native = NativeCore(
        events=task_event_head_codec(away),
        states=task_state_codec(away),
        notifications=task_notification_codec(away),
    )
    records: list[Any] = [FakeRecord(b"I", framed(NEVER_SEEN, b"x"))]
    with pytest.raises(RegistryUnavailable):
        native.fold(records, reading({}))


def test_an_error_of_the_store_is_raised_and_changes_nothing() -> None:
    def gone(keys: list[bytes]) -> list[bytes | None]:
        raise PartitionNotHeld(str(keys))

    native = new_core(NativeCore)
    records: list[Any] = [FakeRecord(b"I", EVENTS.encode(event(event_id="1")))]
    with pytest.raises(PartitionNotHeld):
        native.fold(records, gone)
    assert native.fold(records, reading({})).folded == 1


def test_an_impossible_id_is_never_looked_up() -> None:
    """It might be the key of the store's own position."""
    records: list[Any] = []
    for at, name in enumerate((OFFSET_KEY.decode(), "", "x" * 129, "a\x7f")):
        changed = structs.replace(event(event_id="1"), instance_id=name)
        records.append(FakeRecord(name.encode(), EVENTS.encode(changed), at))
    for kind in (NativeCore, PythonCore):
        reads: list[bytes] = []
        folded = new_core(kind).fold(records, reading({}, reads=reads))
        assert [each.reason.dlq_reason for each in folded.rejected] == [DlqReason.OUTSIDE_CONTRACT] * 4
        assert reads == []


def test_the_core_is_built_where_it_is_required() -> None:
    assert IS_BUILT
