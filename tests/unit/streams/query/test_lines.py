"""The native core writes a page's lines byte for byte as Python does, for any stored version and content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.wheels import WHERE_THE_CORE_IS
from taskbridge.schemas.events import SOURCE_YIDA
from taskbridge.streams.cores.native import CORE
from taskbridge.streams.inbox import layout
from taskbridge.streams.query.lines import lines_json, python_lines_json

if TYPE_CHECKING:
    from hypothesis.strategies import DataObject

pytestmark = WHERE_THE_CORE_IS

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=10) | st.sampled_from(
    ("", '"\\/', "\x00\x08\x09\x0a\x0c\x0d\x1f\x7f", "</script>\u2028", "é𝄞王", "x" * 300)
)
MAYBE = st.none() | TEXT
MOMENTS = st.integers(0, 1 << 42) | st.integers(-(1 << 63), (1 << 63) - 1)
ITEMS = st.builds(
    layout.Item,
    TEXT,
    MAYBE,
    MAYBE,
    MAYBE,
    TEXT,
    MAYBE,
    MAYBE,
    TEXT,
    MOMENTS,
    MOMENTS,
    process_name=MAYBE,
    actor_id=MAYBE,
    source=TEXT,
    outcome=MAYBE,
    finished_at=st.none() | MOMENTS,
    result=MAYBE,
)
VIEWS = st.sampled_from(("created", "pending", "handled", "copied"))
_FIELDS = len(layout.Item.__struct_fields__)


def names(corp_id: str, user_id: str) -> str | None:
    """Somebody's, as the people's topic may have it."""
    return f'{corp_id} "{user_id}" 李' if len(user_id) % 2 else None


def outcome(write: Any, values: list[bytes]) -> bytes | type[Exception]:
    try:
        return write(values, "pending", "corp", names)
    except Exception as error:  # noqa: BLE001 - any error must be the same
        return type(error)


@given(st.lists(ITEMS, max_size=4), VIEWS)
def test_what_this_version_stores_is_written_by_the_core(items: list[layout.Item], view: str) -> None:
    assert CORE is not None
    values = [layout.write_item(item) for item in items]
    found = CORE.lines(values, view, SOURCE_YIDA, lambda user_id: names("corp", user_id))
    assert found == python_lines_json(values, view, "corp", names)


@given(st.lists(st.tuples(ITEMS, st.integers(8, _FIELDS + 2)), max_size=3))
def test_what_other_versions_stored_is_answered_as_python_does(items: list[tuple[layout.Item, int]]) -> None:
    """Fields came at the end, and more will come."""
    values = [
        msgspec.msgpack.encode([*msgspec.msgpack.decode(layout.write_item(item)), None, 7][:fields])
        for item, fields in items
    ]
    assert outcome(lines_json, values) == outcome(python_lines_json, values)


@given(ITEMS, st.data())
def test_what_is_damaged_is_answered_or_refused_as_python_does(item: layout.Item, data: DataObject) -> None:
    value = bytearray(layout.write_item(item))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(value) + 1))
    values = [bytes(value[:cut]) if cut <= len(value) else bytes(value) + b"\xc0"]
    assert outcome(lines_json, values) == outcome(python_lines_json, values)


def test_what_asking_for_a_name_raises_is_raised() -> None:
    item = layout.Item("I", None, None, None, "APP", "ann", None, "PENDING", 1, 1)

    def broken(_corp_id: str, _user_id: str) -> str | None:
        raise LookupError("ann")

    with pytest.raises(LookupError, match="ann"):
        lines_json([layout.write_item(item)], "pending", "corp", broken)
