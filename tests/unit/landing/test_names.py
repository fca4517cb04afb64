"""Identifiers from ids and labels that anybody may have chosen."""

from __future__ import annotations

from taskbridge.landing.names import MAX_BYTES, RESERVED, column_names, line_table_name, table_name, view_names
from taskbridge.landing.values import Kind


def test_a_form_is_named_by_the_end_of_its_id() -> None:
    assert table_name("FORM-AB12-cd34", ()) == "f_formab12cd34"
    assert table_name("FORM-" + "X" * 40, ()) == "f_" + "x" * 24
    assert table_name("FORM-1", {"f_form1"}) == "f_form1_2"
    assert table_name("表单", ()) != table_name("表格", ())


def test_a_column_is_named_by_the_id_of_its_field() -> None:
    assert column_names("numberField_A", Kind.NUMBER, ()) == ["numberfield_a"]
    assert column_names("1st", Kind.TEXT, ()) == ["c_1st"]
    assert column_names("dates", Kind.DATE_RANGE, ()) == ["dates__from", "dates__to"]
    assert column_names("who", Kind.PERSON, {"who"}) == ["who_2", "who_2__names"]
    assert column_names("A", Kind.TEXT, {"a", "a_2"}) == ["a_3"]


def test_no_field_takes_a_name_of_ours_or_of_postgresql() -> None:
    for each in RESERVED - {"_modified_at", "_read_at", "_deleted", "_raw"}:
        assert column_names(each.upper(), Kind.TEXT, ()) == [f"{each}_2"]
    assert column_names("_raw", Kind.TEXT, ()) == ["c__raw"]


def test_long_names_are_cut_and_stay_different() -> None:
    first, second = (column_names("x" * 200 + end, Kind.PERSON, ()) for end in "ab")
    assert len({*first, *second}) == 4
    assert all(len(each.encode()) <= MAX_BYTES for each in (*first, *second))
    [line] = [line_table_name("f_" + "x" * 24, "金" * 40, ())]
    assert len(line.encode()) <= MAX_BYTES


def test_a_view_numbers_equal_labels() -> None:
    assert view_names([("金额", ""), ("金额", ""), ("A", ""), ("a", ""), ("instance_id", ""), (" ", "")]) == [
        "金额",
        "金额 (2)",
        "A",
        "a (2)",
        "instance_id (2)",
        "-",
    ]
    assert view_names([("期间", "__from"), ("期间", "__to")]) == ["期间__from", "期间__to"]
    long = view_names([("长" * 100, ""), ("长" * 100, "")])
    assert len({*long}) == 2
    assert all(len(each.encode()) <= MAX_BYTES for each in long)
