"""What nobody signed costs little: it is looked at by compiled code only, and hashed a bounded number of times."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import pytest
from hostile import SIZE, hostile

from edge.errors import Rejection
from edge.parsing import strict_json
from edge.proof.credentials import parse_credentials
from edge.proof.replays import MemoryWindow
from edge.server.received import Received
from edge.testing import APP_TYPE, SYSTEM_TOKEN
from edge.understanding import understand

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostile import Hostile

CREDENTIALS = parse_credentials(f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_tokens = ["{SYSTEM_TOKEN}"]')
HASHES = 60
"""A megabyte that is not proven takes the processor no longer than hashing it so many times would, some 80 ms; nearly
all take 10. It was four hundred times before."""


def refusal(request: Hostile) -> str | None:
    received = Received(
        wire_action=request.action,
        received_at=1,
        remote_address="192.0.2.1",
        method="POST",
        path="/yida/tasks/" + request.action,
        query=request.query.encode(),
        headers=request.headers,
        body=request.body,
    )
    try:
        understand(
            received,
            credentials=CREDENTIALS,
            bearer_tokens=(),
            delete_extra_keys=(),
            window=MemoryWindow(),
            max_body_bytes=1 << 20,
        )
    except Rejection as rejection:
        return rejection.reason
    return None


def least_processor_time(run: Callable[[], object]) -> float:
    """The least of three: what else runs on the machine only adds to it."""
    found: list[float] = []
    for _ in range(3):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return min(found)


@pytest.mark.parametrize("request_", hostile(), ids=lambda each: each.name)
def test_what_is_not_proven_never_reaches_the_parser_that_makes_values(
    request_: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(_: str) -> None:
        raise AssertionError("it is parsed whole before it is proven")

    monkeypatch.setattr(strict_json, "parse", unexpected)
    assert refusal(request_) is not None


def test_what_is_not_proven_costs_little_whatever_it_holds() -> None:
    unit = least_processor_time(lambda: hashlib.md5(b"x" * SIZE, usedforsecurity=False).digest())
    costs = {each.name: least_processor_time(lambda each=each: refusal(each)) / unit for each in hostile()}
    assert {name: cost for name, cost in costs.items() if cost > HASHES} == {}
