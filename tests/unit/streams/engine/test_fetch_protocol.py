"""Fetches are written and read as aiokafka writes and reads them, damaged ones too."""

from __future__ import annotations

import io
import struct
from typing import Any, cast

import pytest
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11, FetchResponse_v11
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.streams.engine.fetch_protocol import Topics, write_and_read_fetches

NAMES = st.text(max_size=5)
SHORT, INT, LONG = (st.integers(-(1 << bits), (1 << bits) - 1) for bits in (15, 31, 63))
ABORTED = st.none() | st.lists(st.tuples(LONG, LONG), max_size=2)
TOLD = st.tuples(INT, SHORT, LONG, LONG, LONG, ABORTED, INT, st.none() | st.binary(max_size=5))
RESPONSES = st.lists(st.tuples(NAMES, st.lists(TOLD, max_size=3)), max_size=3)
REQUESTS = st.lists(st.tuples(NAMES, st.lists(st.tuples(INT, INT, LONG, LONG, INT), max_size=3)), max_size=3)


def topics_of(message: Any) -> Any:
    """aiokafka's own field."""
    field = message.SCHEMA.fields[message.SCHEMA.names.index("topics")]
    return field.own if isinstance(field, Topics) else field


ASKED, ANSWERED = topics_of(FetchRequest_v11), topics_of(FetchResponse_v11)


def read(field: Any, response: bytes) -> tuple[Any, int]:
    """What is read, and where; or the error."""
    data = io.BytesIO(response)
    data.seek(3)
    try:
        return field.decode(data), data.tell()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return repr(error), -1


@given(REQUESTS)
def test_what_is_asked_is_written_as_aiokafka_writes_it(topics: Any) -> None:
    assert Topics(ASKED).encode(topics) == ASKED.encode(topics)


def test_what_cannot_be_asked_is_aiokafkas_error() -> None:
    with pytest.raises(ValueError, match="Error encountered"):
        Topics(ASKED).encode([("events", [(1 << 40, 0, 0, 0, 0)])])


@given(RESPONSES, st.binary(max_size=3))
def test_what_is_told_is_read_as_aiokafka_reads_it(topics: Any, behind: bytes) -> None:
    response = b"xyz" + ANSWERED.encode(topics) + behind
    assert read(Topics(ANSWERED), response) == read(ANSWERED, response) == (topics, len(response) - len(behind))


@given(RESPONSES.filter(bool), st.data())
def test_what_is_damaged_is_aiokafkas_error(topics: Any, data: Any) -> None:
    whole = ANSWERED.encode(topics)
    at = data.draw(st.integers(0, len(whole) - 1))
    number = struct.pack(">i", data.draw(st.integers(-3, 3)))
    for damaged in (whole[:at], whole[:at] + number + whole[at + 4 :]):
        assert read(Topics(ANSWERED), b"xyz" + damaged) == read(ANSWERED, b"xyz" + damaged)


def test_from_then_on_whole_fetches_are_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = FetchRequest(500, 1, 1 << 20, 1, [("events", [(0, 7, 9)])]).prepare({1: (4, 17)})
    answered = FetchResponse_v11(0, 0, 0, [("events", [(0, 0, 9, 9, 0, [], -1, b"records")])])
    written, told = asked.encode(), answered.encode()
    for message in (FetchRequest_v11, FetchResponse_v11):
        fields = tuple(Topics(each) if each is topics_of(message) else each for each in message.SCHEMA.fields)
        monkeypatch.setattr(message.SCHEMA, "fields", message.SCHEMA.fields)
        write_and_read_fetches()
        write_and_read_fetches()  # once is enough
        assert [type(each) for each in message.SCHEMA.fields] == [type(each) for each in fields]
        assert not any(isinstance(each, Topics) and isinstance(each.own, Topics) for each in message.SCHEMA.fields)
    assert "records" in repr(answered)  # what aiokafka's log says of it
    assert asked.encode() == written
    assert cast("Any", FetchResponse_v11.decode(told)).topics == cast("Any", answered).topics
