"""A list as a file for a spreadsheet: complete, narrowed as on the page, and with nothing in it that runs."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest

from support.center_rows import entry_row
from taskbridge.center.api.spreadsheet import csv_lines
from taskbridge.schemas.events import Person, View

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from support.center_rows import AnsweringCenter

LIST = "/v1/corps/corp/users/ann/tasks.csv?view=pending"


def read(client: TestClient, query: str = "") -> list[dict[str, str]]:
    answer = client.get(LIST + query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"] == 'attachment; filename="tasks-pending.csv"'
    assert answer.content.startswith(b"\xef\xbb\xbf"), "or Excel reads no Chinese"
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))


def test_every_entry_of_the_view_is_exported_in_its_order(client: TestClient, center: AnsweringCenter) -> None:
    rows = (entry_row(f"I-{number:03}", title=f"请假 {number}", entered_at=number) for number in range(450))
    center.add(*rows, entry_row("other", user="bob"), entry_row("handled", view=View.HANDLED))
    found = read(client)
    assert [each["Title"] for each in found] == [f"请假 {number}" for number in reversed(range(450))]
    assert found[0]["Since"] == "1970-01-01T00:00:00.449Z"
    assert [each["标题"] for each in read(client, "&q=请假%2044&language=zh-CN")] == [
        *(f"请假 {number}" for number in range(449, 439, -1)),
        "请假 44",
    ]
    assert read(client, "&app_type=none") == []
    assert client.get(LIST.replace("pending", "all")).status_code == 400


def test_an_unknown_originator_and_a_title_that_is_a_formula(client: TestClient, center: AnsweringCenter) -> None:
    title = '=HYPERLINK("https://evil.example";"a")'
    center.add(
        entry_row("I-1", title=title, entered_at=2, process_name="-1,\n2"),
        entry_row("I-2", title=None, originator=Person("+bob", None), entered_at=1),
        entry_row("I-3", originator=None, entered_at=0),
    )
    found = read(client)
    assert [(each["Title"], each["Process"]) for each in found[:2]] == [(f"'{title}", "'-1,\n2"), ("", "")]
    assert [(each["Originator"], each["Originator ID"]) for each in found] == [("Ann", "ann"), ("", "'+bob"), ("", "")]


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])  # noqa: RUF001
def test_no_cell_begins_as_a_formula(begin: str) -> None:
    assert next(csv.reader(io.StringIO(csv_lines([[f"{begin}1", None, "a=1"]])))) == [f"'{begin}1", "", "a=1"]
