"""Results too large for a record are found before anything is sent; only the events that cause them are rejected."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from support.streams.fold_inputs import EVENTS, REGISTRY, FakeRecord, event, reading
from taskbridge.schemas.codec import task_event_head_codec, task_notification_codec, task_state_codec
from taskbridge.schemas.events import Action, Person
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES, USUAL_MESSAGE_BYTES
from taskbridge.streams.fold.core import fold_within_limits
from taskbridge.streams.fold.native import IS_BUILT, NativeCore
from taskbridge.streams.fold.python import PythonCore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.schemas.events import TaskEvent
    from taskbridge.streams.fold.core import Folded

    FoldEvents = Callable[..., Folded]

LONG = "x" * 200_000


@pytest.fixture(params=[NativeCore, PythonCore] if IS_BUILT else [PythonCore])
def fold_events(request: pytest.FixtureRequest) -> FoldEvents:
    """The result of a chunk of these events, by each core."""

    def run(events: Sequence[TaskEvent], stored: dict[bytes, bytes] | None = None, **bounds: int) -> Folded:
        folding = request.param(
            events=task_event_head_codec(REGISTRY),
            states=task_state_codec(REGISTRY),
            notifications=task_notification_codec(REGISTRY),
            **{name: bounds.pop(name) for name in ("max_published_bytes",) if name in bounds},
        )
        records: list[Any] = [FakeRecord(b"I", EVENTS.encode(each), at) for at, each in enumerate(events)]
        read = reading(stored or {})
        return fold_within_limits(partial(folding.fold, records, read), records, **bounds)

    return run


def rejected(folded: Folded) -> list[tuple[int, str]]:
    return [(each.record.offset, each.reason.dlq_reason) for each in folded.rejected]


def test_a_chunk_that_fits_is_folded_completely(fold_events: FoldEvents) -> None:
    people = tuple(f"{number}" for number in range(100))
    folded = fold_events([event(event_id="1", title=LONG, recipient_ids=people, task_id="T-1"), event(event_id="2")])
    assert rejected(folded) == []
    assert (folded.folded, folded.largest > len(LONG)) == (2, True)


def test_the_largest_events_of_an_instance_too_large_for_the_changelog_are_rejected(fold_events: FoldEvents) -> None:
    def names(count: int, mark: str) -> tuple[str, ...]:
        return tuple(mark * 1000 + f"{number}" for number in range(count))

    events = [
        event(event_id="1", recipient_ids=names(1500, "a")),
        event(event_id="2", title="small"),
        event(event_id="3", recipient_ids=names(3000, "b")),
        event(event_id="4", action=Action.COMPLETED, task_id="T-1", actor_id="ann"),
    ]
    folded = fold_events(events)
    assert rejected(folded) == [(2, "too-large")]
    assert folded.folded == 3
    assert 1_500_000 < len(folded.stored[b"I"]) < MAX_MESSAGE_BYTES
    # As it was stored, it accepts a small event, and still no large one.
    again = fold_events([event(event_id="5", recipient_ids=names(3000, "c")), event(event_id="6")], dict(folded.stored))
    assert rejected(again) == [(0, "too-large")]


@pytest.mark.parametrize(
    "large",
    [{"title": "x" * USUAL_MESSAGE_BYTES}, {"originator": Person("ann" * 250_000)}, {"corp_id": "\x00" * 210_000}],
    ids=["value", "key", "headers"],
)
def test_an_event_with_an_oversized_notification_is_rejected(fold_events: FoldEvents, large: dict[str, Any]) -> None:
    people = {"originator": Person("ann"), "recipient_ids": ("bob",), "task_id": "T-1"}
    assert rejected(fold_events([event(event_id="1", **{**people, **large})])) == [(0, "too-large")]
    assert rejected(fold_events([event(event_id="1", **people)])) == []


@pytest.mark.parametrize("action", [Action.CREATED, Action.DELETED])
def test_an_event_with_oversized_headers_of_its_state_is_rejected(fold_events: FoldEvents, action: Action) -> None:
    """Escaped, a text has three times its bytes; these events have no notifications."""
    large = event(event_id="1", action=action, corp_id="\x00" * (MAX_MESSAGE_BYTES // 3))
    assert rejected(fold_events([large])) == [(0, "too-large")]


def test_the_brokers_limit_for_notifications_counts(fold_events: FoldEvents) -> None:
    long = event(event_id="1", title=LONG, originator=Person("ann"))
    assert rejected(fold_events([long], notification_bytes=100_000)) == [(0, "too-large")]
    assert rejected(fold_events([long], notification_bytes=300_000)) == []


def test_a_long_text_for_very_many_people_does_not_fill_the_memory(fold_events: FoldEvents) -> None:
    people = tuple(f"{number}" for number in range(600))
    events = [
        event(event_id="1", originator=Person("ann")),
        event(event_id="2", title="x" * 10_000, recipient_ids=people),
        event(event_id="3", task_id="T-1", recipient_ids=("bob",)),
    ]
    folded = fold_events(events, max_published_bytes=1 << 20)
    assert rejected(folded) == [(1, "too-large")]
    assert folded.folded == 2
    assert len(folded.notifications) == 3


def test_invalid_records_next_to_an_oversized_one_have_their_own_reasons(fold_events: FoldEvents) -> None:
    large = event(event_id="1", title="x" * USUAL_MESSAGE_BYTES, originator=Person("ann"))
    folded = fold_events([large, event(event_id="2", corp_id="another"), event(event_id="3", occurred_at=1 << 60)])
    # Without its first event, the instance is the second one's.
    assert rejected(folded) == [(0, "too-large"), (2, "outside-contract")]
