"""Reads ``key=value&…`` as it stands in query strings and forms, and any text within its character set."""

from __future__ import annotations

from binascii import a2b_qp
from typing import AnyStr

from taskbridge.edge.errors import MAX_PARAMETERS, Malformed, too_many_parameters

_QUOTED = bytes(range(256)).replace(b"%", b"=")
_QUOTED_SPACES = _QUOTED.replace(b"+", b" ")
"""What each byte is in quoted-printable; in the second a plus sign is a space."""
_SPACES = bytes.maketrans(b"+", b" ")
_MAX_PLACES = 2 * MAX_PARAMETERS
"""Twice as many, for some are empty."""
_MAX_EQUALS = 64 << 10
"""Beside escapes in one value. Each takes far longer to keep than an escape to undo, and encoders escape them too."""

Texts = list[tuple[str, str]]


class Form:
    """The pairs of one form. What was read of it in one way is not read again in another: decoding takes longest."""

    __slots__ = ("_encoded", "_fields", "_texts")

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded
        self._fields: dict[bool, list[tuple[bytes, bytes]]] = {}
        self._texts: dict[str, Texts] = {}

    def pairs(self, codec: str, *, plus: bool) -> Texts:
        """Names and values; with ``plus`` a plus sign is one, else it is a space.

        Raises:
            Malformed: an escape is broken, the text is not in that character set, or there are more than
                ``MAX_PARAMETERS``: of a million not even a list is made.
        """
        if b"%" in self._encoded:
            fields = self._fields.get(plus)
            if fields is None:  # no character of the sets that are known here has a separator's byte within it
                pairs = [pair.partition(b"=") for pair in _all(self._encoded.split(b"&", _MAX_PLACES)) if pair]
                fields = [(_unescaped(key, plus=plus), _unescaped(value, plus=plus)) for key, _, value in pairs]
                self._fields[plus] = fields
            return [(text_of(key, codec), text_of(value, codec)) for key, value in fields]
        texts = self._texts.get(codec)
        if texts is None:  # as nearly all but a create: one text is decoded, and not each by itself
            text = text_of(self._encoded, codec)
            whole = [pair.partition("=") for pair in _all(text.split("&", _MAX_PLACES)) if pair]
            texts = self._texts[codec] = [(key, value) for key, _, value in whole]
        if plus or b"+" not in self._encoded:
            return texts
        return [(key.replace("+", " "), value.replace("+", " ")) for key, value in texts]


def _all(split: list[AnyStr]) -> list[AnyStr]:
    if len(split) > _MAX_PLACES:
        raise too_many_parameters()
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
        raise Malformed("percent-escape", f"More than {_MAX_EQUALS} equals signs in a form with percent escapes.")
    written = encoded.replace(b"=", b"=3D").translate(_QUOTED if plus else _QUOTED_SPACES)
    found = a2b_qp(written)
    if len(written) - len(found) != 2 * written.count(b"=") or (
        (b"\n" in written or b"\r" in written) and (b"=\n" in written or b"=\r" in written)
    ):
        raise Malformed("percent-escape", "A percent sign is not followed by two hex digits.")
    return found
