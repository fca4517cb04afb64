"""A page's lines as the JSON that is answered: by the native core where it was built, else in Python, and the same."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from taskbridge.schemas.events import SOURCE_YIDA
from taskbridge.streams.api.json_forms import item_json, to_json
from taskbridge.streams.cores.native import CORE
from taskbridge.streams.inbox import layout

if TYPE_CHECKING:
    from taskbridge.streams.api.json_forms import Names


def lines_json(values: list[bytes], view: str, corp_id: str, names: Names) -> bytes:
    """A JSON array of these lines, which are as stored; ``view`` in lower case.

    What the core cannot read, such as lines of a newer version, is read here.
    """
    found = None if CORE is None else CORE.lines(values, view, SOURCE_YIDA, partial(names, corp_id))
    return python_lines_json(values, view, corp_id, names) if found is None else found


def python_lines_json(values: list[bytes], view: str, corp_id: str, names: Names) -> bytes:
    """What the native core is held to."""
    return to_json([item_json(layout.read_item(value), view, corp_id, names) for value in values])
