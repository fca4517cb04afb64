"""Messages are proven as Standard Webhooks says: by its own vector, by any secret in force, within five minutes."""

from __future__ import annotations

import base64

import pytest

from support.edge.fakes import SOURCE_SECRET
from taskbridge.runtime.standard_webhooks import TOLERANCE_S, is_timely, key_of, matching, signature

# The example of its specification and of its libraries' own tests.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHER = SIGNATURE.replace("g0h", "g0i")


def verify(signatures: str, *candidates: str, body: bytes = BODY) -> list[bool]:
    keys = map(key_of, candidates or (SECRET,))
    return matching(MESSAGE_ID, TIMESTAMP, body, keys=keys, signatures=signatures)


def test_the_specifications_example_has_its_signature() -> None:
    assert signature(MESSAGE_ID, TIMESTAMP, BODY, key=key_of(SECRET)) == SIGNATURE
    assert verify(SIGNATURE) == [True]


@pytest.mark.parametrize(
    "signatures",
    [
        f"{OTHER} {SIGNATURE}",
        f"{SIGNATURE} {OTHER}",
        f"v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg== {SIGNATURE}",
        f"v2,{SIGNATURE[3:]} {SIGNATURE}",
        f"  {SIGNATURE}",
        f"{15 * f'{OTHER} '}{SIGNATURE}",
    ],
)
def test_one_of_several_signatures_is_enough(signatures: str) -> None:
    assert verify(signatures) == [True]


@pytest.mark.parametrize(
    "signatures",
    ["", "v1,", OTHER, SIGNATURE[3:], SIGNATURE.upper(), f"v2,{SIGNATURE[3:]}", SIGNATURE.replace(",", ", "), "\xff"],
)
def test_nothing_else_is_taken_for_one(signatures: str) -> None:
    assert verify(signatures) == [False]


def test_signatures_after_the_first_sixteen_are_ignored() -> None:
    assert verify(f"{16 * f'{OTHER} '}{SIGNATURE}") == [False]


def test_each_of_several_secrets_may_have_signed() -> None:
    assert verify(SIGNATURE, SOURCE_SECRET, SECRET) == [False, True]
    assert verify(
        f"{signature(MESSAGE_ID, TIMESTAMP, BODY, key=key_of(SOURCE_SECRET))} {SIGNATURE}", SOURCE_SECRET, SECRET
    ) == [
        True,
        True,
    ]


@pytest.mark.parametrize("changed", [b"", BODY + b" ", BODY.replace(b"4", b"5", 1)])
def test_another_body_has_another_signature(changed: bytes) -> None:
    assert verify(SIGNATURE, body=changed) == [False]


def test_id_and_timestamp_are_signed_too() -> None:
    for message_id, timestamp in ((MESSAGE_ID + "x", TIMESTAMP), (MESSAGE_ID, "1614265331"), ("", TIMESTAMP)):
        assert matching(message_id, timestamp, BODY, keys=[key_of(SECRET)], signatures=SIGNATURE) == [False]


def test_five_minutes_either_way_are_timely() -> None:
    at = int(TIMESTAMP) * 1000
    for away_ms, timely in (
        (0, True),
        (TOLERANCE_S * 1000, True),
        (-TOLERANCE_S * 1000, True),
        (TOLERANCE_S * 1000 + 1, False),
        (-TOLERANCE_S * 1000 - 1, False),
    ):
        assert is_timely(TIMESTAMP, received_at=at + away_ms) is timely


@pytest.mark.parametrize(
    "timestamp", ["", " ", "-1614265330", "1614265330.0", "0x1", "१६१४२६५३३०", "1614265330 ", "1e9"]
)
def test_what_is_no_whole_seconds_is_not_timely(timestamp: str) -> None:
    assert not is_timely(timestamp, received_at=1_614_265_330_000)


@pytest.mark.parametrize("size", [24, 32, 64])
def test_keys_are_as_long_as_the_specification_allows(size: int) -> None:
    assert len(key_of("whsec_" + base64.b64encode(b"x" * size).decode())) == size


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        SECRET.removeprefix("whsec_"),
        SECRET[:-1],
        SECRET + "\n",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "whsec_" + "-_" * 16,
        "WHSEC_" + SECRET.removeprefix("whsec_"),
    ],
)
def test_what_is_no_secret_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_") as caught:
        key_of(secret)
    assert len(secret) < 8 or secret not in str(caught.value)
