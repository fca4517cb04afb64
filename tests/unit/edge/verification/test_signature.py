"""Signatures match those that the JVM made; only the app's own tokens, for its own corp, verify a callback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.edge.fakes import APP_TYPE, CORP_ID, parameters_of
from taskbridge.edge.decision.callbacks import locate
from taskbridge.edge.errors import Unverified
from taskbridge.edge.sender import signed
from taskbridge.edge.verification.credentials import parse_credentials
from taskbridge.edge.verification.signature import (
    SIGN,
    are_distinct,
    canonical_order,
    check_bearer,
    fold,
    matching,
    sign,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

ALL: list[dict[str, Any]] = json.loads((Path(__file__).parents[3] / "vectors" / "sign-vectors.json").read_text("utf-8"))
VECTORS = [vector for vector in ALL if not vector["ambiguous"]]


def verifies(parameters: dict[str, str], token: str, signature: str) -> bool:
    return matching(parameters, system_tokens=[token], sign=signature) == [True]


def changed(text: str, at: int) -> str:
    return text[:at] + ("1" if text[at] == "0" else "0") + text[at + 1 :]


def places(text: str) -> list[int]:
    """Every place of a short text, and some of a long one."""
    return list(range(0, len(text), max(1, len(text) // 50)))


def test_there_are_vectors_of_every_group() -> None:
    groups = {"documented", "values", "ascii_keys", "non_ascii_keys", "collision"}
    assert {vector["group"] for vector in VECTORS} == groups
    assert len(VECTORS) == 37


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_vector_verifies_in_either_hex_case(vector: dict[str, Any]) -> None:
    parameters, token, signature = vector["params"], vector["system_token"], vector["sign"]
    assert sign(parameters, system_token=token) == signature
    assert verifies(parameters, token, signature)
    assert verifies({**parameters, "sign": signature}, token, signature.upper())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_vector_with_one_changed_character_does_not_verify(vector: dict[str, Any]) -> None:
    parameters, token, signature = vector["params"], vector["system_token"], vector["sign"]
    for key, value in parameters.items():
        for at in places(value):
            assert not verifies({**parameters, key: changed(value, at)}, token, signature), (key, at)
    for at in places(token):
        assert not verifies(parameters, changed(token, at), signature), at
    for at in places(signature):
        assert not verifies(parameters, token, changed(signature, at)), at


def test_the_order_is_javas_where_pythons_own_lower_case_differs() -> None:
    assert canonical_order({"ςb": "", "σa": "", "Σc": ""}) == ["σa", "ςb", "Σc"]  # noqa: RUF001 - sigma is the point
    assert canonical_order({"ib": "", "İa": "", "İc": ""}) == ["İa", "ib", "İc"]
    assert canonical_order({"sz": "", "ß": "", "ss": ""}) == ["ss", "sz", "ß"]
    assert fold("ᾳ") == fold("ᾼ")
    assert fold("µſı") == fold("μsi")


@pytest.mark.parametrize("given_sign", ["", "签名", "\ud800", "0" * 31, "0" * 33, "K" * 32])
def test_a_signature_that_is_no_hex_is_a_mismatch(given_sign: str) -> None:
    assert not verifies({"a": "1"}, "token", given_sign)


def test_any_of_several_tokens_may_have_signed_and_the_result_names_it() -> None:
    made = sign({"a": "1"}, system_token="old")
    assert matching({"a": "1"}, system_tokens=["new", "old", "older"], sign=made) == [False, True, False]
    assert matching({"a": "1"}, system_tokens=["new", "newer"], sign=made) == [False, False]


@given(st.text())
def test_folding_keeps_every_character_one_character(text: str) -> None:
    assert len(fold(text)) == len(text)
    assert fold(fold(text)) == fold(text)


def test_keys_that_are_equal_ignoring_case_are_not_distinct() -> None:
    assert are_distinct(("a", "b", SIGN))
    assert not are_distinct(("a", "b", "A"))
    assert not are_distinct(("a", "Sign", SIGN))


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


def test_each_organisation_has_its_own_tokens() -> None:
    assert check(callback("other-corps", corpId="other-corp"))
    assert refused(callback("other-corps")) == "other-corp"
    assert refused(callback("current", corpId="other-corp")) == "other-corp"
    unbound = callback("any", appType="APP_ANY_CORP", corpId="any-corp")
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


def test_another_signing_scheme_is_the_reason_for_any_failure() -> None:
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
