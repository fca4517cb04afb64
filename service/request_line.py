"""Addresses as people paste them, with Chinese in the query: HTTP parsers take ASCII only."""

from __future__ import annotations

import re

_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")


def escape_request_line(data: bytes, *, goes_on: bool) -> tuple[bytes, bool]:
    """What was received, with each byte beyond ASCII in the request line as its percent escape, which says the same.

    ``data`` begins with a request or, where the line ``goes_on``, within one. Also returns whether its line goes on.
    """
    # Some clients send an empty line after a body.
    at = 0 if goes_on else len(data) - len(data.lstrip(b"\r\n"))
    end = data.find(b"\n", at)
    if end < 0:
        return _escaped(data), True
    line = data[:end]
    return (data if line.isascii() else _escaped(line) + data[end:]), False


def _escaped(line: bytes) -> bytes:
    return _BEYOND_ASCII.sub(lambda found: b"%%%02X" % found[0][0], line)
