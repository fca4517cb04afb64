"""Reads heads of requests that are plain: every reader of HTTP/1.1 reads them alike. All others need the parser.

The native core reads them, too (``native/src/edge/request.rs``). This is its specification, and reads what it does not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from taskbridge.edge.server.protocol import MAX_HEADERS, PER_HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADER = re.compile(rb"([A-Za-z0-9_-]+): ?((?:[!-~](?:[ -~]*[!-~])?)?)")
"""A line that every parser reads alike."""
_UNUSUAL = frozenset(
    {"proxy-connection", "transfer-encoding", "expect", "upgrade", "content-encoding", "http2-settings", "trailer"}
)
_LENGTH_DIGITS = 6
_END = b"\r\n\r\n"
_CACHED = 256
_CACHED_BYTES = 1024


class Head(Struct, frozen=True, gc=False):
    """The head of one request, by its bytes."""

    path: str
    headers: Mapping[str, str]
    """Names in lower case, none twice."""
    counted: int
    """Bytes of the headers, as the limit counts them."""
    body_bytes: int


class Heads:
    """Reads heads and caches them: those of one sender differ in little but the length."""

    def __init__(self, paths: Mapping[bytes, str], *, max_bytes: int) -> None:
        """``paths`` maps first lines of requests on the fast path to their paths. Longer heads are for the parser."""
        self._paths = paths
        self._max_bytes = max_bytes
        self._known: dict[bytes, Head | None] = {}

    def whole(self, data: bytes) -> tuple[Head, bytes] | None:
        """Head and body, if the data is exactly one plain request; None if that is not certain."""
        end = data.find(_END)
        if end < 0:
            return None
        raw = data[:end]
        try:
            head = self._known[raw]
        except KeyError:
            head = plain_head(raw, self._paths)
            if head is not None and head.counted > self._max_bytes:
                head = None
            if end <= _CACHED_BYTES:
                if len(self._known) >= _CACHED:
                    self._known.clear()
                self._known[raw] = head
        start = end + len(_END)
        if head is None or len(data) != start + head.body_bytes:
            return None
        return head, data[start:]


def plain_head(raw: bytes, paths: Mapping[bytes, str]) -> Head | None:
    """The head, if all readers of HTTP/1.1 agree on it and it requests nothing but an answer."""
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
