"""Every kind of value in the shapes that the sender gives it, and what does not fit, which is kept as it came."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from taskbridge.landing.values import LINES_MAX, Field, Kind, Place, field_of, guessed, guesses, typed

DAY = 1_719_417_600_000
"""2024-06-27 00:00 in China."""


def read(kind: Kind, text: str, **more: str) -> tuple[Any, ...] | str | None:
    """The values, or the raw text, or None."""
    found = typed({"f": text, **more}, {(None, "f"): Field("f", kind)})
    assert not (found.values and found.raw)
    return found.values.get("f", found.raw.get("f"))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Kind.TEXT, "a\0b", "a\ufffdb"),
        (Kind.TEXT, '[{"any": 1}]', '[{"any": 1}]'),
        (Kind.NUMBER, "1280.50", "1280.50"),
        (Kind.NUMBER, " -1e3 ", "-1e3"),
        (Kind.NUMBER, "12345678901234567890.123", "12345678901234567890.123"),
        (Kind.DATE, str(DAY), DAY),
        (Kind.DATE, "1719417600", DAY),
        (Kind.DATE, "2024-06-27", DAY),
        (Kind.DATE, "2024/06/27 08:00:00", DAY + 8 * 3_600_000),
        (Kind.DATETIME, "2024-06-26T16:00:00Z", DAY),
        (Kind.DATE, "9999-12-31T15:59:59.999+00:00", 253_402_271_999_999),
        (Kind.CHOICE, "选项一", "选项一"),
        (Kind.CHOICE, '["选项一"]', "选项一"),
        (Kind.CHOICES, '["A", "B"]', '["A","B"]'),
        (Kind.CHOICES, "A", '["A"]'),
        (Kind.CHOICES, '["\\ud83d"]', '["\ufffd"]'),
        (Kind.FILES, '[{"name":"a\\u0000b","id":"\\u0000"}]', '[{"name":"a\ufffdb","size":null,"id":"\ufffd"}]'),
        (Kind.ADDRESS, "文一西路969号", "文一西路969号"),
        (
            Kind.ADDRESS,
            '{"address":"969号","regionIds":[1],"regionText":[{"zh_CN":"浙江省","en_US":"Zhejiang"},"杭州市"]}',
            "浙江省 杭州市 969号",
        ),
        (
            Kind.FILES,
            '[{"name":"a.pdf","size":"12","downloadUrl":"/x?fileName=APP_1%2Fa.pdf&sign=SECRET"},{"name":"b","fileId":"7"}]',
            '[{"name":"a.pdf","size":12,"id":"APP_1/a.pdf"},{"name":"b","size":null,"id":"7"}]',
        ),
    ],
)
def test_a_value_that_fits_its_kind(kind: Kind, text: str, value: object) -> None:
    assert read(kind, text) == (value,)


def test_two_columns() -> None:
    assert read(Kind.DATE_RANGE, f'["{DAY}",{DAY + 1}]') == (DAY, DAY + 1)
    assert read(Kind.DATE_RANGE, f"[{DAY},null]") == (DAY, None)
    assert read(Kind.PERSON, '["王芳","李雷"]', f_id='["u-1","u-2"]') == ('["u-1","u-2"]', '["王芳","李雷"]')
    assert read(Kind.PERSON, '["u-1"]') == ('["u-1"]', None), "without ids, the values are ids"
    assert read(Kind.DEPARTMENT, "研发部", f_id="42") == ('["42"]', '["研发部"]')


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.NUMBER, "1,299.00"),
        (Kind.NUMBER, "NaN"),
        (Kind.NUMBER, "1e999"),
        (Kind.NUMBER, "١٢"),
        (Kind.NUMBER, "9" * 400),
        (Kind.DATE, "tomorrow"),
        (Kind.DATE, "-99999999999999"),
        (Kind.DATE, "999999999999999"),
        (Kind.DATE, "0001-01-01"),
        (Kind.DATE_RANGE, "[1]"),
        (Kind.DATE_RANGE, "{}"),
        (Kind.DATE_RANGE, "[[1,2],3]"),
        (Kind.CHOICE, '["A","B"]'),
        (Kind.CHOICES, '["A"'),
        (Kind.CHOICES, "[1.5e400]"),
        (Kind.CHOICES, '[{"a":1}]'),
        (Kind.CHOICES, "[" * 100_000),
        (Kind.CHOICES, "[" + "9" * 5000 + "]"),
        (Kind.PERSON, "[true]"),
        (Kind.ADDRESS, '{"regionText":{}}'),
        (Kind.ADDRESS, '{"other":1}'),
        (Kind.ADDRESS, "{"),
        (Kind.SUBFORM, "no list"),
        (Kind.SUBFORM, "[1]"),
        (Kind.SUBFORM, json.dumps([{}] * (LINES_MAX + 1))),
    ],
)
def test_a_value_that_does_not_fit_is_kept_as_it_came(kind: Kind, text: str) -> None:
    found = read(kind, text)
    assert found == text or (kind is Kind.CHOICES and found == ('["1.5e400"]',))


@pytest.mark.parametrize("text", ['[{"size":1,"downloadUrl":"https://x?sign=SECRET"}]', "https://x?sign=SECRET", "[1]"])
def test_no_address_of_a_file_is_kept(text: str) -> None:
    for each in (text, json.dumps([text]), json.dumps({"file": text})):
        assert "SECRET" not in str(read(Kind.FILES, each))
    if text.startswith("["):
        found = typed(
            {"unknown": text, "t": json.dumps([text, {"rows": json.loads(text)}])},
            {(None, "t"): Field("t", Kind.SUBFORM)},
        )
        assert "SECRET" not in found.raw["unknown"]


@pytest.mark.parametrize("kind", Kind)
def test_nothing_is_no_value(kind: Kind) -> None:
    for text in (
        ("", " ", "[]") if kind not in (Kind.TEXT, Kind.NUMBER, Kind.DATE, Kind.DATETIME, Kind.ADDRESS) else ("", " ")
    ):
        found = typed({"f": text}, {(None, "f"): Field("f", kind)})
        assert not found.values
        if kind is not Kind.DATE_RANGE:
            assert not found.raw


def test_the_lines_of_a_sub_form_have_fields_of_their_own() -> None:
    fields: dict[Place, Field] = {
        (None, "t"): Field("t", Kind.SUBFORM),
        ("t", "n"): Field("n", Kind.NUMBER, "t"),
        (None, "n"): Field("n", Kind.TEXT),
    }
    found = typed({"n": "1", "t": '[{"n":1.50,"who":"?"},{"n":"x"},{}]'}, fields)
    assert found.values == {"n": ("1",)}
    assert [(each.values, each.raw) for each in found.lines["t"]] == [
        ({"n": ("1.50",)}, {"who": "?"}),
        ({}, {"n": "x"}),
        ({}, {}),
    ]


LINE = {"n": "12345678901234567.89"}


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ('[{"n":12345678901234567.89}]', [LINE]),
        ('{"n":12345678901234567.89}', [LINE]),
        ('[null,{"n":12345678901234567.89}]', [{}, LINE]),
        ('["{\\"n\\":12345678901234567.89}"]', [LINE]),
        ('"[{\\"n\\":12345678901234567.89}]"', [LINE]),
        ("null", []),
    ],
)
def test_lines_in_other_shapes(given: str, lines: list[dict[str, str]]) -> None:
    fields: dict[Place, Field] = {(None, "t"): Field("t", Kind.SUBFORM), ("t", "n"): Field("n", Kind.NUMBER, "t")}
    found = typed({"t": given}, fields)
    assert not found.raw
    assert [each.values for each in found.lines["t"]] == [
        {name: (text,) for name, text in line.items()} for line in lines
    ]


def test_values_of_unknown_fields_are_raw_but_not_those_about_a_known_field() -> None:
    data = {"x": "1", "x_id": "2", "numberField_1": "3", "numberField_1_value": "3", "y": "4", "y_id": "5", "z_id": "6"}
    known: dict[Place, Field] = {(None, "y"): Field("y", Kind.TEXT)}
    found = typed(data, known)
    assert found.raw == {"x": "1", "x_id": "2", "numberField_1": "3", "numberField_1_value": "3", "z_id": "6"}
    [guess] = guesses(found)
    found = typed(data, {**known, guess.place: guess})
    assert found.values == {"numberField_1": ("3",), "y": ("4",)}
    assert found.raw == {"x": "1", "x_id": "2", "z_id": "6"}
    assert not typed({"employeeField_1": "", "employeeField_1_id": "[]"}, {}).raw


def test_a_field_may_have_the_name_of_another_ones_ids() -> None:
    fields: dict[Place, Field] = {(None, each): Field(each, Kind.TEXT) for each in ("dept", "dept_id")}
    assert typed({"dept": "研发部", "dept_id": "42"}, fields).values == {
        "dept": ("研发部",),
        "dept_id": ("42",),
    }


def test_an_id_of_the_senders_own_tells_the_kind_of_its_field() -> None:
    assert guessed("numberField_x") == Field("numberField_x", Kind.NUMBER)
    assert guessed("tableField_x", "tableField_y") == Field("tableField_x", Kind.TEXT, "tableField_y")
    assert guessed("serialNumberField_x") == Field("serialNumberField_x", Kind.TEXT)
    assert [guessed(each) for each in ("amount", "numberField_", "strangeField_x", "numberField_x"[:5])] == [None] * 4
    assert field_of("a", "SomethingNew", None).kind is Kind.TEXT


def test_times_are_those_of_the_clock() -> None:
    at = datetime(2024, 6, 26, 16, tzinfo=UTC)
    assert read(Kind.DATE, at.isoformat()) == (round(at.timestamp() * 1000),)
