"""Which values of a form are files: what Yida writes, and what anybody may write in its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskbridge.center.api.form_files import FILES_MAX, FormFile, files_of

ADDRESS = "/ossFileHandle?appType=APP&fileName=APP_x.pdf&instId=&type=download"
FILE = {"downloadUrl": ADDRESS, "name": "x.pdf", "previewUrl": f"{ADDRESS}&process=image", "url": ADDRESS, "ext": "pdf"}


def test_files_are_found_in_fields_and_in_the_lines_of_a_sub_form() -> None:
    lines = [
        {"textField_a": "1", "imageField_b": json.dumps([FILE])},
        {"textField_a": "2", "imageField_b": [{**FILE, "name": "y.png", "size": 7}, FILE]},
    ]
    form = {
        "attachmentField_1": json.dumps([{**FILE, "size": 48_213}, {"name": "z", "url": ADDRESS, "fileSize": "12"}]),
        "tableField_2": json.dumps(lines),
        "textField_3": "x.pdf",
        "empty": None,
    }
    assert files_of(form) == {
        "attachmentField_1": [FormFile("x.pdf", 48_213, ADDRESS), FormFile("z", 12, ADDRESS)],
        "tableField_2/0/imageField_b": [FormFile("x.pdf", None, ADDRESS)],
        "tableField_2/1/imageField_b": [FormFile("y.png", 7, ADDRESS), FormFile("x.pdf", None, ADDRESS)],
    }


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        "[1, 2]",
        '["x.pdf"]',
        "[",
        "[" * 100_000,
        '{"name": "x", "url": "/x"}',
        '[{"name": "x"}]',
        '[{"name": 1, "url": "/x"}]',
        '[{"name": "x", "url": ["/x"]}]',
        '[{"name": "x", "url": ""}]',
        json.dumps([{"name": "x", "url": "/" + "x" * 2_000}]),
        json.dumps([FILE, {"name": "no file"}]),
    ],
)
def test_anything_else_is_no_file(value: str) -> None:
    assert files_of({"attachmentField_1": value}) == {}


@pytest.mark.parametrize("size", [-1, 1 << 60, "1e9", "٣", True, 1.5, None, "9" * 5_000])
def test_what_is_no_size_is_not_shown(size: Any) -> None:
    assert files_of({"a": json.dumps([{**FILE, "size": size}])}) == {"a": [FormFile("x.pdf", None, ADDRESS)]}


def test_a_name_ends_as_it_seems_to() -> None:
    turned = {**FILE, "name": " x\u202efdp.exe\u2066\u200f \n"}
    assert files_of({"a": json.dumps([turned])}) == {"a": [FormFile("xfdp.exe", None, ADDRESS)]}


def test_a_form_is_bounded() -> None:
    many = json.dumps([FILE] * FILES_MAX)
    assert set(files_of({"a": many, "b": many})) == {"a"}
    assert set(files_of({"a": json.dumps([FILE] * (FILES_MAX + 1)), "b": json.dumps([FILE])})) == {"b"}
    [[named]] = files_of({"a": json.dumps([{**FILE, "name": "x" * 9_000}])}).values()
    assert len(named.name) == 255
    # The audit trail separates a place by a space.
    assert files_of({"I-2 b": json.dumps([FILE]), "x" * 600: json.dumps([FILE])}) == {}
