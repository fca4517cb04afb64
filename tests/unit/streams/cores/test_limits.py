"""What does not fit into a record is found before anything is sent, and only what makes it too large is set aside."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from support.streams.fold_inputs import EVENTS, REGISTRY, FakeRecord, event, reading
from taskbridge.schemas.codec import task_event_head_codec, task_notification_codec, task_state_codec
from taskbridge.schemas.events import Action, Person
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES, USUAL_MESSAGE_BYTES
from taskbridge.streams.cores.core import fold_within_limits
from taskbridge.streams.cores.native import IS_BUILT, NativeCore
from taskbridge.streams.cores.python import PythonCore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.schemas.events import TaskEvent
    from taskbridge.streams.cores.core import Folded

    Taken = Callable[..., Folded]

LONG = "x" * 200_000


@pytest.fixture(params=[NativeCore, PythonCore] if IS_BUILT else [PythonCore])
def taken(request: pytest.FixtureRequest) -> Taken:
    """What a chunk of these events comes to, by each of the foldings."""

    def take(events: Sequence[TaskEvent], stored: dict[bytes, bytes] | None = None, **bounds: int) -> Folded:
        folding = request.param(
            events=task_event_head_codec(REGISTRY),
            states=task_state_codec(REGISTRY),
            notifications=task_notification_codec(REGISTRY),
            cached_instances=0,
            **{name: bounds.pop(name) for name in ("max_published_bytes",) if name in bounds},
        )
        records: list[Any] = [FakeRecord(b"I", EVENTS.encode(each), at) for at, each in enumerate(events)]
        read = reading(stored or {})
        return fold_within_limits(partial(folding.fold, records, read, generation=1), records, **bounds)

    return take


def aside(folded: Folded) -> list[tuple[int, str]]:
    return [(each.record.offset, each.reason.dlq_reason) for each in folded.rejected]


def test_what_fits_is_left_alone(taken: Taken) -> None:
    people = tuple(f"{number}" for number in range(100))
    folded = taken([event(event_id="1", title=LONG, recipient_ids=people, task_id="T-1"), event(event_id="2")])
    assert aside(folded) == []
    assert (folded.folded, folded.largest > len(LONG)) == (2, True)


def test_of_an_instance_that_would_not_fit_into_the_changelog_the_largest_events_go(taken: Taken) -> None:
    def names(count: int, mark: str) -> tuple[str, ...]:
        return tuple(mark * 1000 + f"{number}" for number in range(count))

    events = [
        event(event_id="1", recipient_ids=names(1500, "a")),
        event(event_id="2", title="kept"),
        event(event_id="3", recipient_ids=names(3000, "b")),
        event(event_id="4", action=Action.COMPLETED, task_id="T-1", actor_id="ann"),
    ]
    folded = taken(events)
    assert aside(folded) == [(2, "too-large")]
    assert folded.folded == 3
    assert 1_500_000 < len(folded.stored[b"I"]) < MAX_MESSAGE_BYTES
    # As it was stored, it takes what is small, and still nothing large.
    again = taken([event(event_id="5", recipient_ids=names(3000, "c")), event(event_id="6")], dict(folded.stored))
    assert aside(again) == [(0, "too-large")]


@pytest.mark.parametrize(
    "large",
    [{"title": "x" * USUAL_MESSAGE_BYTES}, {"originator": Person("ann" * 250_000)}, {"corp_id": "\x00" * 210_000}],
    ids=["value", "key", "headers"],
)
def test_a_notification_that_no_broker_would_take_is_found(taken: Taken, large: dict[str, Any]) -> None:
    people = {"originator": Person("ann"), "recipient_ids": ("bob",), "task_id": "T-1"}
    assert aside(taken([event(event_id="1", **{**people, **large})])) == [(0, "too-large")]
    assert aside(taken([event(event_id="1", **people)])) == []


@pytest.mark.parametrize("action", [Action.CREATED, Action.DELETED])
def test_a_state_whose_headers_no_broker_would_take_is_found(taken: Taken, action: Action) -> None:
    """Escaped, a text takes three times its bytes; nobody is told of these."""
    large = event(event_id="1", action=action, corp_id="\x00" * (MAX_MESSAGE_BYTES // 3))
    assert aside(taken([large])) == [(0, "too-large")]


def test_what_a_broker_takes_is_asked_for(taken: Taken) -> None:
    long = event(event_id="1", title=LONG, originator=Person("ann"))
    assert aside(taken([long], notification_bytes=100_000)) == [(0, "too-large")]
    assert aside(taken([long], notification_bytes=300_000)) == []


def test_a_long_text_that_very_many_are_told_of_does_not_fill_the_memory(taken: Taken) -> None:
    people = tuple(f"{number}" for number in range(600))
    events = [
        event(event_id="1", originator=Person("ann")),
        event(event_id="2", title="x" * 10_000, recipient_ids=people),
        event(event_id="3", task_id="T-1", recipient_ids=("bob",)),
    ]
    folded = taken(events, max_published_bytes=1 << 20)
    assert aside(folded) == [(1, "too-large")]
    assert folded.folded == 2
    assert len(folded.notifications) == 3


def test_poison_beside_it_is_parked_for_what_it_is(taken: Taken) -> None:
    large = event(event_id="1", title="x" * USUAL_MESSAGE_BYTES, originator=Person("ann"))
    folded = taken([large, event(event_id="2", corp_id="another"), event(event_id="3", occurred_at=1 << 60)])
    # Without its first event, the instance is the second one's.
    assert aside(folded) == [(0, "too-large"), (2, "outside-contract")]
