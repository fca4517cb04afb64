"""The fuzzer's inputs as requests: ``native/fuzz/fuzz_targets/decide.rs`` says how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_requests import FORM, Request, parts_of
from taskbridge.edge.callbacks import ACTIONS
from taskbridge.edge.errors import Rejection
from taskbridge.edge.parsing.parameters import readings
from taskbridge.edge.verification.credentials import parse_credentials
from taskbridge.edge.verification.signature import sign

if TYPE_CHECKING:
    from collections.abc import Iterator

CORPUS = Path(__file__).parents[2] / "native" / "fuzz" / "corpus" / "decide"
CREDENTIALS = parse_credentials('[[apps]]\napp_type = "A"\ncorp_id = "c"\nsystem_tokens = ["t"]')
TYPES = ("application/json", FORM, None, "application/json; charset=UTF-8")
SIGNATURE_PLACE, LENGTH_PLACE = b"S" * 32, b"L" * 6
_POST, _END = b"POST ", b"\r\n\r\n"


def requests() -> list[Request]:
    """The inputs that are the parts of a request, signed."""
    return [_request_of(each) for each in _corpus() if not each.startswith(_POST)]


def wholes() -> list[bytes]:
    """The inputs that are all bytes of a request, signed, with its length."""
    return [_whole_of(each) for each in _corpus() if each.startswith(_POST)]


def _corpus() -> Iterator[bytes]:
    return (path.read_bytes() for path in sorted(CORPUS.iterdir()))


def _request_of(written: bytes) -> Request:
    query, _, body = written[1:].partition(b"\0")
    return _signed(Request([*ACTIONS][written[0] % 5], query, TYPES[written[0] // 5 % 4], body))


def _whole_of(written: bytes) -> bytes:
    head, end, body = written.partition(_END)
    head = head.replace(LENGTH_PLACE, b"%06d" % len(body), 1)
    parsed = parts_of(head + end + body)
    return head + end + (body if parsed is None else _signed(parsed[1]).body)


def _signed(request: Request) -> Request:
    try:
        first = next(iter(readings(request.query, request.content_type, request.body)))
        right = sign(first.signed, system_token="t").encode()
    except (Rejection, UnicodeEncodeError):
        return request
    query, body = (part.replace(SIGNATURE_PLACE, right, 1) for part in (request.query, request.body))
    return request._replace(query=query, body=body)
