"""Ids never change, so these literals must never change. A sender's clock may be ahead by five minutes at most."""

from __future__ import annotations

import pytest

from taskbridge.schemas.events import Change, View, effective_time, event_id_for, notification_id_for, notification_key

PARAMETERS = {"appType": "APP_1", "corpId": "ding1", "formInstId": "I-1", "taskId": "T-1", "dateTime": "1693462062502"}


def test_event_id_is_pinned() -> None:
    assert event_id_for("yida", "complete", PARAMETERS) == EVENT_ID


def test_event_id_does_not_depend_on_the_signature_or_the_order() -> None:
    shuffled = dict(reversed([*PARAMETERS.items(), ("sign", "ABC")]))
    assert event_id_for("yida", "complete", shuffled) == EVENT_ID


@pytest.mark.parametrize(
    "parameters",
    [
        {**PARAMETERS, "dateTime": "1693462062503"},
        {**PARAMETERS, "extra": ""},
        {"appType": "APP_1corpId", "": "ding1", "formInstId": "I-1", "taskId": "T-1", "dateTime": "1693462062502"},
    ],
)
def test_event_id_differs_where_anything_else_differs(parameters: dict[str, str]) -> None:
    assert event_id_for("yida", "complete", parameters) != EVENT_ID


def test_event_id_differs_between_actions() -> None:
    assert event_id_for("yida", "cancel", PARAMETERS) != EVENT_ID


def test_values_with_the_same_concatenation_give_different_ids() -> None:
    assert event_id_for("yida", "create", {"a": "1", "b": "2"}) != event_id_for("yida", "create", {"a": "1b2"})


def test_notification_id_is_pinned() -> None:
    assert notification_id_for(EVENT_ID, "ann", View.PENDING, "T-1", Change.ADDED) == NOTIFICATION_ID


def test_notifications_of_a_person_share_a_key() -> None:
    assert notification_key("ding1", "张红") == "ding1/张红".encode()


RECEIVED = 1_700_000_000_000


@pytest.mark.parametrize(
    ("at", "counts_as"),
    [
        (RECEIVED - 10_000_000, RECEIVED - 10_000_000),
        (RECEIVED, RECEIVED),
        (RECEIVED + 300_000, RECEIVED + 300_000),
        (RECEIVED + 300_001, RECEIVED),
        (253_402_300_799_999, RECEIVED),
    ],
)
def test_a_time_more_than_five_minutes_after_its_receipt_counts_as_the_receipt(at: int, counts_as: int) -> None:
    assert effective_time(at, received_at=RECEIVED) == counts_as


EVENT_ID = "3197dbfe-3abf-571e-ba67-20de4f1d4452"
NOTIFICATION_ID = "1840f3d8-8b0c-59c1-a368-243204bc2342"
