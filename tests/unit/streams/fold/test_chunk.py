"""A chunk folds as its records would one by one, rejects bad records, and can be tried again after any crash."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from support.streams.fold_inputs import FakeRecord, by_version_without_beginnings
from taskbridge.schemas.cloudevents import notification_headers
from taskbridge.schemas.codec import task_event_codec, task_state_codec
from taskbridge.schemas.dead_letters import LEFT_HEADER
from taskbridge.schemas.events import Action, Status
from taskbridge.schemas.registry import RegistryUnavailable
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES
from taskbridge.streams.fold.instance import EARLIEST, fold
from taskbridge.streams.fold.python import ChunkResult, fold_chunk
from taskbridge.streams.fold.rejections import dead_letter
from taskbridge.streams.fold.stored_instance import (
    StoreUnreadable,
    are_events_lost,
    pack,
    shown,
    unpack,
    with_events_lost,
)
from taskbridge.streams.tables.store import OFFSET_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hypothesis.strategies import DataObject, SearchStrategy

    from taskbridge.schemas.events import TaskEvent, TaskNotification
    from taskbridge.streams.fold.views import Shown

    MakeEvent = Callable[..., TaskEvent]

REGISTRY = FakeRegistry()
EVENTS = task_event_codec(REGISTRY)
STATES = task_state_codec(REGISTRY)


@dataclass
class World:
    """Kafka and the local store, as a chunk uses them."""

    stored: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])

    def load(self, keys: Iterable[bytes]) -> list[Shown | None]:
        return [shown(self.stored[key], STATES) if key in self.stored else None for key in keys]

    def fold(self, events: Iterable[TaskEvent]) -> ChunkResult:
        return fold_chunk(records_of(events), decode=EVENTS.decode, load=self.load)

    def store(self, result: ChunkResult) -> None:
        for key, each in result.instances.items():
            state = STATES.encode(each.instance.state)
            self.stored[key] = pack(state, each.instance, now_ms=0, events_lost=each.events_lost)


def records_of(events: Iterable[TaskEvent]) -> list[FakeRecord]:
    return [FakeRecord(each.instance_id.encode(), EVENTS.encode(each), offset) for offset, each in enumerate(events)]


def sent_by(result: ChunkResult) -> list[TaskNotification]:
    return [each for _, notifications in result.published for each in notifications]


def test_events_of_one_instance_fold_together_and_are_loaded_once(make_event: MakeEvent) -> None:
    loads: list[list[bytes]] = []

    def load(keys: list[bytes]) -> list[None]:
        loads.append(keys)
        return [None for _ in keys]

    events = [make_event(Action.CREATED, title=str(number), occurred_at=number) for number in range(5)]
    result = fold_chunk(records_of(events), decode=EVENTS.decode, load=load)
    assert loads == [[b"I-1"]]
    assert result.instances[b"I-1"].instance.state.title == "4"
    assert result.actions.total() == 5
    assert result.actions == {Action.CREATED: 5}


def test_bad_records_are_rejected_with_their_reason_and_the_others_are_folded(make_event: MakeEvent) -> None:
    good = make_event(Action.CREATED)
    other_corp = make_event(Action.DELETED, corp_id="other")
    value = EVENTS.encode(good)
    records = [
        FakeRecord(b"I-1", b"junk", 0),
        FakeRecord(b"I-1", None, 1),
        FakeRecord(b"I-1", b"\x00\x00\x00\x00\x63" + value[5:], 2),
        FakeRecord(b"I-1", value[:-9], 3),
        FakeRecord(b"I-2", value, 4),
        FakeRecord(None, value, 5),
        FakeRecord(b"I-1", value, 6),
        FakeRecord(b"I-1", EVENTS.encode(other_corp), 7),
        FakeRecord(b"I-1", EVENTS.encode(make_event(Action.UNKNOWN)), 8),
    ]
    result = fold_chunk(records, decode=EVENTS.decode, load=World().load)
    assert [(each.record.offset, each.reason.dlq_reason) for each in result.rejected] == [
        (0, "undecodable"),
        (1, "undecodable"),
        (2, "undecodable"),
        (3, "undecodable"),
        (4, "misplaced-key"),
        (5, "misplaced-key"),
        (7, "another-corp"),
        (8, "unknown-action"),
    ]
    assert result.actions.total() == 1


def test_an_unavailable_registry_is_not_the_records_fault(make_event: MakeEvent) -> None:
    registry = FakeRegistry()
    registry.away = True
    value = b"\x00\x00\x00\x00\x63" + EVENTS.encode(make_event(Action.CREATED))[5:]
    with pytest.raises(RegistryUnavailable):
        fold_chunk([FakeRecord(b"I-1", value)], decode=task_event_codec(registry).decode, load=World().load)


def test_an_unreadable_stored_instance_is_never_an_unknown_one(make_event: MakeEvent) -> None:
    world = World()
    world.store(world.fold([make_event(Action.CREATED)]))
    whole = world.stored[b"I-1"]
    for damaged in (b"", b"\x02" + whole[1:], whole[:-1], whole[:10]):
        world.stored[b"I-1"] = damaged
        with pytest.raises(StoreUnreadable):
            world.fold([make_event(Action.CREATED)])


@given(data=st.data())
def test_an_instance_whose_events_are_lost_stays_so(
    histories: SearchStrategy[list[TaskEvent]], data: DataObject
) -> None:
    events = data.draw(histories)
    world = World()
    world.store(world.fold(events))
    world.stored = {key: with_events_lost(value) for key, value in world.stored.items()}
    world.store(world.fold(data.draw(histories)))
    world.store(world.fold(events))
    assert all(map(are_events_lost, world.stored.values()))


def test_marks_of_other_tasks_are_unreadable(make_event: MakeEvent) -> None:
    with_task = fold(None, make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann",)))
    without = fold(None, make_event(Action.CREATED))
    with pytest.raises(StoreUnreadable, match="marks are of another state"):
        unpack(pack(STATES.encode(with_task.state), without, now_ms=0), STATES)


def test_an_unavailable_registry_is_not_the_stores_fault(make_event: MakeEvent) -> None:
    instance = fold(None, make_event(Action.CREATED))
    state = b"\x00\x00\x00\x00\x63" + STATES.encode(instance.state)[5:]
    with pytest.raises(RegistryUnavailable):
        unpack(pack(state, instance, now_ms=0), task_state_codec(FakeRegistry(away=True)))


def test_an_instance_stored_without_its_beginning_is_read(make_event: MakeEvent) -> None:
    """The beginning is computed from the published state, and stored from then on."""
    events = [
        make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann",), occurred_at=3_000, created_at=2_000),
        make_event(Action.COPIED, recipient_ids=("bob",), occurred_at=2_500),
    ]
    instance = reduce(fold, events, None)
    assert instance is not None
    stored = by_version_without_beginnings(pack(STATES.encode(instance.state), instance, now_ms=0))
    older = replace(instance, marks=replace(instance.marks, first_received_at=EARLIEST))
    assert unpack(stored, STATES) == older


def test_a_stored_instance_of_another_format_is_unreadable() -> None:
    with pytest.raises(StoreUnreadable, match="not of format 3"):
        unpack(b"\x02L" + bytes(40), STATES)


def test_a_dead_letter_has_the_received_headers_and_the_records_origin() -> None:
    record = FakeRecord(b"I-1", b"junk", 7, headers=[("ce_id", b"x")])
    result = fold_chunk([record], decode=EVENTS.decode, load=World().load)
    key, value, parked = dead_letter(result.rejected[0], now_ms=1_700_000_000_123)
    assert (key, value) == (b"I-1", b"junk")
    headers = dict(parked)
    assert headers.pop("dlq_detail").startswith(b"not in the Confluent wire format")
    assert headers == {
        "ce_id": b"x",
        "dlq_reason": b"undecodable",
        "dlq_topic": b"taskbridge.task-events.v1",
        "dlq_partition": b"3",
        "dlq_offset": b"7",
        "dlq_at": b"2023-11-14T22:13:20.123Z",
    }


@pytest.mark.parametrize(
    "large",
    [
        FakeRecord(b"I-1", bytes(MAX_MESSAGE_BYTES - 100)),
        FakeRecord(bytes(MAX_MESSAGE_BYTES), b""),
        FakeRecord(b"I-1", b"", headers=[("x", bytes(MAX_MESSAGE_BYTES))]),
    ],
    ids=["value", "key", "headers"],
)
def test_a_record_too_large_for_a_dead_letter_with_its_reason_is_left_out(large: FakeRecord) -> None:
    result = fold_chunk([large], decode=EVENTS.decode, load=World().load)
    key, value, headers = dead_letter(result.rejected[0], now_ms=0)
    assert value is None
    assert key in (b"I-1", None)
    found = dict(headers)
    assert (found["dlq_partition"], found["dlq_offset"]) == (b"3", b"0")
    assert int(found[LEFT_HEADER]) >= MAX_MESSAGE_BYTES - 100


@pytest.mark.parametrize(
    "outside",
    [
        {"instance_id": ""},
        {"instance_id": "x" * 129},
        {"instance_id": OFFSET_KEY.decode()},
        {"occurred_at": 1 << 62},
        {"occurred_at": -(1 << 62)},
        {"occurred_at": 253_402_300_800_000},
        {"created_at": 1 << 62},
        {"occurred_at": 1_000, "received_at": -(1 << 62)},
        {"created_at": 1_000, "occurred_at": -(10**15), "received_at": -(1 << 62)},
    ],
    ids=str,
)
def test_an_event_that_cannot_be_stored_or_published_is_rejected(
    make_event: MakeEvent, outside: dict[str, Any]
) -> None:
    events = [make_event(Action.CREATED, **outside), make_event(Action.CREATED, instance_id="I-2", title="申请　一")]
    result = fold_chunk(records_of(events), decode=EVENTS.decode, load=World().load)
    assert [each.reason.dlq_reason for each in result.rejected] == ["outside-contract"]
    assert list(result.instances) == [b"I-2"]
    for each in sent_by(result):
        notification_headers(each)


def test_a_date_in_the_future_does_not_change_the_other_dates(make_event: MakeEvent) -> None:
    dates = {"created_at": 1_000, "occurred_at": 2_000, "received_at": 3_000, "finished_at": 253_402_300_799_999}
    [shown] = World().fold([make_event(Action.CREATED, task_id="T-1", **dates)]).instances.values()
    state = shown.instance.state
    assert (state.tasks[0].created_at, state.updated_at, state.finished_at) == (1_000, 2_000, 3_000)


@pytest.mark.parametrize("far", [301_001, 253_402_300_799_999])
def test_a_date_in_the_future_does_not_win_for_ever(make_event: MakeEvent, far: int) -> None:
    """In any order, each counts as of its receipt: no clock is years ahead."""
    created = make_event(
        Action.CREATED, task_id="T-1", recipient_ids=("ann",), title="早", occurred_at=far, created_at=far
    )
    cancelled = make_event(Action.CANCELLED, task_id="T-1", occurred_at=far)
    later = make_event(Action.CREATED, title="晚", occurred_at=2_000, received_at=2_000)
    completed = make_event(Action.COMPLETED, task_id="T-1", actor_id="ann", occurred_at=3_000, received_at=3_000)
    for order in itertools.permutations((created, cancelled, later, completed)):
        result = World().fold(order)
        [shown] = result.instances.values()
        state = shown.instance.state
        assert (state.title, state.updated_at) == ("晚", 3_000)
        assert [(each.status, each.created_at, each.decided_at) for each in state.tasks] == [
            (Status.COMPLETED, 1_000, 3_000)
        ]
        assert {each.occurred_at for each in sent_by(result)} <= {1_000, 2_000, 3_000}


def test_a_date_of_creation_alone_in_the_future_counts_as_the_receipt(make_event: MakeEvent) -> None:
    event = make_event(Action.CREATED, task_id="T-1", recipient_ids=("ann",), created_at=301_001)
    [shown] = World().fold([event]).instances.values()
    assert [each.created_at for each in shown.instance.state.tasks] == [1_000]


@pytest.mark.parametrize(
    "within", [{"instance_id": "x"}, {"instance_id": "x" * 128}, {"occurred_at": -62_135_596_800_000}], ids=str
)
def test_an_event_at_the_limits_of_the_contract_is_folded(make_event: MakeEvent, within: dict[str, Any]) -> None:
    event = make_event(Action.CREATED, **within)
    assert not fold_chunk(records_of([event]), decode=EVENTS.decode, load=World().load).rejected


def test_an_event_that_makes_its_instance_too_large_is_rejected_and_the_others_are_folded(
    make_event: MakeEvent,
) -> None:
    events = [
        make_event(Action.CREATED, instance_id="I-1"),
        make_event(Action.CREATED, instance_id="I-1", title="long"),
        make_event(Action.CREATED, instance_id="I-2"),
        make_event(Action.CREATED, instance_id="I-1", corp_id="another"),
    ]
    result = fold_chunk(records_of(events), decode=EVENTS.decode, load=World().load, too_large={1, 3})
    assert [(each.record.offset, each.reason.dlq_reason) for each in result.rejected] == [
        (1, "too-large"),
        (3, "another-corp"),
    ]
    assert result.instances[b"I-1"].instance.state.title is None
    assert list(result.instances) == [b"I-1", b"I-2"]
