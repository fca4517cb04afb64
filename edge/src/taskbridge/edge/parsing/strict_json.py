"""JSON that is safe to parse from strangers: bounded depth, no NaN, numbers as they are written.

Before verification only ``members`` and ``picker`` are used: compiled code, one pass, and no object for each of the
million values that a megabyte can have. ``parse`` makes objects, and is for verified texts.
"""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import msgspec
from msgspec import Raw

from taskbridge.edge.errors import MAX_PARAMETERS, too_many_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

MAX_DEPTH = 100

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""An unterminated string extends to the end: to skip it quote by quote would take quadratic time."""

_SURROGATE = b"\\ud"
"""The beginning of a surrogate's escape in lower case; others begin so too."""
_MAX_SURROGATES = 4096
"""Each costs time: a text with more of them is not repaired."""
_BACKSLASHES = re.compile(rb"\\*")
_PAIR_OR_HALF = re.compile(rb"(\\u[dD][89abAB]%b\\u[dD][c-fC-F]%b)|\\u[dD][89a-fA-F]%b" % ((b"[0-9a-fA-F]{2}",) * 3))


class Number(str):
    """A JSON number as it is written: ``1.0`` stays ``1.0``, and a million digits cost nothing."""

    __slots__ = ()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_no_constant)
_encoded = json.JSONEncoder(ensure_ascii=False).encode
_TEXT = msgspec.json.Decoder(str)
_RAW = msgspec.json.Decoder(dict[str, Raw])
_QUOTE = ord('"')


class _Name:
    """A member's name. Equal names are different keys of a dict, so that repeated members are not lost."""

    __slots__ = ("text",)
    text: str


class _Members(threading.local):
    """The members of one object, in one pass; msgspec calls the hook for each name."""

    def __init__(self) -> None:
        self.room = 0
        self.verbatim = msgspec.json.Decoder(dict[_Name, Raw], dec_hook=self._named)

    def _named(self, _type: type, text: str) -> _Name:
        self.room -= 1
        if self.room < 0:
            raise too_many_parameters()  # not a ValueError, which msgspec would replace
        name = _Name()
        name.text = text
        return name


_MEMBERS = _Members()


def members(text: str | bytes) -> list[tuple[str, str | None]]:
    """The members of a JSON object in order, with repeated ones: strings decoded, null as None, others as JSON text.

    Half a surrogate pair becomes a question mark, as in what Java signs and sends. Bytes are UTF-8.

    Raises:
        Malformed: There are more than ``MAX_PARAMETERS``; the rest is not parsed.
        ValueError: Not a single JSON object.
    """
    return _with_whole_pairs(_verbatim, text)


def picker(keys: Iterable[str]) -> Callable[[str], Picked]:
    """A function that finds these members of a JSON object, without parsing the values of the others.

    It raises ValueError if the text is not a single JSON object.
    """
    decoder = msgspec.json.Decoder(msgspec.defstruct("Found", [(key, Raw, None) for key in sorted(keys)], gc=False))

    return lambda text: Picked(_with_whole_pairs(decoder.decode, text.removeprefix("\ufeff")))


class Picked:
    """Members of a JSON object, each parsed when it is used."""

    __slots__ = ("_found",)

    def __init__(self, found: msgspec.Struct) -> None:
        self._found = found

    def get(self, key: str) -> Any:
        """A text, a number, or None; False for anything else, which is not parsed."""
        found: Raw | None = getattr(self._found, key, None)
        if found is None:
            return None
        raw = bytes(found)
        if raw.startswith(b'"'):
            return _TEXT.decode(raw)
        if raw == b"null":
            return None
        return Number(raw.decode()) if raw[:1] in b"-0123456789" else False


def parse(text: str) -> Any:
    """The value of a whole JSON text; numbers are ``Number``. Only for verified texts: each value costs time.

    Raises ValueError if it is not JSON, or nested deeper than MAX_DEPTH.
    """
    _check_depth(text)
    return _DECODER.decode(text.removeprefix("\ufeff"))


def parse_members(text: str, *, levels: int = 1) -> dict[str, Any]:
    """The members of an object, each as by ``parse``; a member that is nested too deep is its JSON text.

    With more ``levels``, an object that is nested too deep becomes its members. Only for verified texts.

    Raises ValueError if it is not a single JSON object.
    """
    found: dict[str, Any] = {}
    for name, raw in _with_whole_pairs(_RAW.decode, text.removeprefix("\ufeff")).items():
        written = bytes(raw).decode()
        try:
            found[name] = parse(written)
        except ValueError:
            found[name] = parse_members(written, levels=levels - 1) if levels > 1 and written[0] == "{" else written
    return found


def compact(value: Any) -> str:
    """A value of ``parse`` as JSON text without spaces."""
    if isinstance(value, Number):
        return value
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return "{" + ",".join([f"{_encoded(key)}:{compact(each)}" for key, each in items]) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(compact, cast("list[Any]", value))) + "]"
    return _encoded(value)


def _verbatim(text: str | bytes) -> list[tuple[str, str | None]]:
    _MEMBERS.room = MAX_PARAMETERS
    found: list[tuple[str, str | None]] = []
    for name, raw in _MEMBERS.verbatim.decode(text).items():
        if memoryview(raw)[0] == _QUOTE:  # it may be long: neither branch copies it first
            found.append((name.text, _TEXT.decode(raw)))
        else:
            written = str(raw, "utf-8")
            found.append((name.text, None if written == "null" else written))
    return found


def _with_whole_pairs(read: Callable[[str | bytes], T], text: str | bytes) -> T:
    """The result for the text or, if it has half surrogate pairs, for the repaired text."""
    try:
        try:
            return read(text)
        except msgspec.DecodeError:
            repaired = _without_half_pairs(text if isinstance(text, bytes) else text.encode())
            if repaired is None:
                raise
        return read(repaired)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _without_half_pairs(text: bytes) -> bytes | None:
    """The text with ``?`` for each half surrogate pair; None if it has none, or may have too many."""
    between = text.lower().split(_SURROGATE, _MAX_SURROGATES + 1)
    if len(between) > _MAX_SURROGATES + 1:
        return None
    pieces: list[bytes] = []
    end = at = 0
    for skipped in between[:-1]:
        at += len(skipped)
        backslashes = cast("re.Match[bytes]", _BACKSLASHES.match(skipped[::-1])).end()  # rstrip takes twice as long
        found = None if backslashes % 2 or at < end else _PAIR_OR_HALF.match(text, at)
        if found:
            pieces += text[end:at], found[1] or b"?"
            end = found.end()
        at += len(_SURROGATE)
    return b"".join((*pieces, text[end:])) if pieces else None


def may_have_half_pairs(text: bytes) -> bool:
    return _SURROGATE in text.lower()


def _check_depth(text: str) -> None:
    # Brackets within strings count too: below this number the exact count is not needed.
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
