"""The heads of requests that are so plain that they need no parser: all others are for the parser.

The native core reads them, too (``native/src/edge/head.rs``): this is its specification, and reads what it leaves.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from taskbridge.edge.server.protocol import MAX_HEADERS, PER_HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADER = re.compile(rb"([A-Za-z0-9_-]+): ?((?:[!-~](?:[ -~]*[!-~])?)?)")
"""A line that no parser reads in another way."""
_UNUSUAL = frozenset(
    {"proxy-connection", "transfer-encoding", "expect", "upgrade", "content-encoding", "http2-settings", "trailer"}
)
_LENGTH_DIGITS = 6
_END = b"\r\n\r\n"
_REMEMBERED = 256
_REMEMBERED_BYTES = 1024


class Head(Struct, frozen=True, gc=False):
    """The head of one request, by its bytes."""

    path: str
    headers: Mapping[str, str]
    """Names in lower case, none twice."""
    counted: int
    """Bytes of the headers as they are bounded."""
    body_bytes: int


class Heads:
    """Reads heads, and remembers those that were read: a sender's differ in little but the length."""

    def __init__(self, paths: Mapping[bytes, str], *, max_bytes: int) -> None:
        """``paths``: of requests that may go directly, by their first lines. Heads of more bytes are for the parser."""
        self._paths = paths
        self._max_bytes = max_bytes
        self._known: dict[bytes, Head | None] = {}

    def whole(self, piece: bytes) -> tuple[Head, bytes] | None:
        """Head and body, where the piece is exactly one plain request; None where that is not certain."""
        end = piece.find(_END)
        if end < 0:
            return None
        raw = piece[:end]
        try:
            head = self._known[raw]
        except KeyError:
            head = plain_head(raw, self._paths)
            if head is not None and head.counted > self._max_bytes:
                head = None
            if end <= _REMEMBERED_BYTES:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[raw] = head
        start = end + len(_END)
        if head is None or len(piece) != start + head.body_bytes:
            return None
        return head, piece[start:]


def plain_head(raw: bytes, paths: Mapping[bytes, str]) -> Head | None:
    """What the head says, where all readers of HTTP/1.1 agree on it and it asks for nothing but an answer."""
    first, *lines = raw.split(b"\r\n")
    path = paths.get(first)
    if path is None or len(lines) > MAX_HEADERS:
        return None
    headers: dict[str, str] = {}
    counted = 0
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            return None
        name, value = found.groups()
        counted += len(name) + len(value) + PER_HEADER_BYTES
        headers[name.decode().lower()] = value.decode()
    length = headers.get("content-length", "")
    is_plain = (
        len(headers) == len(lines)
        and length.isdecimal()
        and len(length) <= _LENGTH_DIGITS
        and headers.get("connection", "keep-alive").lower() == "keep-alive"
        and _UNUSUAL.isdisjoint(headers)
    )
    return Head(path, headers, counted, int(length)) if is_plain else None
