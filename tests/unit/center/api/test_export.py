"""A list as a file for a spreadsheet: complete, narrowed as on the page, and with nothing in it that runs."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest

from support.center_rows import entry_row
from taskbridge.center.api.spreadsheet import csv_lines
from taskbridge.schemas.events import Person, Status, View

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


def test_times_and_words_are_those_that_the_reader_sees_on_the_page(
    client: TestClient, center: AnsweringCenter
) -> None:
    at, ended = 1_769_846_400_123, 1_782_892_800_000
    center.add(
        entry_row("I-1", view=View.CREATED, entered_at=at, finished_at=ended, status=Status.COMPLETED, result="AGREE"),
        entry_row("I-2", view=View.CREATED, entered_at=1, status=Status.ACTIVE, result="seen"),
    )

    def lines(query: str) -> list[list[str]]:
        answer = client.get(LIST.replace("pending", "created") + query)
        return list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))

    heading, first, second = lines("&language=zh-CN")
    assert heading[5:10] == [
        "到达时间 (Asia/Shanghai)",
        "最后更新 (Asia/Shanghai)",
        "处理结果",
        "结束时间 (Asia/Shanghai)",
        "流程结果",
    ]
    assert (first[1], first[5], first[8:10]) == ("已完成", "2026-01-31 16:00:00", ["2026-07-01 16:00:00", "已同意"])
    assert (second[1], second[8:10]) == ("进行中", ["", "seen"])
    # With daylight saving.
    heading, first, _ = lines("&time_zone=Europe/Berlin")
    assert (heading[5], first[1], first[5]) == ("Since (Europe/Berlin)", "Completed", "2026-01-31 09:00:00")
    assert first[8:10] == ["2026-07-01 10:00:00", "Agreed"]
    for bad in ("Mars/Base", "../passwd", "Asia", ""):
        assert client.get(f"{LIST}&time_zone={bad}").status_code == 400, bad


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])  # noqa: RUF001
def test_no_cell_begins_as_a_formula(begin: str) -> None:
    assert next(csv.reader(io.StringIO(csv_lines([[f"{begin}1", None, "a=1"]])))) == [f"'{begin}1", "", "a=1"]
