"""The signature equals the JVM's on every vector, and nothing but the signed values and a right token passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.edge.verification import signature
from taskbridge.edge.verification.signature import (
    SIGN,
    are_distinct,
    canonical_order,
    canonical_string,
    fold,
    matching,
    sign,
)

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


def test_sign_itself_is_not_signed() -> None:
    assert canonical_string({"b": "2", "sign": "x", "A": "1"}) == "12"


@pytest.mark.parametrize("given_sign", ["", "签名", "\ud800", "0" * 31, "0" * 33, "K" * 32])
def test_a_signature_that_is_no_hex_is_a_mismatch(given_sign: str) -> None:
    assert not verifies({"a": "1"}, "token", given_sign)


def test_any_of_several_tokens_may_have_signed_and_it_is_told_which() -> None:
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


def test_the_order_of_a_few_short_names_is_remembered_and_strangers_can_fill_no_more_than_that() -> None:
    remembered = signature._remembered  # pyright: ignore[reportPrivateUsage]
    remembered.cache_clear()
    canonical_order({"a" * 256: "", "b" * 256: ""})
    assert remembered.cache_info().currsize == 1
    canonical_order({"a" * 256: "", "b" * 257: ""})
    assert remembered.cache_info().currsize == 1
    for number in range(300):
        canonical_order({f"k{number}": ""})
    assert remembered.cache_info().currsize == 256
