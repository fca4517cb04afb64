"""Files of people and forms are read as a spreadsheet saves them; invalid lines are named, and then nothing is used."""

from __future__ import annotations

import pytest

from taskbridge.cli.csv_files import BadFile, read_forms, read_people
from taskbridge.schemas.events import MAX_NAME_CHARACTERS, Form, PersonRecord

HEADS = "corp_id,user_id,name,department,employee_number,ldap\n"
WANG = {b"ding1/u1": PersonRecord("u1", "王芳", "采购部", "A1024", {"ldap": "wang.fang"})}
LINE = "ding1,u1,王芳,采购部,A1024,wang.fang\n"


@pytest.mark.parametrize(
    "content",
    [
        (HEADS + LINE).encode(),
        b"\xef\xbb\xbf" + (HEADS + LINE).replace("\n", "\r\n").encode(),
        (HEADS + '"ding1"," u1 ","王芳",采购部,A1024,wang.fang').encode(),
        (HEADS + ",,,,,\n\n" + LINE).encode(),
        b"ldap,name,user_id,department,employee_number,corp_id\n" + "wang.fang,王芳,u1,采购部,A1024,ding1".encode(),
        (HEADS.replace("ldap", "ldap,") + LINE).encode(),
    ],
    ids=["plain", "as Excel saves it", "quoted", "blank lines", "another order", "a column without name or cells"],
)
def test_all_common_csv_variants_are_read(content: bytes) -> None:
    assert read_people(content) == WANG


def test_gbk_is_rejected_as_utf_8_and_read_with_its_encoding() -> None:
    content = (HEADS + LINE).encode("gbk")
    with pytest.raises(BadFile, match=r"line 2 is not utf-8: save the file as 'CSV UTF-8', or .*--encoding gb18030"):
        read_people(content)
    assert read_people(content, encoding="gb18030") == WANG


def test_the_corp_given_by_a_flag_counts_where_a_line_has_none() -> None:
    assert list(read_people(b"corp_id,user_id,name\nding1,u1,A\n,u2,B", corp_id="ding2")) == [b"ding1/u1", b"ding2/u2"]
    assert read_people(b"user_id,name\nu1,A", corp_id="ding2") == {b"ding2/u1": PersonRecord("u1", "A")}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (",u2,B", "corp_id is missing"),
        ("ding1,,B", "user_id is missing"),
        ("ding1,u2, ", "name is missing"),
        ("ding1,u2", "name is missing"),
        ("ding/1,u2,B", "corp_id contains a slash"),
        ("ding1,u1,B", "u1 is also on line 2"),
        ("ding1,u2,B,,,,more", "a cell is outside the columns"),
        ("ding1,u2," + "B" * (MAX_NAME_CHARACTERS + 1), f"name has more than {MAX_NAME_CHARACTERS} characters"),
        ("ding1,u2,B\x1b[2J", "name contains control characters"),
        ('ding1,u2,"B\nC"', "name contains control characters"),
    ],
)
def test_every_invalid_line_is_named(line: str, problem: str) -> None:
    content, breaks = f"{HEADS}{LINE}{line}\nding1,u9,\n", line.count("\n")
    with pytest.raises(BadFile, match="2 of 3 lines are invalid") as caught:
        read_people(content.encode())
    assert caught.value.problems == [f"line {3 + breaks}: {problem}", f"line {4 + breaks}: name is missing"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "lacks the column corp_id, user_id, name"),
        (
            "user_id,name\nu1,A",
            r"lacks the column corp_id \(or set corp_id for all lines with --corp\); it has user_id, name",
        ),
        ("corp_id;user_id;name\n", "lacks the column corp_id, user_id, name"),
        (HEADS.replace("ldap", "name"), "has the column name twice"),
        (HEADS + 'ding1,u1,"A', "line 2 is not CSV"),
    ],
)
def test_an_invalid_file_is_rejected_in_one_line(content: str, problem: str) -> None:
    with pytest.raises(BadFile, match=problem) as caught:
        read_people(content.encode())
    assert "\n" not in str(caught.value)


FORM_HEADS = "corp_id,form_uuid,form_title,field_id,label\n"
FORM_LINES = "ding1,F-1,,textField_b,金额\nding1,F-1,合同审批,textField_a,合同方\nding1,F-2,,textField_a,事由\n"
CONTRACT = Form("F-1", "合同审批", {"textField_a": "合同方", "textField_b": "金额"})


def test_lines_of_one_form_are_one_record_in_stable_order() -> None:
    forms = read_forms((FORM_HEADS + FORM_LINES).encode())
    assert forms == {b"ding1/F-1": CONTRACT, b"ding1/F-2": Form("F-2", None, {"textField_a": "事由"})}
    assert list(forms[b"ding1/F-1"].labels) == ["textField_a", "textField_b"]


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
def test_an_invalid_line_of_forms_is_named(line: str, problem: str) -> None:
    with pytest.raises(BadFile, match="1 of 4 lines are invalid") as caught:
        read_forms(f"{FORM_HEADS}{FORM_LINES}{line}\n".encode())
    assert caught.value.problems == [f"line 5: {problem}"]


def test_a_form_with_two_titles_is_rejected() -> None:
    with pytest.raises(BadFile, match="F-1 has several titles: 合同审批, 采购"):
        read_forms(f"{FORM_HEADS}{FORM_LINES}ding1,F-1,采购,textField_c,A\n".encode())


def test_a_file_without_labels_is_rejected() -> None:
    with pytest.raises(BadFile, match="lacks the column field_id, label"):
        read_forms(b"corp_id,form_uuid\nding1,F-1\n")
