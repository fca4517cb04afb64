"""Finds the parameters of a request in all encodings that Yida might use: JSON, form, multipart, query string.

The body itself shows which one it is; its label is a hint. Java's and Apache's clients by default send JSON as
``text/plain`` or under the form's type, labelled ISO-8859-1; a gateway may compress it. None of that changes what is
signed. Where the bytes are ambiguous, each reading is tried in a fixed order until the signature fits: ``readings``.
"""

from __future__ import annotations

import re
import zlib
from binascii import a2b_qp
from codecs import BOM_UTF8
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import multipart
from msgspec import Struct
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from taskbridge.edge.errors import MAX_PARAMETERS, Malformed, Rejection, TooLarge, UnsupportedType, too_many_parameters
from taskbridge.edge.parsing import strict_json
from taskbridge.edge.verification.signature import SIGN, are_distinct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Pairs = list[tuple[str, str | None]]
"""Names and values of a query or a body, in order. A null of JSON is None."""
Unescaped = dict[bool, list[tuple[bytes, bytes]]]
"""Names and values of a form, by whether a plus sign is itself."""

_QUOTED = bytes(range(256)).replace(b"%", b"=")
_QUOTED_SPACES = _QUOTED.replace(b"+", b" ")
"""Byte → its character in quoted-printable; in the second table a plus sign is a space."""
_SPACES = bytes.maketrans(b"+", b" ")
_MAX_PLACES = 2 * MAX_PARAMETERS
"""Twice as many, because some are empty."""
_MAX_EQUALS = 64 << 10
"""In a value with percent escapes. Each costs far more time than an escape, and encoders escape them too."""


def form_pairs(encoded: bytes, codec: str, *, plus: bool, unescaped: Unescaped | None = None) -> Pairs:
    """Names and values of a form. With ``plus`` a plus sign is itself, else a space.

    Unescaping takes longest: ``unescaped`` stores its results for other character sets.

    Raises:
        Malformed: An escape is broken, the text is not in that character set, or there are more than
            ``MAX_PARAMETERS``; no list of a million is made.
    """
    unescaped = {} if unescaped is None else unescaped
    if plus not in unescaped:
        pairs = encoded.split(b"&", _MAX_PLACES)  # no character of the supported sets contains a separator's byte
        if len(pairs) > _MAX_PLACES:
            raise too_many_parameters()
        fields = [pair.partition(b"=") for pair in pairs if pair]
        unescaped[plus] = [(_unescaped(key, plus=plus), _unescaped(value, plus=plus)) for key, _, value in fields]
    return [(text_of(key, codec), text_of(value, codec)) for key, value in unescaped[plus]]


def text_of(value: bytes, codec: str) -> str:
    """The bytes as text in the character set. Raises Malformed if they are not text in it."""
    try:
        return value.decode(codec)
    except UnicodeDecodeError as error:
        raise Malformed("invalid-utf-8", f"The request is not valid {codec.upper()}.") from error


