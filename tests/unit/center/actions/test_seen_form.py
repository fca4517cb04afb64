"""The digest of a form is that of its values, and what changed is what a person would call changed."""

from __future__ import annotations

from taskbridge.center.actions.seen_form import changed_fields, digest_of, values_of


def test_the_digest_is_of_the_values_and_not_of_their_order() -> None:
    values = {"a": "1", "b": None}
    assert digest_of(values) == digest_of({"b": None, "a": "1"})
    others = [{"a": "1"}, {"a": "1", "b": ""}, {"a": "1", "b": "null"}, {"a": '1","b":null'}, {"a": None, "b": "1"}]
    assert digest_of(values) not in {digest_of(each) for each in others}


def test_values_are_the_texts_that_events_have() -> None:
    assert values_of(None) == {}
    given = {"a": "x", "b": None, "c": 200, "d": 1.5, "e": ["王"], "f": {"g": True}}
    assert values_of(given) == {"a": "x", "b": None, "c": "200", "d": "1.5", "e": '["王"]', "f": '{"g":true}'}


def test_another_spelling_is_no_change() -> None:
    start = {"a": "200", "b": '[ {"x": 1, "y": 2} ]', "c": None, "d": "[]", "e": " 7"}
    now = {"a": "200.0", "b": '[{"y":2,"x":1}]', "c": "", "d": None, "e": "7"}
    assert changed_fields(start, now) == []


def test_what_changed_came_or_went_is_named() -> None:
    start = {"amount": "200", "note": "x", "person": "王伟", "person_id": "1", "same": "y"}
    now = {"same": "y", "amount": "20000", "approved": "yes", "person": "李雷", "person_id": "2", "empty": None}
    assert changed_fields(start, now) == ["amount", "approved", "person", "note", "person_id"]


def test_hostile_values_are_texts() -> None:
    deep, large = "[" * 20_000, "9" * 400
    start = {"a": deep, "b": large, "c": "\ud800", "d": "NaN", "e": "9007199254740993"}
    assert changed_fields(start, dict(start)) == []
    now = {**start, "a": deep + "[", "b": large + "9", "e": "9007199254740992"}
    assert changed_fields(start, now) == ["a", "b", "e"]
