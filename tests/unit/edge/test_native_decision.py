"""The native core decides a callback as Python does, to the byte, or leaves it to Python; it takes nearly all."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import edge_corpus
import pytest
from edge_requests import CREDENTIALS, Request, almost, decided_by_python, encoded, usual
from hypothesis import given, settings
from hypothesis import strategies as st

from installed_parts import WHERE_CARGO_BUILDS
from taskbridge.edge.deciding.decision import Decision, core_of
from taskbridge.edge.deciding.interpret import Rules
from taskbridge.edge.errors import Rejection
from taskbridge.edge.received import Received
from taskbridge.edge.testing import APP_TYPE, CORP_ID, SYSTEM_TOKEN, parameters_of
from taskbridge.edge.verification.credentials import parse_credentials
from taskbridge.edge.verification.signature import sign

if TYPE_CHECKING:
    from taskbridge.edge.decided import Decided
    from taskbridge.edge.verification.credentials import Credentials, Token

pytestmark = WHERE_CARGO_BUILDS


class InForce:
    """Credentials that a test puts in force."""

    def __init__(self, credentials: Credentials) -> None:
        self.current = credentials


def decision(credentials: Credentials, used: list[Token], **rules: Any) -> Decision:
    file: Any = InForce(credentials)
    return Decision(credentials=file, rules=Rules(max_body_bytes=1 << 20, used=used.append, **rules))


def is_taken(request: Request, credentials: Credentials = CREDENTIALS) -> bool:
    """By the core; and then it is decided as Python decides it."""
    used: list[Any] = []
    expected: list[Any] = []
    found = asked(decision(credentials, used), request)
    if found is None:
        assert used == []
        return False
    try:
        decided = decided_by_python(request, credentials=credentials, used=expected)
    except Rejection as rejection:
        pytest.fail(f"Python refuses what the core takes, {rejection.reason}: {request}")
    assert (found, used) == (decided, expected)
    assert found.event() == decided.event()
    return True


def asked(deciding: Decision, request: Request) -> Decided | None:
    return deciding.at_once(
        request.action,
        query=request.query,
        content_type=request.content_type,
        body=request.body,
        received_at=request.received_at,
    )


def test_what_nearly_all_callbacks_are_is_taken() -> None:
    assert [request for request in usual() if not is_taken(request)] == []


@settings(max_examples=settings().max_examples * 4)
@given(st.randoms(use_true_random=False))
def test_whatever_is_taken_is_decided_as_python_decides_it(chance: random.Random) -> None:
    is_taken(almost(chance))


@given(
    st.sampled_from([*usual()]),
    st.integers(0),
    st.binary(max_size=3),
    st.integers(0, 3),
    st.sampled_from(["query", "body"]),
)
def test_bytes_that_change_on_the_way_change_nothing_unseen(
    request: Request, at: int, put: bytes, left_out: int, part: str
) -> None:
    whole: bytes = getattr(request, part)
    at %= len(whole) + 1
    is_taken(request._replace(**{part: whole[:at] + put + whole[at + left_out :]}))


def test_half_of_what_is_almost_a_callback_and_proves_something_is_taken() -> None:
    """So that the comparison is not of refusals alone."""
    chance = random.Random(3)
    assert sum(is_taken(almost(chance)) for _ in range(500)) > 50


def test_every_input_of_the_fuzzer_is_decided_as_python_decides_it() -> None:
    inputs = [*edge_corpus.corpus()]
    taken = [name for name, request in inputs if is_taken(request, edge_corpus.CREDENTIALS)]
    assert len(taken) > len(inputs) / 20


def test_new_credentials_are_in_force_at_once_and_old_ones_no_more() -> None:
    used: list[Any] = []
    first, second = (
        parse_credentials(f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_tokens = ["{token}"]') for token in ("one", "two")
    )
    deciding = decision(first, used)
    parameters = parameters_of("complete", instance_id="i")

    def is_signed_by(token: str) -> bool:
        signature = sign(parameters, system_token=token)
        return asked(deciding, encoded("complete", parameters | {"sign": signature}, "json")) is not None

    assert (is_signed_by("one"), is_signed_by("two")) == (True, False)
    deciding._file.current = second  # type: ignore[misc]
    assert (is_signed_by("one"), is_signed_by("two")) == (False, True)
    assert [token.fingerprint for token in used] == [
        credentials.tokens[0].fingerprint for credentials in (first, second)
    ]


def test_where_bearer_tokens_are_asked_for_python_decides() -> None:
    request = next(usual())
    assert asked(decision(CREDENTIALS, []), request) is not None
    assert asked(decision(CREDENTIALS, [], bearer_tokens=["x" * 32]), request) is None


def test_only_what_is_posted_at_the_plain_path_is_taken() -> None:
    """By another path it may be another system's, or was typed oddly: Python knows."""
    request = next(usual())
    received = Received(
        wire_action=request.action,
        received_at=request.received_at,
        remote_address="192.0.2.1",
        method="POST",
        path=f"/sources/flow/tasks/{request.action}",
        query=request.query,
        headers={"content-type": "application/json"},
        body=request.body,
    )
    with pytest.raises(Rejection):
        decision(CREDENTIALS, []).of(received)


def test_the_core_says_nothing_of_its_tokens() -> None:
    core = core_of(CREDENTIALS)
    assert core is not None
    assert SYSTEM_TOKEN not in repr(core) + str(vars(type(core)))
    assert CORP_ID not in repr(core)