def _unescaped(encoded: bytes, *, plus: bool) -> bytes:
    """The text without percent escapes. ``urllib`` would take longer for a create than everything else.

    Quoted-printable differs only in the sign, and the standard library decodes it in C. It leaves an invalid escape as
    it is, or drops it as a line break; then fewer than two bytes per sign are gone.
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
"""Label → its two possible character sets, the likelier first. Any other label means UTF-8."""

_GZIP = b"\x1f\x8b"
_OBJECT = re.compile(rb"[ \t\r\n]*\{")
_FORM_LIKE = re.compile(rb"[ \t\r\n]*[^\s<>{}&=\"]{1,256}=")
_LOOKED_AT_BYTES = 1024
_NO_ACCIDENT_BYTES = 1024
"""So many continuation bytes of UTF-8 are no accident: one in six characters of GBK looks like UTF-8."""


def unpacked(body: bytes, *, max_bytes: int) -> bytes:
    """The body, decompressed if it is gzip; its label does not matter.

    Raises:
        TooLarge: It decompresses to more than ``max_bytes``; no more than that is decompressed.
        Malformed: It is incomplete.
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
    """A body of a known kind."""

    def __init__(self, content_type: str | None, body: bytes, *, is_large: bool) -> None:
        """Raises UnsupportedType if it is neither JSON nor a form nor multipart."""
        media_type, self._charset, self._codecs, self._boundary = _type_of(content_type or "")
        self._bytes = body.removeprefix(BOM_UTF8)
        self._kind = _kind_of(media_type, self._bytes)
        self._is_large = is_large
        leaves_open = len(self._codecs) > 1 or self._kind == _MULTIPART
        self._is_utf_8 = _is_plainly_utf_8(self._bytes) if leaves_open else None
        self._unescaped: Unescaped = {}

    @property
    def is_ambiguous(self) -> bool:
        """Whether its two character sets can give different parameters."""
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
        """One of the two character sets of ``charset``, or else of the body's own label."""
        return _UTF_8 if self._is_utf_8 else _CODECS.get(charset, self._codecs)[-1 if other else 0]

    def pairs(self, *, plus: bool, other: bool) -> Pairs:
        """Names and values in order; ``other`` selects the second of the two character sets.

        Raises:
            Malformed: It is not in that character set, or has more than ``MAX_PARAMETERS``.
            UnsupportedType: Its label names an unsupported character set, and it is not UTF-8.
        """
        try:
            if self._kind == _MULTIPART:
                return self._multipart_pairs(other=other)
            if self._kind == _FORM:
                return form_pairs(self._bytes, self.codec(other=other), plus=plus, unescaped=self._unescaped)
            return self._json_pairs(self.codec(other=other))
        except Malformed as malformed:
            if malformed.reason == "invalid-utf-8" and self._charset not in ("", "utf-8", "utf8", *_CODECS):
                raise UnsupportedType("charset", "Send UTF-8.") from malformed
            raise

    def _json_pairs(self, codec: str) -> Pairs:
        if codec == _UTF_8 and self._is_utf_8 is False:
            text_of(self._bytes, _UTF_8)  # so that this error comes first
        body = self._bytes if codec == _UTF_8 else text_of(self._bytes, codec).encode()
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


@lru_cache(maxsize=64)  # a sender repeats its type; others cannot fill more than this
def _type_of(content_type: str) -> tuple[str, str, tuple[str, ...], str]:
    """Media type, character set, its possible codecs, and the boundary of a multipart."""
    media_type, options = cast("tuple[str, dict[str, str]]", multipart.parse_options_header(content_type))
    charset = options.get("charset", "").lower()
    boundary = options.get("boundary", "") if media_type == _MULTIPART else ""
    return media_type, charset, _CODECS.get(charset, (_UTF_8,)), boundary


def _is_plainly_utf_8(body: bytes) -> bool | None:
    """True if so much of it is UTF-8 that it is no accident, False if it is not UTF-8, else None."""
    try:
        return len(body) - len(body.decode()) > _NO_ACCIDENT_BYTES or None
    except UnicodeDecodeError:
        return False


def _kind_of(media_type: str, body: bytes) -> str:
    """The kind that the body itself shows, or else that of its label."""
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


_SMALL_BYTES = 64 << 10


class ReadingKind(StrEnum):
    """How a request is read, in the order of the attempts. Each names the sender that needs it."""

    PLAIN = "plain"
    """As labelled and as libraries encode by default: JSON, a form, multipart, or the query. A null is absent."""
    LITERAL = "literal"
    """A plus sign in a form or query is a plus sign, not a space, and a null of JSON is the text ``null``: connectors
    that build a query by hand do not escape a plus, and Java's ``String.valueOf`` writes a missing value as ``null``.
    Yida's page does not say how a missing value is signed."""
    PART = "part"
    """Of query and body only the part with the signature is signed: the address in an HTTP connector, or a gateway, has
    fixed parameters in its query, and some clients send ``{}`` as the body of a request by query."""
    CHARSET = "charset"
    """Text is in the second of the two character sets of the label: Apache HttpClient labels text as ISO-8859-1 by
    default, and clients in China label UTF-8 as GBK."""
    LITERAL_PART = "literal-part"
    """Both: a connector with fixed parameters in its address may be any of these clients."""
    CHARSET_PART = "charset-part"


