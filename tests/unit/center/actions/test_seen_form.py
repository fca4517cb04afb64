"""The digest of a form is that of its values, and what changed is what a person would call changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taskbridge.center.actions.seen_form import changed_fields, digest_of

if TYPE_CHECKING:
    from taskbridge.center.actions.seen_form import Values


def test_the_digest_is_of_the_values_and_not_of_their_order() -> None:
    values = {"a": "1", "b": None}
    assert digest_of(values) == digest_of({"b": None, "a": "1"})
    others = [{}, {"a": "1", "b": "null"}, {"a": '1","b":null'}, {"a": None, "b": "1"}, {"a": "x"}, {"a": "1.5"}]
    assert digest_of(values) not in {digest_of(each) for each in others}


FILE = '[{"name":"a.pdf","size":%s,"url":"https://x/f/1.pdf%s"}]'


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({"a": "200"}, {"a": "200.0"}, True),
        ({"a": "200"}, {"a": "201"}, False),
        ({"a": "1"}, {"a": "1", "b": "[]", "c": "", "d": None}, True),
        ({"a": '[{"x":1,"y":"2"}]'}, {"a": '[ {"y":2,"x":"1","z":[]} ]'}, True),
        ({"a": '[{"x":1,"y":2}]'}, {"a": '[{"x":1,"y":3}]'}, False),
        ({"a": '["1","2"]'}, {"a": '["2","1"]'}, False),
        ({"a": '["9007199254740993"]'}, {"a": '["9007199254740992"]'}, False),
        ({"f": FILE % (1, "?Expires=1&Signature=x")}, {"f": FILE % ('"1"', "?Expires=2&Signature=y")}, True),
        ({"f": FILE % (1, "?fileName=APP_1/x.pdf")}, {"f": FILE % (1, "?fileName=APP_1/y.pdf")}, False),
        ({"f": FILE % (1, "")}, {"f": (FILE % (1, "")).replace("1.pdf", "2.pdf")}, False),
        ({"link": "https://x/?id=1"}, {"link": "https://x/?id=2"}, False),
    ],
    ids=str,
)
def test_the_digest_and_the_changed_fields_agree(one: Values, other: Values, *, is_same: bool) -> None:
    """So that a refusal always shows a change."""
    assert (digest_of(one) == digest_of(other), changed_fields(one, other) == []) == (is_same, is_same)


def test_what_changed_came_or_went_is_named() -> None:
    start = {"amount": "200", "note": "x", "person": "王伟", "person_id": "1", "same": "y"}
    now = {"same": "y", "amount": "20000", "approved": "yes", "person": "李雷", "person_id": "2", "empty": None}
    assert changed_fields(start, now) == ["amount", "approved", "person", "note", "person_id"]


def test_hostile_values_are_texts() -> None:
    deep, large = "[" * 20_000, "9" * 400
    start = {"a": deep, "b": large, "c": "\ud800", "d": "NaN", "e": "9007199254740993"}
    assert changed_fields(start, dict(start)) == []
    assert digest_of(start) == digest_of(dict(start))
    now = {**start, "a": deep + "[", "b": large + "9", "e": "9007199254740992"}
    assert changed_fields(start, now) == ["a", "b", "e"]
