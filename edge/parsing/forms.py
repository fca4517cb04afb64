"""Reads ``key=value&…`` as it stands in query strings and forms, and any text within its character set."""

from __future__ import annotations

import re
from binascii import a2b_qp

from edge.errors import Malformed

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")

type_texts = list[tuple[str, str]]


def form_pairs(encoded: bytes, codec: str, *, plus: bool, at_most: int) -> type_texts:
    """Names and values; with ``plus`` a plus sign is one, else it is a space.

    Raises:
        Malformed: an escape is broken, the text is not in that character set, or there are more than ``at_most``.
    """
    if b"%" in encoded and _BROKEN_ESCAPE.search(encoded):
        raise Malformed("percent-escape", "A percent sign is not followed by two hex digits.")
    # Counted before it is split: the list of a million empty pairs would cost more than the request.
    if encoded.count(b"&") >= 2 * at_most:
        raise Malformed("too-many-parameters", f"More than {at_most} parameters.")
    if not plus:
        encoded = encoded.replace(b"+", b" ")
    pairs = (pair.partition(b"=") for pair in encoded.split(b"&") if pair)
    return [(text_of(_unescaped(key), codec), text_of(_unescaped(value), codec)) for key, _, value in pairs]


def text_of(value: bytes, codec: str) -> str:
    """The text that the bytes are in the character set.

    Raises:
        Malformed: they are none.
    """
    try:
        return value.decode(codec)
    except UnicodeDecodeError as error:
        raise Malformed("invalid-utf-8", f"The request is not valid {codec.upper()}.") from error


def _unescaped(encoded: bytes) -> bytes:
    """The bytes that valid percent escapes stand for; ``urllib`` takes longer for a create than all else does.

    Quoted-printable differs in nothing but the sign, and the standard library decodes it in C.
    """
    if b"%" not in encoded:
        return encoded
    return a2b_qp(encoded.replace(b"=", b"=3D").replace(b"%", b"="))
