"""The values of a form as a person saw them: their texts, their digest, and what changed between two. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    Values = Mapping[str, str | None]

DIGEST_MAX = 64
_EMPTY = ("", "[]", "{}")
_NOT_JSON = (msgspec.MsgspecError, UnicodeError, RecursionError)
_COMPANION = "_id"
"""The end of the field with the ids of the people or departments whose names are in the field before it."""


def values_of(data: Mapping[str, Any] | None) -> dict[str, str | None]:
    """A system's values as events have them: texts, with lists and objects as JSON."""
    return {name: _text_of(value) for name, value in (data or {}).items()}


def digest_of(values: Values) -> str:
    """The same for the same values, in any order of fields."""
    return hashlib.sha256(msgspec.json.encode(sorted(values.items()))).hexdigest()


def changed_fields(start: Values, now: Values) -> list[str]:
    """The fields whose values differ, in the order of ``now``. A field that one of them lacks is empty there.

    Spelling is no difference: a number is equal to its text, and JSON to the same JSON with other spaces.
    """
    own = [each for each in now if not (each.endswith(_COMPANION) and each.removesuffix(_COMPANION) in now)]
    names = dict.fromkeys((*own, *start))
    return [each for each in names if _meaning(start.get(each)) != _meaning(now.get(each))]


def _text_of(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _meaning(text: str | None) -> object:
    if text is None or text.strip() in _EMPTY:
        return None
    try:
        found = msgspec.json.decode(text)
    except _NOT_JSON:
        return text
    if isinstance(found, int | float) and not isinstance(found, bool):
        return float(found) if abs(found) < 1 << 53 else text
    return msgspec.json.encode(found, order="sorted") if isinstance(found, list | dict) else text
