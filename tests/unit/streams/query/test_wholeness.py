"""Rebuilt inboxes are used for answers only once they hold all republished notifications."""

from __future__ import annotations

import pytest
from faust.types import TP

from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.api.refusals import NotNow
from taskbridge.streams.engine.transport import Position
from taskbridge.streams.query.inboxes import Wholeness


def test_each_partition_is_answered_from_once_it_is_as_far_as_was_told() -> None:
    at: dict[TP, Position] = {}
    whole = Wholeness(lambda: at, {0: 10, 1: 0})
    whole.check(1)
    whole.check(2)
    with pytest.raises(NotNow) as told:
        whole.check(0)
    assert told.value.headers == {"Retry-After": "2"}
    at[TP(TASK_NOTIFICATIONS.name, 0)] = Position(9, None)
    with pytest.raises(NotNow):
        whole.check(0)
    at[TP(TASK_NOTIFICATIONS.name, 0)] = Position(10, None)
    whole.check(0)
    at.clear()
    whole.check(0)
