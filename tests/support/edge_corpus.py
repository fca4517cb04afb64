"""The fuzzer's inputs as requests: ``native/fuzz/fuzz_targets/decide.rs`` says how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_requests import FORM, RECEIVED_AT, Request

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
PLACE = b"S" * 32


def corpus() -> Iterator[tuple[str, Request]]:
    """The inputs' names, and the requests that they are, signed."""
    for path in sorted(CORPUS.iterdir()):
        yield path.name, request_of(path.read_bytes())


def request_of(written: bytes) -> Request:
    query, _, body = written[1:].partition(b"\0")
    content_type = TYPES[written[0] // 5 % 4]
    try:
        first = next(iter(readings(query, content_type, body)))
        right = sign(first.signed, system_token="t").encode()
    except (Rejection, UnicodeEncodeError):
        right = PLACE
    query, body = (part.replace(PLACE, right, 1) for part in (query, body))
    return Request([*ACTIONS][written[0] % 5], query, content_type, body, RECEIVED_AT)


def written(request: Request) -> bytes:
    """The request as an input; the other way round."""
    head = [*ACTIONS].index(request.action) + 5 * TYPES.index(request.content_type)
    return bytes([head]) + request.query + b"\0" + request.body
