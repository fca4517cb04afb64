"""What a stream's frames look like, and that ids lead back to where they were given."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from support.records import NOTIFICATIONS
from taskbridge.schemas.events import Person, TaskNotification
from taskbridge.streams.sse.wire import (
    BrokenEventId,
    Place,
    heartbeat_frame,
    notification_frame,
    place_of,
    reset_frame,
)


@given(NOTIFICATIONS, st.integers(0, 99), st.integers(0, 10**12))
def test_any_notification_is_one_event(notification: TaskNotification, partition: int, offset: int) -> None:
    frame = notification_frame(partition, offset, notification)

    event_id, event, data, *rest = frame.decode().split("\n")
    assert (event, rest) == ("event: notification", ["", ""])
    assert event_id == f"id: {partition}-{offset + 1}"
    found = json.loads(data.removeprefix("data: "))
    assert found["notification_id"] == notification.notification_id
    assert found["title"] == notification.title


def test_words_and_times_are_as_in_the_contract(notification: TaskNotification) -> None:
    found = json.loads(notification_frame(3, 17, notification).decode().split("data: ")[1])

    assert found["view"] == "pending"
    assert (found["change"], found["status"]) == ("ADDED", "PENDING")
    assert found["occurred_at"] == "2026-01-31T08:00:00.000Z"
    assert found["originator"] == {"user_id": "ann", "name": "安"}
    assert list(found) == list(TaskNotification.__struct_fields__)


def test_whom_the_sender_did_not_name_is_called_as_is_known_here(notification: TaskNotification) -> None:
    def known(corp_id: str, user_id: str) -> str | None:
        return "鲍勃" if (corp_id, user_id) == ("corp", "bob") else None

    def originator(person: Person | None) -> Any:
        frame = notification_frame(3, 17, replace(notification, originator=person), known)
        return json.loads(frame.decode().split("data: ")[1])["originator"]

    assert originator(Person("bob", None)) == {"user_id": "bob", "name": "鲍勃"}
    assert originator(Person("cai", None)) == {"user_id": "cai", "name": None}
    assert originator(Person("bob", "Bob")) == {"user_id": "bob", "name": "Bob"}
    assert originator(None) is None


@given(st.builds(Place, st.integers(0, 10**9 - 1), st.integers(0, 10**18 - 1)))
def test_an_id_leads_back_to_its_place(place: Place) -> None:
    assert place_of(place.event_id) == place


@pytest.mark.parametrize(
    "text", ["", "x", "1", "1-", "-1", "1-2-3", "01-2", "1-02", " 1-2", "1-2\n", "\uff11-2", "1-" + "9" * 99]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(BrokenEventId):
        place_of(text)


def test_a_heartbeat_is_a_comment_and_no_event() -> None:
    assert heartbeat_frame(None) == b": alive\n\n"
    assert heartbeat_frame(Place(3, 18)) == b": alive\nid: 3-18\n\n"
    assert reset_frame("so").startswith(b"event: reset\ndata: ")
