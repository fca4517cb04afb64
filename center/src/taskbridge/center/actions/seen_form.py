"""The values of a form as a person saw them: their texts, their digest, and what changed between two. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl, urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    Values = Mapping[str, str | None]

DIGEST_MAX = 64
_NUMBER, _NUMBER_MAX = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?"), 40
_EMPTY = ("", "[]", "{}")
_NOT_JSON = (msgspec.MsgspecError, UnicodeError, RecursionError)
_COMPANION = "_id"
"""The end of the field with the ids of the people or departments whose names are in the field before it."""


def digest_of(values: Values) -> str:
    """The same for the same values, in any order of fields and in any spelling: as ``changed_fields``."""
    meant = {name: _meaning(text) for name, text in values.items()}
    known = sorted((name, repr(meaning)) for name, meaning in meant.items() if meaning is not None)
    return hashlib.sha256(msgspec.json.encode(known)).hexdigest()


def changed_fields(start: Values, now: Values) -> list[str]:
    """The fields whose values differ, in the order of ``now``. A field that one of them lacks is empty there.

    Spelling is no difference: a number is equal to its text, nothing to an empty list, and JSON to the same JSON with
    other spaces. Nor is the signature in the address of a file, which is another one at each read.
    """
    own = [each for each in now if not (each.endswith(_COMPANION) and each.removesuffix(_COMPANION) in now)]
    names = dict.fromkeys((*own, *start))
    return [each for each in names if _meaning(start.get(each)) != _meaning(now.get(each))]


def _meaning(text: str | None) -> object:
    if text is None or text.strip() in _EMPTY:
        return None
    try:
        found = msgspec.json.decode(text)
    except _NOT_JSON:
        return text
    if isinstance(found, int | float) and not isinstance(found, bool):
        return float(found) if abs(found) < 1 << 53 else text
    if not isinstance(found, list | dict):
        return text
    try:
        return msgspec.json.encode(_plain(cast("object", found)), order="sorted")
    except _NOT_JSON:
        return text


def _plain(value: object) -> object:
    """JSON without what is empty in objects, with numbers as texts, and addresses of files without their queries."""
    if isinstance(value, list):
        return [_plain(each) for each in cast("list[object]", value)]
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        is_file = isinstance(fields.get("name"), str)
        plain = {
            name: _address(inner) if is_file and name.lower().endswith("url") else _plain(inner)
            for name, inner in fields.items()
        }
        return {name: inner for name, inner in plain.items() if inner not in (None, "", [], {})}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    if isinstance(value, str) and len(value) <= _NUMBER_MAX and _NUMBER.fullmatch(value):
        return _number(msgspec.json.decode(value))
    return value


def _number(value: float) -> str:
    return repr(float(value)) if abs(value) < 1 << 53 else str(value)


def _address(value: object) -> object:
    """Of a query only the name of the file: Yida's own addresses have it there."""
    if not isinstance(value, str):
        return value
    try:
        parts = urlsplit(value)
        names = [text for name, text in parse_qsl(parts.query) if name.lower() == "filename"]
    except ValueError:
        return value
    return [parts.netloc, parts.path, *names]
