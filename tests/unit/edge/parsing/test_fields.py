"""One loosely typed value becomes what an event may hold, or is refused where it would name a person or a thing."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.edge.errors import Malformed
from taskbridge.edge.parsing import fields
from taskbridge.edge.parsing.strict_json import Number, parse

MOMENT = 1693462062502  # 2023-08-31 14:07:42.502 in Shanghai


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("1693462062502", MOMENT),
        (Number("1693462062502"), MOMENT),
        (" 1693462062 ", 1693462062000),
        ("2023-08-31 14:07:42", 1693462062000),
        ("2023/08/31 14:07:42", 1693462062000),
        ("2023/8/31 14:07", 1693462020000),
        ("20230831140742", 1693462062000),
        ("Thu Aug 31 14:07:42 CST 2023", 1693462062000),
        ("Thu Aug 31 06:07:42 UTC 2023", 1693462062000),
        ("Thu Aug 31 14:07:42 GMT+08:00 2023", 1693462062000),
        ("1693462062502.0", MOMENT),
        ("1.693462062502E12", MOMENT),
        ("1693462062.502", MOMENT),
        ("2023-08-31T14:07:42.502", MOMENT),
        ("2023-08-31T06:07:42.502Z", MOMENT),
        ("2023-08-31T06:07:42.502+00:00", MOMENT),
        ("2023-08-31T01:07:42.502-05:00", MOMENT),
        ("2023-08-31", 1693411200000),
        # China had summer time in 1990; the wire is in fixed UTC+8 all the same.
        ("1990-07-01 08:00:00", 646790400000),
        ("9999999999999", 9999999999999),
        ("1000000000", 10**12),
        ("9999999999.9", 9999999999900),
        ("1000000000000.0", 10**12),
        ("1970-01-01T00:00:00.001Z", 1),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
    ],
)
def test_a_moment_is_read_in_every_known_form(written: str, ms: int) -> None:
    assert fields.moment(written) == ms


@pytest.mark.parametrize(
    "written",
    [
        None,
        "",
        "now",
        "0",
        "0000000000000",
        "-1693462062502",
        "169346206250",
        "16934620625021",
        "1969-12-31T00:00:00Z",
        "9999-12-31T23:00:00-01:00",
        "10000000000",
        "10000000000000.0",
        "0001-01-01T00:00:00",
        "2023-13-01 00:00:00",
        "1693462062502.0.1",
        "20231331140742",
        "2023/13/31 14:07:42",
        "Thu Aug 31 14:07:42 XYZ 2023",
        "Thu Bug 31 14:07:42 CST 2023",
        "1e99",
        [1],
        {},
        True,
        "\uff11" * 13,
        "\ud800",
    ],
)
def test_what_names_no_moment_is_none(written: Any) -> None:
    assert fields.moment(written) is None


@given(st.text())
def test_any_text_is_a_moment_that_can_be_stored_or_none(written: str) -> None:
    found = fields.moment(written)
    assert found is None or 0 < found <= 253_402_300_799_999


@pytest.mark.parametrize("value", ["x", "x" * 128, "x" * 127 + "\u200b", "张红", Number("42"), " a ", "FINST-1/2?#"])
def test_an_id_is_not_changed(value: str) -> None:
    found = fields.required_id(value, "taskId")
    assert found == value
    assert type(found) is str


@pytest.mark.parametrize("value", [None, "", " ", "\t\n"])
def test_a_blank_id_is_none_or_malformed(value: str | None) -> None:
    assert fields.optional_id(value, "taskId") is None
    with pytest.raises(Malformed) as caught:
        fields.required_id(value, "taskId")
    assert caught.value.reason == "no-taskId"


@pytest.mark.parametrize("value", ["x" * 129, "a\x00", "a\x7f", "a\x85", "\ud800", True, 1, [], {}, ["a"]])
def test_a_wrong_id_is_malformed_even_where_none_is_needed(value: Any) -> None:
    with pytest.raises(Malformed) as caught:
        fields.optional_id(value, "taskId")
    assert caught.value.reason == "bad-taskId"


def people(values: list[Any]) -> tuple[tuple[str, ...], bool]:
    skipped: list[str] = []
    found = fields.read_people(values, "people", ("userId", "id"), skipped.append)
    return found, not skipped


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        ([], ()),
        ([None, "", " , "], ()),
        (["a"], ("a",)),
        (["x-" * 64], ("x-" * 64,)),
        ([" b, a ,b"], ("b", "a")),
        (['["a", 17, null, "b"]'], ("a", "17", "b")),
        ([parse('["a", 17]'), "17,c", "a"], ("a", "17", "c")),
        ([Number("17")], ("17",)),
        ([{"id": "a"}, '[{"userId": "b", "id": "c"}]'], ("a", "b")),
    ],
)
def test_people_are_the_union_in_order(values: list[Any], ids: tuple[str, ...]) -> None:
    assert people(values) == (ids, True)


@pytest.mark.parametrize("value", [True, {"name": "a"}, [["a"]], [{}], '["a"', '[{"id": []}]', "\x00b", "x" * 129])
def test_what_is_no_person_is_left_out_and_the_others_stay(value: Any) -> None:
    assert people([value, "a"]) == (("a",), False)


def test_a_web_address_is_the_first_that_can_be_followed() -> None:
    bad = [None, 1, "", "javascript:alert(1)", "//host/x", "https://", "http://[::1", "ftp://h/", "https://h/a b", "/x"]
    assert fields.web_address(bad) is None
    assert fields.web_address([*bad, " https://h/x?y#z ", "http://later/"]) == "https://h/x?y#z"
    assert fields.web_address(["HTTP://h"]) == "HTTP://h"


def test_any_text_is_accepted() -> None:
    assert fields.text("a") == "a"
    assert fields.text(" ") is None
    assert fields.text(parse('{"zh_CN": "张", "n": 1.0}')) == '{"zh_CN":"张","n":1.0}'
    assert fields.text("cut \ud83d") == "cut ?"


def test_form_values_are_texts_nulls_or_json_text() -> None:
    written = '{"a": "1", "b": null, "c": 1.0, "d": true, "e": [1, {"f": "张\\ud800"}], "g": ""}'
    expected = {"a": "1", "b": None, "c": "1.0", "d": "true", "e": '[1,{"f":"张?"}]', "g": ""}
    skipped: list[str] = []
    for value in (parse(written), written):
        assert fields.read_form({"dataMap": value}.get, "dataMap", skipped.append) == expected
    assert not skipped


@pytest.mark.parametrize("value", [None, "", " ", "x", "null", '""', "[]", [], True])
def test_what_is_no_object_has_no_form_values(value: Any) -> None:
    skipped: list[str] = []
    assert fields.read_form({"dataMap": value}.get, "dataMap", skipped.append) == {}
    assert skipped == ([] if value is None or value in ("", " ") else ["dataMap"])


@given(st.text(st.characters(codec="utf-8") | st.characters(categories=["Cc", "Zs", "Cs", "Cf"]), max_size=130))
def test_an_id_is_any_text_of_its_length_without_control_characters(value: str) -> None:
    refused = len(value) > fields.MAX_ID_CHARACTERS or any(unicodedata.category(each) in ("Cc", "Cs") for each in value)
    if not value.strip():
        assert fields.optional_id(value, "taskId") is None
    elif refused:
        with pytest.raises(Malformed):
            fields.optional_id(value, "taskId")
    else:
        assert fields.optional_id(value, "taskId") == value
