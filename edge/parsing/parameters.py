"""Finds the parameters of a request in all the encodings that Yida might use: JSON, form, multipart, query string."""

from __future__ import annotations

import re
from binascii import a2b_qp
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import multipart
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from edge.errors import Malformed, UnsupportedType
from edge.parsing import strict_json
from edge.proof.signature import folding

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PARAMETERS = 256
"""Yida sends eight. The bound keeps a request of a million keys from holding up everyone else's."""

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
_UTF_8 = ("", "utf-8", "utf8")

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")

type_pairs = list[tuple[str, str | None]]


def read_parameters(query: bytes, content_type: str | None, body: bytes) -> list[dict[str, str]]:
    """Each way in which the request's parameters can be read: one, or two where a JSON body has nulls.

    What Yida signs for a null is not known: in the first reading it is absent, in the second the text ``null``. Values
    are what a signature can be over: strings decoded, and other JSON values by their text exactly as it stands.

    Raises:
        Malformed: cannot be read, or a key is given twice.
        UnsupportedType: a content type or character set that is not accepted.
    """
    pairs = _form_pairs(query) if query else []
    if body:
        pairs += _body_pairs(content_type or "", body)
    if len(pairs) > MAX_PARAMETERS:
        raise Malformed("too-many-parameters", f"More than {MAX_PARAMETERS} parameters.")
    keys = [key for key, _ in pairs]
    if len(set(map(folding(keys), keys))) < len(keys):
        # They would have no defined order, and so no defined signature.
        raise Malformed("duplicate-key", "A parameter is given twice; names that differ only by case count as one.")
    parameters = dict(pairs)
    if None not in parameters.values():
        return [cast("dict[str, str]", parameters)]
    return [
        {key: value for key, value in pairs if value is not None},
        {key: "null" if value is None else value for key, value in pairs},
    ]


def _body_pairs(content_type: str, body: bytes) -> type_pairs:
    media_type, charset, boundary = _type_of(content_type)
    if charset not in _UTF_8:
        raise UnsupportedType("charset", "Only UTF-8 is accepted.")
    if not media_type:
        media_type = _JSON if body.lstrip().startswith(b"{") else _FORM
    if media_type == _JSON or media_type.endswith("+json"):
        return _json_pairs(body)
    if media_type == _FORM:
        return _form_pairs(body)
    if media_type == _MULTIPART:
        return _multipart_pairs(boundary, body)
    raise UnsupportedType("content-type", f"Send {_JSON}, {_FORM} or {_MULTIPART}.")


@lru_cache(maxsize=64)  # a sender says the same at each callback; strangers cannot fill more than this
def _type_of(content_type: str) -> tuple[str, str, str]:
    """Media type, character set and boundary."""
    media_type, options = cast("tuple[str, dict[str, str]]", multipart.parse_options_header(content_type))
    return media_type, options.get("charset", "").lower(), options.get("boundary", "")


def _json_pairs(body: bytes) -> type_pairs:
    text = _text(body)
    try:
        pairs = strict_json.members(text, at_most=MAX_PARAMETERS)
    except ValueError as error:
        raise Malformed("json", f"The body is not a JSON object that can be read: {error}.") from error
    # Half a pair can only have come by an escape: the text itself was UTF-8.
    for key, value in pairs if "\\u" in text else ():
        if not _is_unicode(key) or not _is_unicode(value or ""):
            raise Malformed("lone-surrogate", "Half a surrogate pair is not a character.")
    return pairs


def _form_pairs(encoded: bytes) -> type_pairs:
    if _BROKEN_ESCAPE.search(encoded):
        raise Malformed("percent-escape", "A percent sign is not followed by two hex digits.")
    # Counted before it is split: the list of a million empty pairs would cost more than the request.
    if encoded.count(b"&") >= 2 * MAX_PARAMETERS:
        raise Malformed("too-many-parameters", f"More than {MAX_PARAMETERS} parameters.")
    pairs = (pair.replace(b"+", b" ").partition(b"=") for pair in encoded.split(b"&") if pair)
    return [(_text(_unescaped(key)), _text(_unescaped(value))) for key, _, value in pairs]


def _unescaped(encoded: bytes) -> bytes:
    """The bytes that valid percent escapes stand for; ``urllib`` takes longer for a create than all else does.

    Quoted-printable differs in nothing but the sign, and the standard library decodes it in C.
    """
    if b"%" not in encoded:
        return encoded
    return a2b_qp(encoded.replace(b"=", b"=3D").replace(b"%", b"="))


def _multipart_pairs(boundary: str, body: bytes) -> type_pairs:
    try:
        return list(_parts(boundary, body))
    except MultipartError as error:
        raise Malformed(
            "multipart", f"The body is not multipart/form-data that can be read: {error.args[0]}."
        ) from error


def _parts(boundary: str, body: bytes) -> Iterable[tuple[str, str]]:
    with PushMultipartParser(boundary, max_segment_count=MAX_PARAMETERS) as parser:
        segment: MultipartSegment | None = None
        value = bytearray()
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                if event.filename is not None:
                    raise Malformed("file-part", "A file is no parameter.")
                segment = event
            elif event is not None:
                value += event
            else:
                assert segment is not None
                yield segment.name or "", _part_text(segment, bytes(value))
                value.clear()


def _part_text(segment: MultipartSegment, value: bytes) -> str:
    # Apache's client labels plain ASCII as ISO-8859-1, so the label counts only where it makes a difference.
    if (segment.charset or "").lower() not in _UTF_8 and not value.isascii():
        raise UnsupportedType("charset", "Only UTF-8 is accepted.")
    return _text(value)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Malformed("invalid-utf-8", "The request is not valid UTF-8.") from error


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
