"""Tells what a body is: JSON, a form or multipart, in which character set, packed or not. Its labels are hints.

What Java's and Apache's clients send by default is JSON as ``text/plain`` or under the form's type, labelled
ISO-8859-1; a gateway may pack it. None of that changes what is signed.
"""

from __future__ import annotations

import re
import zlib
from codecs import BOM_UTF8
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import multipart
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from taskbridge.edge.errors import MAX_PARAMETERS, Malformed, Rejection, TooLarge, UnsupportedType
from taskbridge.edge.parsing import strict_json
from taskbridge.edge.parsing.forms import Form, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Pairs = list[tuple[str, str | None]]

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"

_UTF_8 = "utf-8"
_GBK = ("gb18030", _UTF_8)
_LATIN = (_UTF_8, "latin-1")
_CODECS = {
    **dict.fromkeys(("gbk", "x-gbk", "gb2312", "gb18030", "cp936", "ms936", "euc-cn"), _GBK),
    **dict.fromkeys(("iso-8859-1", "iso8859-1", "latin1", "latin-1", "windows-1252"), _LATIN),
}
"""Label → the two character sets that it leaves open, the likelier first. Any other label leaves UTF-8 only."""

_GZIP = b"\x1f\x8b"
_OBJECT = re.compile(rb"[ \t\r\n]*\{")
_FORM_LIKE = re.compile(rb"[ \t\r\n]*[^\s<>{}&=\"]{1,256}=")
_LOOKED_AT_BYTES = 1024
_NO_ACCIDENT_BYTES = 1024
"""So many bytes that go on with a character of UTF-8 are no other set's: one in six characters of GBK looks like it."""


def unpacked(body: bytes, *, max_bytes: int) -> bytes:
    """The body, unpacked where it is gzip, whatever its label says.

    Raises:
        TooLarge: it unpacks to more than ``max_bytes``; no more than that is unpacked.
        Malformed: it is not whole.
    """
    if not body.startswith(_GZIP):
        return body
    unpacking = zlib.decompressobj(wbits=31)
    try:
        found = unpacking.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise Malformed("gzip", "The body is not valid gzip.") from error
    if len(found) > max_bytes:
        raise TooLarge("unpacks-too-large", f"The body is larger than {max_bytes} bytes after decompression.")
    if not unpacking.eof or unpacking.unused_data:
        raise Malformed("gzip", "The body is not one complete gzip stream.")
    return found


