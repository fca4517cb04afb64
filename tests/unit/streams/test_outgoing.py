"""What does not fit into a record is found before anything is sent, and traced to its instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.events import Action
from schemas.topics import MAX_MESSAGE_BYTES, MAX_NOTIFICATION_BYTES
from streams.chunk import ChunkResult
from streams.lifecycle import fold
from streams.outgoing import Outgoing
from streams.views import difference, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.events import TaskEvent

    type_make_event = Callable[..., TaskEvent]


def outgoing(make_event: type_make_event, *, stored: int = 10, told: int = 10, people: int = 1) -> Outgoing:
    """Two instances, the second of which has values of these sizes."""
    result, sizes = ChunkResult(), list[int]()
    for name, count, size in (("I-1", 1, 10), ("I-2", people, told)):
        recipients = tuple(str(each) for each in range(count))
        event = make_event(Action.CREATED, instance_id=name, recipient_ids=recipients, task_id="T-1")
        result.notifications += difference(None, show(fold(None, event)), event)
        sizes += [size] * count
    return Outgoing(
        result, {b"I-1": bytes(10), b"I-2": bytes(stored)}, [], [(b"key", bytes(size), []) for size in sizes]
    )


def test_what_fits_is_left_alone(make_event: type_make_event) -> None:
    assert outgoing(make_event, stored=3 << 20, told=1 << 19, people=100).too_large() == set()


def test_an_instance_that_would_not_fit_into_the_changelog_is_found(make_event: type_make_event) -> None:
    assert outgoing(make_event, stored=MAX_MESSAGE_BYTES).too_large() == {b"I-2"}


def test_a_notification_that_no_broker_would_take_is_found(make_event: type_make_event) -> None:
    assert outgoing(make_event, told=MAX_NOTIFICATION_BYTES).too_large() == {b"I-2"}


def test_a_long_text_that_very_many_are_told_of_is_found(make_event: type_make_event) -> None:
    assert outgoing(make_event, told=1 << 17, people=600).too_large() == {b"I-2"}
