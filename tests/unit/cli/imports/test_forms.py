"""A file of forms is read a line a field; where a line is not right it is named, and nothing is used."""

from __future__ import annotations

import pytest

from taskbridge.cli.imports.forms import read_forms
from taskbridge.cli.imports.lines import BadFile
from taskbridge.schemas.events import Form

HEADS = "corp_id,form_uuid,form_title,field_id,label\n"
LINES = "ding1,F-1,,textField_b,金额\nding1,F-1,合同审批,textField_a,合同方\nding1,F-2,,textField_a,事由\n"
CONTRACT = Form("F-1", "合同审批", {"textField_a": "合同方", "textField_b": "金额"})


def test_lines_of_one_form_are_one_form_in_one_order() -> None:
    forms = read_forms((HEADS + LINES).encode())
    assert forms == {b"ding1/F-1": CONTRACT, b"ding1/F-2": Form("F-2", None, {"textField_a": "事由"})}
    assert list(forms[b"ding1/F-1"].labels) == ["textField_a", "textField_b"]


def test_other_columns_are_not_looked_at_and_a_title_need_not_be_there() -> None:
    content = "form_uuid,field_id,label,类型\nF-1,textField_a,合同方,单行文本\n"
    assert read_forms(content.encode(), corp_id="ding2") == {b"ding2/F-1": Form("F-1", None, {"textField_a": "合同方"})}


def test_forms_that_are_to_be_forgotten_need_no_fields_and_may_have_them() -> None:
    assert list(read_forms(b"corp_id,form_uuid\nding1,F-1\nding1,F-2", labelled=False)) == [b"ding1/F-1", b"ding1/F-2"]
    assert list(read_forms((HEADS + LINES).encode(), labelled=False)) == [b"ding1/F-1", b"ding1/F-2"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("ding1,,,textField_c,A", "form_uuid is missing"),
        ("ding1,F-1,,,A", "field_id is missing"),
        ("ding1,F-1,,textField_c, ", "label is missing"),
        ("ding1,F-1,,textField_a,A", "textField_a is also on line 3"),
        ("ding1,F-1,,textField_c,A\x1b[2J", "label contains control characters"),
    ],
)
def test_a_line_that_is_not_right_is_named(line: str, problem: str) -> None:
    with pytest.raises(BadFile, match="1 of 4 lines are invalid") as caught:
        read_forms(f"{HEADS}{LINES}{line}\n".encode())
    assert caught.value.problems == [f"line 5: {problem}"]


def test_a_form_with_two_titles_is_refused() -> None:
    with pytest.raises(BadFile, match="F-1 has several titles: 合同审批, 采购"):
        read_forms(f"{HEADS}{LINES}ding1,F-1,采购,textField_c,A\n".encode())


def test_a_file_without_labels_is_refused() -> None:
    with pytest.raises(BadFile, match="lacks the column field_id, label"):
        read_forms(b"corp_id,form_uuid\nding1,F-1\n")