class Body:
    """A body, once it is known what it is. What was read for one reading of a request is not read again for another."""

    __slots__ = ("_boundary", "_bytes", "_charset", "_codecs", "_form", "_is_large", "_is_utf_8", "_kind", "_read")

    def __init__(self, content_type: str | None, body: bytes, *, is_large: bool) -> None:
        """Raises UnsupportedType where it is neither JSON nor a form nor multipart."""
        media_type, self._charset, self._codecs, self._boundary = _type_of(content_type or "")
        self._bytes = body.removeprefix(BOM_UTF8)
        self._kind = _kind_of(media_type, self._bytes)
        self._is_large = is_large
        leaves_open = len(self._codecs) > 1 or self._kind == _MULTIPART
        self._is_utf_8 = _is_plainly_utf_8(self._bytes) if is_large and leaves_open else None
        self._read: dict[tuple[bool, bool], Pairs | Rejection] = {}
        self._form = Form(self._bytes)

    @property
    def is_ambiguous(self) -> bool:
        """Whether its two character sets can make a difference."""
        if self._kind == _MULTIPART:
            return not (self._is_utf_8 or self._bytes.isascii())
        if len(self._codecs) == 1 or self._is_utf_8 or (self._is_utf_8 is False and self._codecs is _GBK):
            return False
        if self._bytes.isascii():
            return self._kind == _FORM and b"%" in self._bytes
        # Half pairs of a large body are repaired in one character set only.
        is_repaired = self._is_large and self._kind == _JSON and strict_json.may_have_half_pairs(self._bytes)
        return not is_repaired or self._is_utf_8 is False

    @property
    def has_plus(self) -> bool:
        return self._kind == _FORM and b"+" in self._bytes

    def codec(self, charset: str = "", *, other: bool) -> str:
        """The first of the two character sets that ``charset``, or else the body's own label, leaves open."""
        return _UTF_8 if self._is_utf_8 else _CODECS.get(charset, self._codecs)[-1 if other else 0]

    def pairs(self, *, plus: bool, other: bool) -> Pairs:
        """Names and values, in their order; ``other`` asks for the second of the two character sets.

        Raises:
            Malformed: it cannot be read in that character set, or holds more than ``MAX_PARAMETERS``.
            UnsupportedType: its label names a character set that it is not in and that is not known here.
        """
        way = (plus and self.has_plus, other)
        found = self._read.get(way)
        if found is None:
            try:
                found = self._pairs(*way)
            except Rejection as rejection:
                found = rejection
            self._read[way] = found
        if isinstance(found, Rejection):
            raise found
        return found

    def _pairs(self, plus: bool, other: bool) -> Pairs:  # noqa: FBT001 - as they stand in a way
        try:
            if self._kind == _MULTIPART:
                return self._multipart_pairs(other=other)
            if self._kind == _FORM:
                return cast("Pairs", self._form.pairs(self.codec(other=other), plus=plus))
            return self._json_pairs(self.codec(other=other))
        except Malformed as malformed:
            if malformed.reason == "invalid-utf-8" and self._charset not in ("", "utf-8", "utf8", *_CODECS):
                raise UnsupportedType("charset", "Send UTF-8.") from malformed
            raise

    def _json_pairs(self, codec: str) -> Pairs:
        if codec == _UTF_8 and self._is_utf_8 is False:
            text_of(self._bytes, _UTF_8)  # to say so before anything else is tried
        body = self._bytes if codec == _UTF_8 else text_of(self._bytes, codec).encode()
        plain = strict_json.plain_members(body)
        if plain is not None:
            return plain
        try:
            return strict_json.members(body.removeprefix(BOM_UTF8))
        except ValueError as error:
            text_of(body, _UTF_8)
            raise Malformed("json", f"The body is not a JSON object: {error}.") from error

    def _multipart_pairs(self, *, other: bool) -> Pairs:
        boundary = self._boundary or self._bytes.lstrip().partition(b"\n")[0].strip()[2:].decode("latin-1")

        def codec_of(part: MultipartSegment) -> str:
            return self.codec((part.charset or "").lower(), other=other)

        try:
            return list(_parts(boundary, self._bytes, codec_of))
        except MultipartError as error:
            detail = f"The body is not valid multipart/form-data: {error.args[0]}."
            raise Malformed("multipart", detail) from error


@lru_cache(maxsize=64)  # a sender says the same at each callback; strangers cannot fill more than this
def _type_of(content_type: str) -> tuple[str, str, tuple[str, ...], str]:
    """Media type, character set, the codecs that it leaves open, and the boundary of a multipart."""
    media_type, options = cast("tuple[str, dict[str, str]]", multipart.parse_options_header(content_type))
    charset = options.get("charset", "").lower()
    boundary = options.get("boundary", "") if media_type == _MULTIPART else ""
    return media_type, charset, _CODECS.get(charset, (_UTF_8,)), boundary


def _is_plainly_utf_8(body: bytes) -> bool | None:
    """Whether it can be nothing else, since so much of it is not UTF-8 by accident; None where it may be."""
    try:
        return len(body) - len(body.decode()) > _NO_ACCIDENT_BYTES or None
    except UnicodeDecodeError:
        return False


def _kind_of(media_type: str, body: bytes) -> str:
    """What the body plainly is, or else what its label says."""
    if _OBJECT.match(body):
        return _JSON
    head = body[:_LOOKED_AT_BYTES].lstrip()
    if head.startswith(b"--") and (media_type == _MULTIPART or b"content-disposition" in head.lower()):
        return _MULTIPART
    if media_type in (_FORM, "") or _FORM_LIKE.match(head):
        return _FORM
    if media_type == _MULTIPART:
        return _MULTIPART
    if media_type in (_JSON, "text/json") or media_type.endswith("+json"):
        return _JSON
    raise UnsupportedType("content-type", f"Unsupported Content-Type. Send {_JSON}, {_FORM} or {_MULTIPART}.")


def _parts(boundary: str, body: bytes, codec_of: Callable[[MultipartSegment], str]) -> Iterable[tuple[str, str]]:
    with PushMultipartParser(boundary, max_segment_count=MAX_PARAMETERS) as parser:
        segment: MultipartSegment | None = None
        value = bytearray()
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                if event.filename is not None:
                    raise Malformed("file-part", "A file part is not accepted as a parameter.")
                segment = event
            elif event is not None:
                value += event
            else:
                assert segment is not None
                yield segment.name or "", text_of(bytes(value), codec_of(segment))
                value.clear()
