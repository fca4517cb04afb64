"""Exports decisions of the Python edge for the native core's own test, ``tests/native/edge_vectors.rs``.

``PYTHONPATH=tests uv run python -m support.edge.vectors`` writes ``tests/vectors/edge-vectors.json``. With a number and
a seed, it prints that many random requests, for ``TASKBRIDGE_EDGE_VECTORS=FILE cargo test``.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.edge.generated import CREDENTIALS, FIGURES, FORM, Request, almost, decided_by_python, left, usual
from taskbridge.edge.decision.callbacks import ACTIONS
from taskbridge.edge.errors import Rejection
from taskbridge.edge.parsing.parameters import readings
from taskbridge.edge.verification.credentials import parse_credentials
from taskbridge.edge.verification.signature import sign

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


PATH = Path(__file__).parents[2] / "vectors" / "edge-vectors.json"
ALMOST = 60


def vectors() -> str:
    chance = random.Random(20)
    return written(usual(), left(), [almost(chance) for _ in range(ALMOST)])


def written(accepted: Iterable[Request], rejected: Iterable[Request], perhaps: Iterable[Request]) -> str:
    """The core must accept the first and leave the second to Python, and may do either with the others."""
    apps = {
        app_type: [[app.corp_id, token.secret.get_secret_value()] for app, token in CREDENTIALS.signers(app_type)]
        for app_type in CREDENTIALS.app_types
    }
    lines = [json.dumps({"apps": apps, **FIGURES})]
    lines += [json.dumps(_vector(each, is_accepted=True)) for each in accepted]
    lines += [json.dumps(_vector(each, is_accepted=False)) for each in rejected]
    lines += [json.dumps(_vector(each, is_accepted=None)) for each in perhaps]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _vector(request: Request, *, is_accepted: bool | None) -> dict[str, Any]:
    used: list[Any] = []
    fields = request._asdict() | {"query": request.query.decode("latin-1"), "body": request.body.decode("latin-1")}
    try:
        decided = decided_by_python(request, used=used)
    except Rejection:
        return {"is_accepted": is_accepted, **fields, "decided": None}
    assert decided.mark is not None
    return {
        "is_accepted": is_accepted,
        **fields,
        "decided": {
            "type": decided.headers[2][1].decode().split(".")[2],
            "event_id": decided.event_id,
            "app_type": decided.app_type,
            "instance_id": decided.instance_id,
            "source": decided.headers[3][1].decode(),
            "time": decided.headers[5][1].decode(),
            "digest": decided.mark.digest.hex(),
            "token": used[0].secret.get_secret_value(),
            "avro_sha1": hashlib.sha1(decided.body).hexdigest(),  # noqa: S324 - not for security
            "avro_bytes": len(decided.body),
        },
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        by_chance = random.Random(int(sys.argv[2]))
        sys.stdout.write(written((), (), (almost(by_chance) for _ in range(int(sys.argv[1])))))
    else:
        PATH.write_text(vectors(), "utf-8")

CORPUS = Path(__file__).parents[3] / "native" / "fuzz" / "corpus" / "decide"
FUZZ_CREDENTIALS = parse_credentials('[[apps]]\napp_type = "A"\ncorp_id = "c"\nsystem_tokens = ["t"]')
TYPES = ("application/json", FORM, None, "application/json; charset=UTF-8")
SIGNATURE_PLACE = b"S" * 32


def requests() -> list[Request]:
    """The inputs, each as a signed request."""
    return [_request_of(each) for each in _corpus()]


def _corpus() -> Iterator[bytes]:
    return (path.read_bytes() for path in sorted(CORPUS.iterdir()))


def _request_of(written: bytes) -> Request:
    query, _, body = written[1:].partition(b"\0")
    return _signed(Request([*ACTIONS][written[0] % 5], query, TYPES[written[0] // 5 % 4], body))


def _signed(request: Request) -> Request:
    try:
        first = next(iter(readings(request.query, request.content_type, request.body)))
        right = sign(first.signed, system_token="t").encode()
    except (Rejection, UnicodeEncodeError):
        return request
    query, body = (part.replace(SIGNATURE_PLACE, right, 1) for part in (request.query, request.body))
    return request._replace(query=query, body=body)
