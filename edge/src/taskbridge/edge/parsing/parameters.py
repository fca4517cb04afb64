"""Finds the parameters of a request in all the encodings that Yida might use: JSON, form, multipart, query string.

Which one it is, the body itself says; its label is a hint. What the bytes leave open is read in each way in turn, in a
fixed order, until the signature fits one: ``readings``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from msgspec import Struct

from taskbridge.edge.errors import MAX_PARAMETERS, Malformed, Rejection, too_many_parameters
from taskbridge.edge.parsing.bodies import Body
from taskbridge.edge.parsing.forms import Form
from taskbridge.edge.verification.signature import SIGN, are_distinct

if TYPE_CHECKING:
    from collections.abc import Iterator

_NULL = "null"
"""A null of JSON is signed as the text ``null``, and not left out."""
_PART = "part"
"""Of query and body only the one that holds the signature is signed: the other stands in the address, or a gateway
added it."""
_PLUS = "plus"
"""A plus sign in a form or a query is one, and no space."""
_CHARSET = "charset"
"""Text is in the other of the two character sets that the label leaves open."""

_SMALL_BYTES = 64 << 10
_TURNS = [[frozenset(each) for each in combinations((_NULL, _PART, _PLUS, _CHARSET), size)] for size in range(3)]
_OF_LARGE = [each for size in _TURNS[:2] for each in size]
"""Each departure from the first reading alone. No more than four can make a difference."""
_OF_SMALL = [*_OF_LARGE, *_TURNS[2]]


class Reading(Struct, frozen=True, gc=False):
    """One way to read a request."""

    parameters: Mapping[str, str]
    """What it says. A null of JSON says nothing."""
    signed: Mapping[str, str]
    """What the signature is then over."""


def readings(query: bytes, content_type: str | None, body: bytes) -> Iterator[Reading]:
    """Each way in which the request can be read, the likeliest first; at most eleven, of a large one four.

    Values are what a signature can be over: strings decoded, and other JSON values by their text exactly as it stands.

    Raises:
        Malformed: it can be read in no way, or a key is given twice.
        UnsupportedType: the body is nothing that can be read here.
    """
    is_large = len(query) + len(body) > _SMALL_BYTES
    request = _Request(query, content_type, body, is_large=is_large)
    refused: Rejection | None = None
    found = False
    for departures in _OF_LARGE if is_large else _OF_SMALL:
        try:
            reading = request.read(departures)
        except Rejection as rejection:
            refused = refused or rejection
            continue
        if reading is not None:
            found = True
            yield reading
    if refused is not None and not found:
        raise refused


_Pairs = Sequence[tuple[str, str | None]]
"""What a query or a body says. A null of JSON is None."""


class _Request:
    """A request, and what was read of it so far."""

    def __init__(self, query: bytes, content_type: str | None, body: bytes, *, is_large: bool) -> None:
        self._query, self._is_large = query, is_large
        self._query_form = Form(query)
        self._body = Body(content_type, body, is_large=is_large) if body else None

    def read(self, departures: frozenset[str]) -> Reading | None:
        """The request with these departures from the first reading; None where one of them makes no difference.

        Raises:
            Rejection: it cannot be read like that.
        """
        plus, charset = _PLUS in departures, _CHARSET in departures
        if (plus and not self._has_plus()) or (charset and not (self._body and self._body.is_ambiguous)):
            return None
        in_query = self._read_query(plus, charset)
        in_body = self._body.pairs(plus=plus, other=charset) if self._body else ()
        whole = _together(in_query, in_body)
        if _PART in departures:
            query_signs = any(key == SIGN for key, _ in in_query)
            if not in_query or not in_body or query_signs == any(key == SIGN for key, _ in in_body):
                return None
            whole = dict(in_query if query_signs else in_body)
        if None not in whole.values():  # as nearly all are
            return None if _NULL in departures else Reading(whole, whole)  # type: ignore[arg-type]
        parameters = {key: value for key, value in whole.items() if value is not None}
        if _NULL not in departures:
            return Reading(parameters, parameters)
        return Reading(parameters, {key: "null" if value is None else value for key, value in whole.items()})

    def _has_plus(self) -> bool:
        """Beside a large body the query's does not count: what is signed is in the body then."""
        return (not self._is_large and b"+" in self._query) or (self._body is not None and self._body.has_plus)

    def _read_query(self, plus: bool, charset: bool) -> _Pairs:  # noqa: FBT001 - keywords take longer, for each request
        if not self._query:
            return ()
        codec = self._body.codec(other=charset) if self._body else "utf-8"
        return self._query_form.pairs(codec, plus=plus)


def _together(in_query: _Pairs, in_body: _Pairs) -> Mapping[str, str | None]:
    given = len(in_query) + len(in_body)
    if given > MAX_PARAMETERS:
        raise too_many_parameters()
    whole = dict([*in_query, *in_body] if in_query else in_body)
    if len(whole) < given or not are_distinct(tuple(whole)):
        # They would have no defined order, and so no defined signature.
        raise Malformed("duplicate-key", "A parameter occurs twice. Names that differ only in case count as equal.")
    return whole
