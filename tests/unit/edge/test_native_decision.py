"""The native core accepts nearly all callbacks, and its decisions have the same bytes as Python's."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from support.edge import vectors
from support.edge.fakes import APP_TYPE, CORP_ID, SYSTEM_TOKEN, parameters_of
from support.edge.generated import (
    CREDENTIALS,
    FORM,
    RECEIVED_AT,
    Request,
    almost,
    decided_by_python,
    encoded,
    parts_of,
    usual,
)
from support.wheels import WHERE_CARGO_BUILDS
from taskbridge.edge.decision import Decision, Rules, core_of
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
    assert found.event() == decided.event()
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


PLAIN = [
    *("Host: edge.example", "User-Agent: Yida/1.0", "Accept: */*", "X-Request-Id: 0123456789abcdef", "X-A:b", "X-A: c"),
    *("X-Forwarded-For: 192.0.2.7, 10.0.0.1", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    *("Connection: keep-alive", "Connection: Keep-Alive", "X-Empty:", "X-B: ", "X_Under: a", "X-D: a:b"),
    "X-Longer-Than-All-That-Count: 1",
]
ODD = [
    *("connection: close", "Connection: TE", "Proxy-Connection: close", "Upgrade: h2c", "Trailer: x"),
    *("Transfer-Encoding: chunked", "Expect: 100-continue", "Content-Encoding: gzip", "HTTP2-Settings: AAEAA"),
    *("Content-Length: 2", "content-length: 000240", "Content-Type: text/plain", "X-C:  b", "X-After : b", ": b"),
    *("X Space: b", " X-Before: b", "X-End: b ", "no colon", "", "X-Tab: a\tb", "X-张: b", "X-Raw: 张"),
    *("X-Bare: a\rb", "X-Bare: a\nb", "X-Null: a\0b", "X-Delete: a\x7fb", "X-Longer-Than-All-That-Count : 1"),
]
LINES = [*PLAIN, *ODD]
HABITS = ["Host: edge.example", "Accept: */*", "X-Forwarded-For: 192.0.2.7", "Connection: keep-alive", "X-A:b"]


def is_accepted_whole(piece: bytes, credentials: Credentials = CREDENTIALS) -> bool:
    """Whether the core accepts all bytes of a request at once; if it does, compare its results with Python's."""
    deciding = decision(credentials, [])
    accepted = deciding.decide_request(piece, RECEIVED_AT)
    if accepted is None:
        return False
    wire_action, forwarded_for, traceparent, found = accepted
    parts = parts_of(piece)
    assert parts is not None, piece
    headers, request = parts
    assert wire_action == request.action
    assert (forwarded_for, traceparent) == (headers.get("x-forwarded-for"), headers.get("traceparent"))
    assert deciding.event_of(wire_action, found) == decided_by_core(deciding, request)
    return is_accepted(request, credentials)


def piece_of(first: bytes, lines: list[str], body: bytes) -> bytes:
    return b"\r\n".join([first, *(line.encode() for line in lines)]) + b"\r\n\r\n" + body


def head_of(request: Request) -> tuple[bytes, list[str]]:
    lines = [f"Content-Length: {len(request.body)}"]
    if request.content_type is not None:
        lines.append(f"Content-Type: {request.content_type}")
    return f"POST /yida/tasks/{request.action} HTTP/1.1".encode(), lines


IN_THE_BODY = [request for request in usual() if not request.query]


def test_usual_requests_are_accepted_whole() -> None:
    assert IN_THE_BODY
    for request in IN_THE_BODY:
        first, lines = head_of(request)
        assert is_accepted_whole(piece_of(first, [*HABITS, *lines], request.body)), request


@pytest.mark.parametrize("line", LINES)
def test_python_reads_each_accepted_header_alike(line: str) -> None:
    first, needed = head_of(IN_THE_BODY[0])
    is_accepted_whole(piece_of(first, [line, *needed], IN_THE_BODY[0].body))


