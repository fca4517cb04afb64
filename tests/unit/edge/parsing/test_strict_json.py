"""JSON from strangers: verbatim where it matters, bounded where it could hurt."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.edge.errors import MAX_PARAMETERS, Malformed
from taskbridge.edge.parsing import strict_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@dataclass(frozen=True)
class Pairs:
    """A JSON object as the standard library sees it."""

    pairs: list[tuple[str, object]]


@given(st.dictionaries(st.text(), st.text() | st.none()))
def test_the_short_way_for_texts_gives_what_the_long_way_gives(members: dict[str, str | None]) -> None:
    for indent in (None, 1):
        short, long = (json.dumps(members | more, indent=indent) for more in ({}, {"n" * 99: 1}))
        assert strict_json.members(long) == [*strict_json.members(short), ("n" * 99, "1")]


def test_values_that_are_no_texts_stay_verbatim() -> None:
    text = ' {"a" : 1.0, "b":{ "c" : [1 ,2] },"d":true,"e":null,"f":"\\u5f20\\n","g":1E400, "a":-0}\r\n'
    assert strict_json.members(text) == [
        ("a", "1.0"),
        ("b", '{ "c" : [1 ,2] }'),
        ("d", "true"),
        ("e", None),
        ("f", "张\n"),
        ("g", "1E400"),
        ("a", "-0"),
    ]
    assert strict_json.members("{}") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{]",
        "[]",
        '"a"',
        "1",
        '{"a"}',
        '{"a":}',
        '{"a":1,}',
        '{"a":1 "b":2}',
        "{a:1}",
        '{"a":1}x',
        "{1:1}",
        '{"a":NaN}',
        '{"a":[Infinity]}',
        '{"a":"\t"}',
        '{"a":"',
        "\ufeff{}",
    ],
)
def test_what_is_not_one_json_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        strict_json.members(text)


# A cost that grows with the square of the size takes these beyond the time limit of a test.


def test_the_cost_of_a_number_grows_with_its_digits_alone() -> None:
    digits = "9" * 10_000_000
    assert strict_json.members(f'{{"a":{digits}}}') == [("a", digits)]
    assert strict_json.parse(digits) == digits


@pytest.mark.parametrize("depth", [1, strict_json.MAX_DEPTH])
def test_nesting_within_the_bound_is_read(depth: int) -> None:
    assert strict_json.parse("[" * depth + "]" * depth) is not None


@pytest.mark.parametrize("depth", [strict_json.MAX_DEPTH + 1, 100_000])
def test_nesting_beyond_the_bound_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="too deep"):
        strict_json.parse('{"a":' * depth + "1" + "}" * depth)


def test_escaped_quotes_do_not_make_the_depth_check_quadratic() -> None:
    hostile = "[" * 101 + '\\"' * 5_000_000
    with pytest.raises(ValueError, match="too deep"):
        strict_json.parse(hostile)
    with pytest.raises(ValueError, match=r"."):
        strict_json.parse("[]" * 101 + '\\"' * 5_000_000)


@given(JSON)
def test_compact_gives_the_same_value_without_spaces(value: object) -> None:
    written = json.dumps(value, indent=1)
    compact = strict_json.compact(strict_json.parse(written))
    assert json.loads(compact) == value
    assert strict_json.compact(strict_json.parse(compact)) == compact


@given(st.text(alphabet='{}[]":,\\ a1u0.-etrunlf'))
def test_members_agrees_with_the_standard_library_on_what_is_an_object(text: str) -> None:
    try:
        expected = json.loads(text, object_pairs_hook=Pairs)
    except ValueError:
        expected = None
    if isinstance(expected, Pairs):
        assert [key for key, _ in strict_json.members(text)] == [key for key, _ in expected.pairs]
    else:
        with pytest.raises(ValueError, match=r"."):
            strict_json.members(text)


@pytest.mark.parametrize("value", ['"x"', "1"])
def test_no_more_members_are_looked_at_than_a_request_may_have(value: str) -> None:
    most = "{" + ",".join([f'"a":{value}'] * MAX_PARAMETERS)
    assert len(strict_json.members(most + "}")) == MAX_PARAMETERS
    with pytest.raises(Malformed):
        strict_json.members(f'{most},"a":{value} and the rest is not looked at')


def test_half_pairs_are_question_marks_as_long_as_they_are_not_too_many() -> None:
    assert strict_json.members('{"a": "\\ud83d \\uD83D"}') == [("a", "? ?")]
    most = strict_json._MAX_SURROGATES  # pyright: ignore[reportPrivateUsage]
    assert strict_json.members('{"a": "' + "\\ud83d" * most + '"}') == [("a", "?" * most)]
    with pytest.raises(ValueError, match="surrogate"):
        strict_json.members('{"a": "' + "\\ud83d" * (most + 1) + '"}')


@given(
    st.lists(
        st.sampled_from(["\\\\", "\\ud83d", "\\uDE00", "\\uD83D\\ude00", "\\ud55c", "ud83d", "\\n", '\\"', "a", "张"])
    )
)
def test_half_pairs_are_what_the_standard_library_and_java_make_of_them(pieces: list[str]) -> None:
    text = '{"a": "' + "".join(pieces) + '"}'
    expected = json.loads(text)["a"].encode("utf-8", "replace").decode()
    assert strict_json.members(text) == strict_json.members(text.encode()) == [("a", expected)]
    assert strict_json.picker(("a",))(text).get("a") == expected


def test_a_picked_member_is_a_text_a_number_or_nothing_and_false_for_any_other() -> None:
    text = (
        '\ufeff{"text": "张\\n", "number": 42, "other": -1.50e3, "null": null, "true": true, "list": [1, 2], "left": 1}'
    )
    keys = ("text", "number", "other", "null", "true", "list", "missing")
    found = strict_json.picker(keys)(text)
    assert [found.get(key) for key in keys] == ["张\n", "42", "-1.50e3", None, False, False, None]
    assert isinstance(found.get("number"), strict_json.Number)
    assert found.get("left") is None


def test_members_that_are_nested_too_deep_are_text_and_the_others_are_values() -> None:
    deep, most = ("[" * depth + "]" * depth for depth in (500, strict_json.MAX_DEPTH))
    given = '"text": "张\\n", "half": "\\ud800", "number": 1.50, "null": null, "list": [{"b": true}], '
    given += f'"most": {most}, "deep": {deep}'
    read = {"text": "张\n", "half": "?", "number": "1.50", "null": None, "list": [{"b": True}], "deep": deep}
    read["most"] = strict_json.parse(most)
    text = f'\ufeff{{{given}, "in": {{{given}}}}}'
    assert strict_json.parse_members(text) == read | {"in": f"{{{given}}}".replace("\\ud800", "?")}
    assert strict_json.parse_members(text, levels=2) == read | {"in": read}
    assert strict_json.parse_members(f'{{"out": {text[1:]}}}', levels=3) == {"out": read | {"in": read}}