_PARTS = (ReadingKind.PART, ReadingKind.LITERAL_PART, ReadingKind.CHARSET_PART)
_LITERALS = (ReadingKind.LITERAL, ReadingKind.LITERAL_PART)
_OTHER_CHARSETS = (ReadingKind.CHARSET, ReadingKind.CHARSET_PART)
_KINDS = tuple(ReadingKind)
_KINDS_OF_LARGE = _KINDS[:4]


class Reading(Struct, frozen=True, gc=False):
    """One interpretation of a request."""

    kind: ReadingKind
    parameters: Mapping[str, str]
    """Without the nulls of JSON."""
    signed: Mapping[str, str]
    """The parameters that would be signed."""


def readings(query: bytes, content_type: str | None, body: bytes) -> Iterator[Reading]:
    """The possible readings of the request, the likeliest first; at most six, of a large request four.

    Values are as they would be signed: strings decoded, and other JSON values as their exact text.

    Raises:
        Malformed: No reading is possible, or a key occurs twice.
        UnsupportedType: The body is not in a supported encoding.
    """
    is_large = len(query) + len(body) > _SMALL_BYTES
    request = _Request(query, content_type, body, is_large=is_large)
    refused: Rejection | None = None
    found = False
    for kind in _KINDS_OF_LARGE if is_large else _KINDS:
        try:
            reading = request.read(kind)
        except Rejection as rejection:
            refused = refused or rejection
            continue
        if reading is not None:
            found = True
            yield reading
    if refused is not None and not found:
        raise refused


class _Request:
    """A request. The pairs of its query and its body are stored for further readings."""

    def __init__(self, query: bytes, content_type: str | None, body: bytes, *, is_large: bool) -> None:
        self._query = query
        self._body = Body(content_type, body, is_large=is_large) if body else None
        # A query's plus does not count with a large body, which then has the signed parameters.
        self._query_has_plus = b"+" in query and not is_large
        self._read: dict[tuple[bool, bool, bool], Pairs | Rejection] = {}
        self._unescaped: Unescaped = {}

    def read(self, kind: ReadingKind) -> Reading | None:
        """The request in this reading; None if the result would be that of an earlier one.

        Raises Rejection if it cannot be read like that.
        """
        literal, other, body = kind in _LITERALS, kind in _OTHER_CHARSETS, self._body
        if other and not (body and body.is_ambiguous):
            return None
        query_plus = literal and self._query_has_plus
        body_plus = literal and body is not None and body.has_plus
        in_query = self._pairs(None, plus=query_plus, other=other) if self._query else []
        in_body = self._pairs(body, plus=body_plus, other=other) if body else []
        whole = _together(in_query, in_body)
        if kind in _PARTS:
            query_signs = any(key == SIGN for key, _ in in_query)
            if not in_query or not in_body or query_signs == any(key == SIGN for key, _ in in_body):
                return None
            whole = dict(in_query if query_signs else in_body)
        if None not in whole.values():  # nearly all
            return None if literal and not (query_plus or body_plus) else Reading(kind, whole, whole)  # type: ignore[arg-type]
        parameters = {key: value for key, value in whole.items() if value is not None}
        if not literal:
            return Reading(kind, parameters, parameters)
        return Reading(kind, parameters, {key: "null" if value is None else value for key, value in whole.items()})

    def _pairs(self, body: Body | None, *, plus: bool, other: bool) -> Pairs:
        """Of the body, or of the query. Raises Rejection."""
        way = (body is None, plus, other)
        if way not in self._read:
            try:
                if body is not None:
                    self._read[way] = body.pairs(plus=plus, other=other)
                else:
                    codec = self._body.codec(other=other) if self._body else _UTF_8
                    self._read[way] = form_pairs(self._query, codec, plus=plus, unescaped=self._unescaped)
            except Rejection as rejection:
                self._read[way] = rejection
        found = self._read[way]
        if isinstance(found, Rejection):
            raise found
        return found


def _together(in_query: Pairs, in_body: Pairs) -> Mapping[str, str | None]:
    given = len(in_query) + len(in_body)
    if given > MAX_PARAMETERS:
        raise too_many_parameters()
    whole = dict([*in_query, *in_body] if in_query else in_body)
    if len(whole) < given or not are_distinct(tuple(whole)):
        # They would have no defined order, and therefore no defined signature.
        raise Malformed("duplicate-key", "A parameter occurs twice. Names that differ only in case count as equal.")
    return whole
