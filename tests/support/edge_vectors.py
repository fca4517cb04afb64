"""What the edge decides in Python, written down for the native core's own test, ``native/src/edge/vectors.rs``.

``PYTHONPATH=tests/support uv run python -m edge_vectors`` writes ``tests/vectors/edge-vectors.json`` anew. With a
number and a seed, that many requests that are almost callbacks go to standard output, for
``TASKBRIDGE_EDGE_VECTORS=FILE cargo test``.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_requests import CREDENTIALS, FIGURES, Request, almost, decided_by_python, left, usual
from taskbridge.edge.errors import Rejection

if TYPE_CHECKING:
    from collections.abc import Iterable

PATH = Path(__file__).parents[1] / "vectors" / "edge-vectors.json"
ALMOST = 60


def vectors() -> str:
    chance = random.Random(20)
    return written(usual(), left(), [almost(chance) for _ in range(ALMOST)])


def written(taken: Iterable[Request], not_taken: Iterable[Request], perhaps: Iterable[Request]) -> str:
    """The first must be taken and the second not; of the others, what is taken must be what Python decides."""
    apps = {
        app_type: [[app.corp_id, token.secret.get_secret_value()] for app, token in CREDENTIALS.signers(app_type)]
        for app_type in CREDENTIALS.app_types
    }
    lines = [json.dumps({"apps": apps, **FIGURES})]
    lines += [json.dumps(_vector(each, is_taken=True)) for each in taken]
    lines += [json.dumps(_vector(each, is_taken=False)) for each in not_taken]
    lines += [json.dumps(_vector(each, is_taken=None)) for each in perhaps]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _vector(request: Request, *, is_taken: bool | None) -> dict[str, Any]:
    used: list[Any] = []
    asked = request._asdict() | {"query": request.query.decode("latin-1"), "body": request.body.decode("latin-1")}
    try:
        decided = decided_by_python(request, used=used)
    except Rejection:
        return {"is_taken": is_taken, **asked, "decided": None}
    assert decided.mark is not None
    return {
        "is_taken": is_taken,
        **asked,
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