@given(st.sampled_from(IN_THE_BODY), st.lists(st.sampled_from(LINES), max_size=4), st.randoms(use_true_random=False))
def test_python_reads_each_accepted_head_alike(request: Request, lines: list[str], chance: random.Random) -> None:
    first, needed = head_of(request)
    lines = [line.swapcase() if chance.random() < 0.1 else line for line in (*lines, *needed)]
    chance.shuffle(lines)
    is_accepted_whole(piece_of(first, lines, request.body))


@given(st.sampled_from(IN_THE_BODY), st.integers(0), st.binary(max_size=3), st.integers(0, 3))
def test_a_changed_head_is_decided_as_in_python(request: Request, at: int, put: bytes, left_out: int) -> None:
    first, lines = head_of(request)
    whole = piece_of(first, [*HABITS, *lines], request.body)
    at %= len(whole) - len(request.body)
    is_accepted_whole(whole[:at] + put + whole[at + left_out :])


def test_headers_that_readers_disagree_on_are_not_accepted() -> None:
    request = IN_THE_BODY[0]
    first, needed = head_of(request)

    def is_accepted_with(*lines: str) -> bool:
        return is_accepted_whole(piece_of(first, [*needed, *lines], request.body))

    assert [line for line in LINES if is_accepted_with(line)] == PLAIN
    many = [f"X-{number}: 1" for number in range(63)]
    assert is_accepted_with(*many[: 64 - len(needed)])
    assert not is_accepted_with(*many[: 65 - len(needed)])


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
    credentials = vectors.FUZZ_CREDENTIALS
    requests, wholes = vectors.requests(), vectors.wholes()
    assert sum(is_accepted(each, credentials) for each in requests) > len(requests) / 20
    assert sum(is_accepted_whole(each, credentials) for each in wholes) > len(wholes) / 20


PROVEN = {(each.action, each.content_type == FORM): each.body for each in IN_THE_BODY}


def with_proof(piece: bytes) -> bytes:
    """The head with a signed body of its action and type: otherwise the body would hide differences of the head."""
    head, end, body = piece.partition(b"\r\n\r\n")
    action = head.partition(b" HTTP")[0].rpartition(b"/")[2].decode("latin-1")
    body = PROVEN.get((action, b"json" not in head.lower()), body)
    return re.sub(rb"(?i)(?<=\r\ncontent-length: )\d+", b"%d" % len(body), head) + end + body


def test_every_head_of_the_fuzzer_is_read_as_in_python() -> None:
    pieces = vectors.wholes()
    assert sum(is_accepted_whole(with_proof(each)) for each in pieces) > len(pieces) / 5


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


@pytest.mark.parametrize(
    "reloaded", [["three"], ["two", "one"]], ids=["fewer tokens", "the same tokens in another order"]
)
def test_credentials_that_are_reloaded_between_decision_and_use_change_nothing(reloaded: list[str]) -> None:
    used: list[Token] = []
    first, second = (
        parse_credentials(f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_tokens = {tokens}')
        for tokens in (["one", "two"], reloaded)
    )
    deciding = decision(first, used)
    parameters = parameters_of("complete", instance_id="i")
    request = encoded("complete", parameters | {"sign": sign(parameters, system_token="two")}, "json")
    found = deciding.decide_request(piece_of(*head_of(request), request.body), RECEIVED_AT)
    assert found is not None
    deciding._file.current = second  # type: ignore[misc]
    deciding.event_of(found[0], found[3])
    assert used == [first.tokens[1]]


def test_the_core_decides_only_with_a_bearer_token_where_one_is_required() -> None:
    request = received(next(usual()))
    deciding = decision(CREDENTIALS, [], bearer_tokens=["x" * 32])
    assert deciding.decide_natively(request) is None
    with_token = replace(request, headers={**request.headers, "authorization": f"Bearer {'x' * 32}"})
    assert deciding.decide_natively(with_token) == decision(CREDENTIALS, []).decide_natively(request) is not None
    first, lines = head_of(IN_THE_BODY[0])
    assert deciding.decide_request(piece_of(first, lines, IN_THE_BODY[0].body), RECEIVED_AT) is None


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
