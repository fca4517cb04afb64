"""The native core accepts nearly all callbacks, and its decisions have the same bytes as Python's."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from support.edge import vectors
from support.edge.fakes import APP_TYPE, CORP_ID, SYSTEM_TOKEN, parameters_of
from support.edge.generated import (
    CREDENTIALS,
    Request,
    almost,
    decided_by_python,
    encoded,
    usual,
)
from support.wheels import WHERE_CARGO_BUILDS
from taskbridge.edge.decision.decide import Decision, Rules, core_of
from taskbridge.edge.errors import Rejection
from taskbridge.edge.request import Received
from taskbridge.edge.verification.credentials import parse_credentials
from taskbridge.edge.verification.signature import sign

if TYPE_CHECKING:
    from taskbridge.edge.events import Decided
    from taskbridge.edge.verification.credentials import Credentials, Token

pytestmark = WHERE_CARGO_BUILDS


class InForce:
    """A credentials file whose content a test replaces."""

    def __init__(self, credentials: Credentials) -> None:
        self.current = credentials


def decision(credentials: Credentials, used: list[Token], **rules: Any) -> Decision:
    file: Any = InForce(credentials)
    return Decision(credentials=file, rules=Rules(max_body_bytes=1 << 20, token_used=used.append, **rules))


def is_accepted(request: Request, credentials: Credentials = CREDENTIALS) -> bool:
    """Whether the core accepts the request; if it does, compare its decision with Python's."""
    used: list[Any] = []
    expected: list[Any] = []
    found = decided_by_core(decision(credentials, used), request)
    if found is None:
        assert used == []
        return False
    try:
        decided = decided_by_python(request, credentials=credentials, used=expected)
    except Rejection as rejection:
        pytest.fail(f"Python rejects a request that the core accepts, {rejection.reason}: {request}")
    assert (found, used) == (decided, expected)
    return True


def received(request: Request, *, path: str | None = None) -> Received:
    return Received(
        wire_action=request.action,
        received_at=request.received_at,
        remote_address="192.0.2.1",
        method="POST",
        path=path or f"/yida/tasks/{request.action}",
        query=request.query,
        headers={} if request.content_type is None else {"content-type": request.content_type},
        body=request.body,
    )


def decided_by_core(deciding: Decision, request: Request) -> Decided | None:
    return deciding.decide_natively(received(request))


def test_usual_callbacks_are_accepted() -> None:
    assert [request for request in usual() if not is_accepted(request)] == []


@settings(max_examples=settings().max_examples * 4)
@given(st.randoms(use_true_random=False))
def test_accepted_requests_are_decided_as_in_python(chance: random.Random) -> None:
    is_accepted(almost(chance))


@given(
    st.sampled_from([*usual()]),
    st.integers(0),
    st.binary(max_size=3),
    st.integers(0, 3),
    st.sampled_from(["query", "body"]),
)
def test_a_changed_request_is_decided_as_in_python(
    request: Request, at: int, put: bytes, left_out: int, part: str
) -> None:
    whole: bytes = getattr(request, part)
    at %= len(whole) + 1
    is_accepted(request._replace(**{part: whole[:at] + put + whole[at + left_out :]}))


def test_a_tenth_of_random_requests_is_accepted() -> None:
    """So that random requests compare more than rejections."""
    chance = random.Random(3)
    assert sum(is_accepted(almost(chance)) for _ in range(500)) > 50


def test_every_input_of_the_fuzzer_is_decided_as_in_python() -> None:
    requests = vectors.requests()
    assert sum(is_accepted(each, vectors.FUZZ_CREDENTIALS) for each in requests) > len(requests) / 20


def test_new_credentials_replace_the_old_ones_at_once() -> None:
    used: list[Any] = []
    first, second = (
        parse_credentials(f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_tokens = ["{token}"]') for token in ("one", "two")
    )
    deciding = decision(first, used)
    parameters = parameters_of("complete", instance_id="i")

    def is_signed_by(token: str) -> bool:
        signature = sign(parameters, system_token=token)
        return decided_by_core(deciding, encoded("complete", parameters | {"sign": signature}, "json")) is not None

    assert (is_signed_by("one"), is_signed_by("two")) == (True, False)
    deciding._file.current = second  # type: ignore[misc]
    assert (is_signed_by("one"), is_signed_by("two")) == (False, True)
    assert [token.fingerprint for token in used] == [
        credentials.tokens[0].fingerprint for credentials in (first, second)
    ]


def test_the_core_decides_only_with_a_bearer_token_where_one_is_required() -> None:
    request = received(next(usual()))
    deciding = decision(CREDENTIALS, [], bearer_tokens=["x" * 32])
    assert deciding.decide_natively(request) is None
    with_token = replace(request, headers={**request.headers, "authorization": f"Bearer {'x' * 32}"})
    assert deciding.decide_natively(with_token) == decision(CREDENTIALS, []).decide_natively(request) is not None


def test_only_requests_to_a_plain_path_are_accepted() -> None:
    """A request to another path may be of another system: Python decides."""
    request = next(usual())
    elsewhere = received(request, path=f"/sources/flow/tasks/{request.action}")
    with pytest.raises(Rejection):
        decision(CREDENTIALS, []).decide(elsewhere)


def test_the_core_does_not_show_its_tokens() -> None:
    core = core_of(CREDENTIALS)
    assert core is not None
    assert SYSTEM_TOKEN not in repr(core) + str(vars(type(core)))
    assert CORP_ID not in repr(core)
