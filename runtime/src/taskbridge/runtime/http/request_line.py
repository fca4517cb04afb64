"""Addresses as people paste them, with Chinese in the query: HTTP parsers take ASCII only.

A parser tells neither where in the bytes a request began nor where its line ended. What is received is therefore cut at
each place where a line with such bytes may begin; whether one does, the parser says by what it waits for there.
"""

from __future__ import annotations

import re
from itertools import islice, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_LINE_BEYOND_ASCII = re.compile(rb"(?:GET|POST) /[!-~]*[\x80-\xff]")
_MAX_PLACES = 16
"""In what is received at once: a body may be full of them."""


def cut_at_lines(data: bytes) -> Sequence[bytes]:
    """All of the data, in pieces none of which has a request line with bytes beyond ASCII but at its beginning."""
    # Looked for one by one: an expression takes as long for a body as the rest of the server does.
    if data.find(b"POST /", 1) < 0 and data.find(b"GET /", 1) < 0:
        return (data,)
    places = [found.start() for found in islice(_LINE_BEYOND_ASCII.finditer(data, 1), _MAX_PLACES)]
    return [data[begin:end] for begin, end in pairwise((0, *places, len(data)))]


def escape_request_line(data: bytes, *, goes_on: bool) -> bytes:
    """What was received, with each byte beyond ASCII in the request line as its percent escape, which says the same.

    ``data`` begins with a request or, where the line ``goes_on``, within one.
    """
    # Some clients send an empty line after a body.
    at = 0 if goes_on else len(data) - len(data.lstrip(b"\r\n"))
    end = data.find(b"\n", at)
    line = data if end < 0 else data[:end]
    return data if line.isascii() else _escaped(line) + data[len(line) :]


def ends_in_line(data: bytes, url: bytes, *, began: bool, before: bool) -> bool:
    """Whether the unfinished head that the data ends in is still in its first line.

    ``began`` says that it began within the data, and ``before`` what was so before it; ``url`` is what the parser told
    of the address.
    """
    if not began:
        return before and b"\n" not in data
    return not url or b" " + url in data[data.rfind(b"\n") + 1 :]


def _escaped(line: bytes) -> bytes:
    return _BEYOND_ASCII.sub(lambda found: b"%%%02X" % found[0][0], line)
