"""Reads ``key=value&…`` as it stands in query strings and forms, and any text within its character set."""

from __future__ import annotations

from binascii import a2b_qp
from typing import AnyStr

from taskbridge.edge.errors import Malformed

_QUOTED = bytes(range(256)).replace(b"%", b"=")
_QUOTED_SPACES = _QUOTED.replace(b"+", b" ")
"""What each byte is in quoted-printable; in the second a plus sign is a space."""

Texts = list[tuple[str, str]]


def form_pairs(encoded: bytes, codec: str, *, plus: bool, at_most: int) -> Texts:
    """Names and values; with ``plus`` a plus sign is one, else it is a space.

    Raises:
        Malformed: an escape is broken, the text is not in that character set, or there are more than ``at_most``.
    """
    most = 2 * at_most  # for some are empty
    if b"%" not in encoded:
        # No character of these sets has a separator's byte within it.
        text = text_of(encoded if plus else encoded.replace(b"+", b" "), codec)
        whole = [pair.partition("=") for pair in _all(text.split("&", most), most) if pair]
        return [(key, value) for key, _, value in whole]
    pairs = [pair.partition(b"=") for pair in _all(encoded.split(b"&", most), most) if pair]
    return [(_unescaped(key, codec, plus=plus), _unescaped(value, codec, plus=plus)) for key, _, value in pairs]


def text_of(value: bytes, codec: str) -> str:
    """The text that the bytes are in the character set.

    Raises:
        Malformed: they are none.
    """
    try:
        return value.decode(codec)
    except UnicodeDecodeError as error:
        raise Malformed("invalid-utf-8", f"The request is not valid {codec.upper()}.") from error


def _all(split: list[AnyStr], most: int) -> list[AnyStr]:
    """What was split at most that often, if that was all there is: of a million pairs not even a list is made."""
    if len(split) > most:
        raise Malformed("too-many-parameters", f"More than {most // 2} parameters.")
    return split


def _unescaped(encoded: bytes, codec: str, *, plus: bool) -> str:
    """The text that percent escapes stand for; ``urllib`` takes longer for a create than all else does.

    Quoted-printable differs in nothing but the sign, and the standard library decodes it in C. What is no escape it
    leaves as it is, or drops as the break of a line, so that less is gone than two bytes for each.
    """
    if b"%" not in encoded:
        return text_of(encoded if plus else encoded.replace(b"+", b" "), codec)
    written = encoded.replace(b"=", b"=3D").translate(_QUOTED if plus else _QUOTED_SPACES)
    found = a2b_qp(written)
    if len(written) - len(found) != 2 * written.count(b"=") or (
        (b"\n" in written or b"\r" in written) and (b"=\n" in written or b"=\r" in written)
    ):
        raise Malformed("percent-escape", "A percent sign is not followed by two hex digits.")
    return text_of(found, codec)
