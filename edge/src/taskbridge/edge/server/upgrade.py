"""Goes on as if no other protocol had been offered.

Java's HttpClient offers HTTP/2 with every first request, and httptools would take the body for HTTP/2: see
docs/adr/0010-limits-in-the-server.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httptools

    from taskbridge.runtime.http.refusals import Headers

_OFFER = (b"connection", b"upgrade")


def head_without_offer(parser: httptools.HttpRequestParser, url: bytes, headers: Headers) -> bytes | None:
    """The head that was parsed, to be parsed once more; None where it asks for a tunnel, which nothing else can be."""
    method = parser.get_method()
    if method == b"CONNECT":
        return None
    lines = [b"%s %s HTTP/%s\r\n" % (method, url, parser.get_http_version().encode())]
    lines += [b"%s: %s\r\n" % each for each in headers if each[0] not in _OFFER]
    return b"".join((*lines, b"\r\n"))
