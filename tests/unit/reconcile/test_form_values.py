"""Which values are published: never one that the administrator leaves out, in any shape."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.reconcile.form_data import FormRules
from taskbridge.reconcile.form_values import Definition, Protection, fields_of, protected
from taskbridge.schemas.events import Form, FormField

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = b"the key of this company"
LABELS = {
    "text_1": "身份证号",
    "number_1": "金额",
    "table_1": "明细",
    "text_9": "电话",
    "number_2": "",
    "other": "其他",
}
FORM = Definition(LABELS)


def hashed(value: str) -> str:
    return hmac.new(KEY, value.encode(), hashlib.sha256).hexdigest()


def published(data: Mapping[str, str | None], *, omit: str = "", hash: str = "") -> dict[str, str | None]:  # noqa: A002
    return protected(data, FORM, Protection(tuple(omit.split()), tuple(hash.split()), KEY)).data


def test_without_patterns_values_are_as_they_came() -> None:
    data = {"text_1": "x", "table_1": '[{ "text_9" : "1" }]', "number_1": None, "text_9": "[{ not JSON"}
    assert published(data) == data


def test_fields_are_left_out_by_id_or_label_with_their_companions() -> None:
    data = {"text_1": "110101", "text_1_id": "110101", "number_1": "5"}
    for pattern in ("text_1", "text_*", "身份证*"):
        assert published(data, omit=pattern) == {"number_1": "5"}


def test_fields_are_hashed_by_a_secret_key_and_empty_ones_stay_empty() -> None:
    data = {"text_1": "王芳", "number_1": None}
    assert published(data, hash="text_1 金额") == {"text_1": hashed("王芳"), "number_1": None}
    assert published(data, omit="text_1", hash="text_1") == {"number_1": None}


def test_fields_of_a_sub_form_are_named_with_it() -> None:
    lines = [{"text_9": "139", "number_2": 7}, {"text_9": None, "number_2": 8}]
    data = {"table_1": json.dumps(lines), "text_9": "stays"}
    for pattern in ("table_1.text_9", "明细.电话", "*.电话"):
        found = published(data, omit=pattern)
        assert json.loads(found["table_1"] or "") == [{"number_2": 7}, {"number_2": 8}]
        assert found["text_9"] == "stays"
    found = published(data, hash="明细.*")
    assert json.loads(found["table_1"] or "") == [
        {"text_9": hashed("139"), "number_2": hashed("7")},
        {"text_9": None, "number_2": hashed("8")},
    ]


ODD = (
    '[{"text_9": "139',
    '{"text_9":"139"}',
    '"[{\\"text_9\\":\\"139\\"}]"',
    '[[{"text_9":"139"}]]',
    '["{\\"text_9\\":\\"139\\"}"]',
    '[{"text_9":"139"},"139"]',
)


@pytest.mark.parametrize("value", ODD)
def test_where_a_rule_may_concern_a_value_of_an_odd_shape_it_is_left_out(value: str) -> None:
    for rule in ("table_1.text_9", "明细.电话", "*.电话", "明?.*", "*_9"):
        found = protected({"table_1": value}, FORM, Protection((rule,)))
        assert (found.data, found.unclear) == ({}, 1)
    for rule in ("text_9", "电话", "table_2.text_9", "明细"[:1]):
        assert published({"table_1": value}, omit=rule) == {"table_1": value}
    assert published({"table_1": value}, hash="*.电话") == {}
    plain = Definition(LABELS, frozenset({"table_1"}))
    assert protected({"table_1": value}, plain, Protection(("*.电话",))).data == {"table_1": value}, "no sub-form"


def test_lines_within_lines_are_left_out_where_a_rule_may_concern_them() -> None:
    for inner in ([{"text_9": "139"}], '[{"text_9":"139"}]'):
        value = json.dumps([{"number_1": 1, "other": inner}])
        found = protected({"table_1": value}, FORM, Protection(("*.电话",)))
        assert (found.data, found.unclear) == ({}, 1)
        assert published({"table_1": value}, omit="*.other") == {"table_1": '[{"number_1":1}]'}
        assert published({"table_1": value}, omit="text_9") == {"table_1": value}
    assert published({"table_1": '[{"other":["a","b"]}]'}, omit="*.电话") == {"table_1": '[{"other":["a","b"]}]'}


def test_a_label_with_brackets_is_its_own_pattern() -> None:
    form = Definition({"text_1": "电话[内部]", "table_1": "明细[1]", "text_9": "[2]"})
    for rule, data in (("电话[[]内部]", {"text_1": "139"}), ("电话[内部]", {"text_1": "139"})):
        assert protected(data, form, Protection((rule,))).data == {}
    found = protected({"table_1": '[{"text_9":"139"}]'}, form, Protection(("明细[1].[2]",)))
    assert found.data == {"table_1": "[{}]"}


def test_empty_lines_texts_and_choices_have_no_odd_shape() -> None:
    assert published({"table_1": '[null, {"text_9":"139"}]'}, omit="*.电话") == {"table_1": "[null,{}]"}
    data = {"table_1": "[]", "text_1": "plain", "number_1": "1.50", "other": '["a","b"]', "text_9": ""}
    assert published(data, omit="*.电话") == data


def test_numbers_of_lines_stay_as_they_are_written() -> None:
    line = '[{"text_9":"139","number_1":12345678901234567.89,"number_2":1.10}]'
    found = published({"table_1": line}, omit="*.电话", hash="*.number_2")
    assert found == {"table_1": f'[{{"number_1":12345678901234567.89,"number_2":"{hashed("1.10")}"}}]'}


def test_fields_of_which_the_definition_has_nothing_are_left_out() -> None:
    data = {"text_1_id": "x", "text_2": "y", "text_2_id": "z", "table_1": '[{"text_9": "1", "text_8": "2"}]'}
    assert fields_of({"tableField_1": data["table_1"]}) == {"tableField_1", "text_9", "text_8"}
    found = protected(data, FORM, Protection(("*.number_1",)))
    assert found.data == {"text_1_id": "x", "table_1": '[{"text_9":"1"}]'}
    assert found.unknown == {"text_2", "text_2_id", "text_8"}
    assert fields_of(data) == {"text_1_id", "text_2", "table_1"}


def test_a_definition_has_fields_without_a_label_and_what_is_no_sub_form() -> None:
    fields = FormField("text_5", "TextField"), FormField("table_1", "TableField")
    found = Definition.of(Form("FORM-1", None, {"table_1": "明细"}, fields))
    assert found == Definition({"text_5": "", "table_1": "明细"}, frozenset({"text_5"}))


def test_the_key_is_not_shown() -> None:
    assert "key" not in repr(Protection(hash=("x",), key=KEY))
    assert "the key" not in repr(FormRules(1, 1, 1, 1, hash_key=KEY))


@given(st.dictionaries(st.sampled_from(["text_1", "table_1", "other"]), st.none() | st.text(max_size=30)))
def test_hostile_texts_raise_nothing_and_reveal_nothing(data: dict[str, str | None]) -> None:
    found = published(data, omit="text_1 *.电话")
    assert "text_1" not in found
    assert found.keys() | {"table_1", "other"} >= data.keys() - {"text_1"}
