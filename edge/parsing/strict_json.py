"""JSON that is safe to take from strangers: bounded depth, no NaN, numbers kept as they are written."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, NoReturn, cast

MAX_DEPTH = 100

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""An unterminated string runs to the end: were it skipped quote by quote, the scan would be quadratic."""
_SPACE = re.compile(r"[ \t\r\n]*")


class Number(str):
    """A JSON number as it is written: ``1.0`` stays ``1.0``, and a million digits cost nothing."""

    __slots__ = ()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_no_constant)


class _Pairs(list[tuple[str, Any]]):
    """The members of an object, as no array is."""

    __slots__ = ()


_ONE_PASS_MAX = 64 << 10

_PAIRS = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_no_constant, object_pairs_hook=_Pairs)


def parse(text: str) -> Any:
    """The value of a whole JSON text; numbers come as ``Number``.

    Raises:
        ValueError: not JSON, or nested deeper than MAX_DEPTH.
    """
    _check_depth(text)
    return _DECODER.decode(text)


def members(text: str, *, at_most: int = sys.maxsize) -> list[tuple[str, str | None]]:
    """The members of a JSON object in their order, repeated ones too: strings decoded, null as None, the rest verbatim.

    One more than ``at_most`` is the last that is looked at: a megabyte holds a hundred thousand.

    Raises:
        ValueError: not one JSON object, or nested deeper than MAX_DEPTH.
    """
    _check_depth(text)
    # In one pass where that cannot take long; a large text is left off at the last member that counts.
    flat = _flat_members(text) if len(text) <= _ONE_PASS_MAX else None
    return _members_verbatim(text, at_most) if flat is None else flat


def _flat_members(text: str) -> list[tuple[str, str | None]] | None:
    """The members when all are strings or null, as Yida's are: in one pass of the compiled scanner."""
    pairs = _PAIRS.decode(text)
    if type(pairs) is not _Pairs:
        return None
    for _, value in pairs:
        if type(value) is not str and value is not None:
            return None
    return pairs


def _members_verbatim(text: str, at_most: int) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    at = _expect(text, _skip_space(text, 0), "{")
    if text[at : at + 1] == "}":
        at += 1
    else:
        while True:
            if text[at : at + 1] != '"':
                raise ValueError("a member's name is expected")
            key, at = _DECODER.raw_decode(text, at)
            start = _expect(text, _skip_space(text, at), ":")
            value, at = _DECODER.raw_decode(text, start)
            verbatim = text[start:at]
            is_text = value is None or verbatim[0] == '"'
            found.append((cast("str", key), cast("str | None", value) if is_text else verbatim))
            if len(found) > at_most:
                return found
            at = _skip_space(text, at)
            if text[at : at + 1] == "}":
                at += 1
                break
            at = _expect(text, at, ",")
    if _skip_space(text, at) != len(text):
        raise ValueError("something follows the JSON object")
    return found


def compact(value: Any) -> str:
    """A value of ``parse`` as JSON text without spaces."""
    if isinstance(value, Number):
        return value
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{compact(each)}" for key, each in items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(compact, cast("list[Any]", value))) + "]"
    return json.dumps(value, ensure_ascii=False)


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _expect(text: str, at: int, character: str) -> int:
    """The place of what follows ``character``, which must stand at ``at``."""
    if text[at : at + 1] != character:
        raise ValueError(f"{character} is expected")
    return _skip_space(text, at + 1)


def _check_depth(text: str) -> None:
    # Brackets within strings count here too, so this only says that the exact count is not needed.
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError("nested too deep")
        elif token[0] in "]}":
            depth -= 1
