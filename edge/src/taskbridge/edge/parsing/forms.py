"""Reads ``key=value&…`` as it stands in query strings and forms, and any text within its character set."""

from __future__ import annotations

from binascii import a2b_qp
from typing import AnyStr

from taskbridge.edge.errors import Malformed

_QUOTED = bytes(range(256)).replace(b"%", b"=")
_QUOTED_SPACES = _QUOTED.replace(b"+", b" ")
"""What each byte is in quoted-printable; in the second a plus sign is a space."""
_SPACES = bytes.maketrans(b"+", b" ")
_MAX_EQUALS = 64 << 10
"""Beside escapes in one value. Each takes far longer to keep than an escape to undo, and encoders escape them too."""

Texts = list[tuple[str, str]]


def form_pairs(encoded: bytes, codec: str, *, plus: bool, at_most: int) -> Texts:
    """Names and values; with ``plus`` a plus sign is one, else it is a space.

    Raises:
        Malformed: an escape is broken, the text is not in that character set, or there are more than ``at_most``.
    """
    if b"%" not in encoded:  # as in nearly all but a create: one text is decoded, and not each by itself
        text = text_of(encoded if plus or b"+" not in encoded else encoded.translate(_SPACES), codec)
        whole = [pair.partition("=") for pair in _all(text.split("&", 2 * at_most), at_most) if pair]
        return [(key, value) for key, _, value in whole]
    fields = form_fields(encoded, plus=plus, at_most=at_most)
    return [(text_of(key, codec), text_of(value, codec)) for key, value in fields]


def form_fields(encoded: bytes, *, plus: bool, at_most: int) -> list[tuple[bytes, bytes]]:
    """The same in bytes: no character of the sets that are known here has a separator's byte within it.

    Raises:
        Malformed: an escape is broken, or there are more than ``at_most``. Of a million pairs not even a list is made.
    """
    pairs = [pair.partition(b"=") for pair in _all(encoded.split(b"&", 2 * at_most), at_most) if pair]
    return [(_unescaped(key, plus=plus), _unescaped(value, plus=plus)) for key, _, value in pairs]


def _all(split: list[AnyStr], at_most: int) -> list[AnyStr]:
    if len(split) > 2 * at_most:  # twice as many, for some are empty
        raise Malformed("too-many-parameters", f"More than {at_most} parameters.")
    return split


def text_of(value: bytes, codec: str) -> str:
    """The text that the bytes are in the character set.

    Raises:
        Malformed: they are none.
    """
    try:
        return value.decode(codec)
    except UnicodeDecodeError as error:
        raise Malformed("invalid-utf-8", f"The request is not valid {codec.upper()}.") from error


def _unescaped(encoded: bytes, *, plus: bool) -> bytes:
    """What percent escapes stand for; ``urllib`` takes longer for a create than all else does.

    Quoted-printable differs in nothing but the sign, and the standard library decodes it in C. What is no escape it
    leaves as it is, or drops as the break of a line, so that less is gone than two bytes for each.
    """
    if b"%" not in encoded:
        return encoded if plus or b"+" not in encoded else encoded.translate(_SPACES)
    if encoded.count(b"=") > _MAX_EQUALS:
        raise Malformed("percent-escape", f"More than {_MAX_EQUALS} equals signs beside percent signs.")
    written = encoded.replace(b"=", b"=3D").translate(_QUOTED if plus else _QUOTED_SPACES)
    found = a2b_qp(written)
    if len(written) - len(found) != 2 * written.count(b"=") or (
        (b"\n" in written or b"\r" in written) and (b"=\n" in written or b"=\r" in written)
    ):
        raise Malformed("percent-escape", "A percent sign is not followed by two hex digits.")
    return found
