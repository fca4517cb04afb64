"""What a stream's frames look like, and that ids lead back to where they were given."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import StringConstraints, TypeAdapter, ValidationError

from taskbridge.center.live.wire import (
    ID_PATTERN,
    StreamPosition,
    notification_frame,
    position_of,
)

_ID = TypeAdapter[str](Annotated[str, StringConstraints(pattern=ID_PATTERN)])
PLACES = st.builds(StreamPosition, st.text("0123456789abcdef", min_size=1, max_size=32), st.integers(0, 10**18 - 1))


@given(PLACES, st.text())
def test_a_change_is_one_event(place: StreamPosition, title: str) -> None:
    frame = notification_frame(place, json.dumps({"title": title}).encode())

    event_id, event, data, *rest = frame.decode().split("\n")
    assert (event, rest) == ("event: notification", ["", ""])
    assert event_id == f"id: {place.epoch}-{place.seq}"
    assert json.loads(data.removeprefix("data: ")) == {"title": title}


@given(PLACES)
def test_an_id_leads_back_to_its_place(place: StreamPosition) -> None:
    assert position_of(_ID.validate_python(place.event_id)) == place


@pytest.mark.parametrize(
    "text", ["x", "1", "1-", "-1", "1-2-3", "g-1", "1-02", " 1-2", "1-2\n", "\uff11-2", "1-" + "9" * 99]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        _ID.validate_python(text)


def test_the_id_of_a_release_before_is_of_another_epoch() -> None:
    """Partition and offset then: the client gets ``reset``, and no 400."""
    assert position_of("3-1742") == StreamPosition("3", 1742)
