"""Only the app's own tokens, for its own organisation, let a callback in; why one is refused only the log is told."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from taskbridge.edge.callbacks import locate
from taskbridge.edge.errors import Unverified
from taskbridge.edge.sender import signed
from taskbridge.edge.testing import APP_TYPE, CORP_ID, parameters_of
from taskbridge.edge.verification.credentials import parse_credentials
from taskbridge.edge.verification.verify import bearer_digest, check_bearer, verify

if TYPE_CHECKING:
    from collections.abc import Mapping


CREDENTIALS = parse_credentials(f"""
[[apps]]
app_type = "{APP_TYPE}"
corp_id = "{CORP_ID}"
system_tokens = ["current", "previous"]
[[apps]]
app_type = "{APP_TYPE}"
corp_id = "other-corp"
system_tokens = ["other-corps"]
""")
ANY_CORP = parse_credentials('[[apps]]\napp_type = "APP_ANY_CORP"\nsystem_tokens = ["any"]')


def check(parameters: Mapping[str, str], wire_action: str = "complete", extra: tuple[str, ...] = ()) -> bool:
    verify(locate(wire_action, parameters), parameters, credentials=CREDENTIALS, delete_extra_keys=extra)
    return True


def refused(parameters: Mapping[str, str], wire_action: str = "complete") -> str:
    with pytest.raises(Unverified) as caught:
        check(parameters, wire_action)
    return caught.value.reason


def callback(token: str, wire_action: str = "complete", **changed: str) -> dict[str, str]:
    return signed({**parameters_of(wire_action, instance_id="i"), **changed}, system_token=token)


@pytest.mark.parametrize("token", ["current", "previous"])
def test_every_token_of_the_app_is_accepted(token: str) -> None:
    assert check(callback(token))


def test_each_organisation_has_its_own_tokens() -> None:
    assert check(callback("other-corps", corpId="other-corp"))
    assert refused(callback("other-corps")) == "other-corp"
    assert refused(callback("current", corpId="other-corp")) == "other-corp"
    unbound = callback("any", appType="APP_ANY_CORP", corpId="whatever")
    verify(locate("complete", unbound), unbound, credentials=ANY_CORP)


def test_reasons_differ_and_messages_do_not() -> None:
    good = callback("current")
    cases = {
        "unknown-app": callback("current", appType="APP_X"),
        "no-sign": {**good, "sign": " "},
        "wrong-sign": callback("wrong"),
        "other-corp": callback("current", corpId="x"),
    }
    messages: set[str] = set()
    for reason, parameters in cases.items():
        with pytest.raises(Unverified) as caught:
            check(parameters)
        assert caught.value.reason == reason
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_a_missing_corp_is_for_the_shape_to_refuse() -> None:
    assert check(callback("current", corpId=""))


def test_a_delete_with_an_extra_key_is_not_proven() -> None:
    extra = callback("current", "delete", actualWorkId="")
    assert refused(extra, "delete") == "delete-extra-key"
    assert check(extra, "delete", ("actualWorkId",))
    assert check(callback("current", "delete"), "delete")


def test_another_signing_scheme_is_the_reason_whatever_failed() -> None:
    for foreign in (callback("wrong", __signature="A"), {**callback("current", appType="X"), "__signature": "A"}):
        assert refused(foreign) == "other-signing-scheme"
    with pytest.raises(Unverified, match="__signature"):
        check(callback("wrong", __signature="A"))
    assert check(callback("current", __signature="A"))


def test_the_corp_decides_between_two_organisations_with_one_token() -> None:
    shared = parse_credentials(
        "".join(f'[[apps]]\napp_type = "A"\ncorp_id = "{corp}"\nsystem_tokens = ["one", "{corp}"]\n' for corp in "xyz")
    )
    for corp in "xyz":
        parameters = callback("one", appType="A", corpId=corp)
        token = verify(locate("complete", parameters), parameters, credentials=shared)
        assert token.place == f"apps.{'xyz'.index(corp)}.system_tokens.0"


@pytest.mark.parametrize("authorization", ["Bearer one", "bearer  two", "BEARER two "])
def test_any_configured_bearer_token_is_accepted(authorization: str) -> None:
    check_bearer(authorization, ["one", "two"], locate("complete", callback("current")))


def test_a_bearer_token_is_told_by_its_digest() -> None:
    assert bearer_digest("Bearer one") == hashlib.sha256(b"one").hexdigest()
    assert (bearer_digest("Basic one"), bearer_digest(None)) == (None, None)


def test_a_bearer_token_beyond_ascii_is_compared_as_bytes() -> None:
    on_the_wire = "Bearer 密".encode().decode("latin-1")
    check_bearer(on_the_wire, ["密"], locate("complete", callback("current")))


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "no-bearer"),
        ("", "no-bearer"),
        ("one", "no-bearer"),
        ("Basic one", "no-bearer"),
        ("Bearer", "wrong-bearer"),
        ("Bearer three", "wrong-bearer"),
        ("Bearer one,two", "wrong-bearer"),
    ],
)
def test_any_other_bearer_token_is_refused(authorization: str | None, reason: str) -> None:
    located = locate("complete", callback("current"))
    with pytest.raises(Unverified) as caught:
        check_bearer(authorization, ["one", "two"], located)
    assert caught.value.reason == reason
    check_bearer(authorization, [], located)
