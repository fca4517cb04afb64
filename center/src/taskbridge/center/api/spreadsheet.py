"""Tables as CSV for a spreadsheet, which must take no text for a formula. Pure."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from zoneinfo import ZoneInfo

    from taskbridge.center.api.models import ItemOut

BYTE_ORDER_MARK = "\ufeff"
"""First in a file, so that Excel reads UTF-8."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""With these, also in full width, a spreadsheet would take a text for a formula."""
_Words = dict[str, tuple[str | None, str | None]]
"""By the API's word in lower case, in English and in Chinese."""
_COLUMNS = {
    "title": ("Title", "标题"),
    "status": ("Status", "状态"),
    "process_name": ("Process", "流程"),
    "originator": ("Originator", "发起人"),
    "originator_id": ("Originator ID", "发起人 ID"),
    "created_at": ("Since", "到达时间"),
    "updated_at": ("Last change", "最后更新"),
    "outcome": ("Decision", "处理结果"),
    "finished_at": ("Finished", "结束时间"),
    "result": ("Result", "流程结果"),
    "url": ("Approval page", "审批链接"),
    "instance_id": ("Instance ID", "实例 ID"),
    "task_id": ("Task ID", "任务 ID"),
    "app_type": ("App", "应用"),
    "source": ("System", "来源系统"),
}
"""Of an exported list, in English and in Chinese."""
_TIMES: tuple[Literal["created_at", "updated_at", "finished_at"], ...] = "created_at", "updated_at", "finished_at"
_TIME = "%Y-%m-%d %H:%M:%S"
"""A spreadsheet takes it for a time."""
STATUSES: _Words = {
    "pending": ("Pending", "待处理"),
    "completed": ("Completed", "已完成"),
    "cancelled": ("Withdrawn", "已撤销"),
    "active": ("Running", "进行中"),
    "unknown": ("Unknown", "未知"),
}
DECISIONS: _Words = {
    "agree": ("Agreed", "已同意"),
    "disagree": ("Refused", "已拒绝"),
    "refuse": ("Refused", "已拒绝"),
    "forward": ("Forwarded", "已转交"),
    "revoked": ("Withdrawn", "已撤回"),
    "terminated": ("Withdrawn", "已撤回"),
}
"""As the pages say them; another word is the sender's own, and shown as it is."""


def csv_lines(rows: Iterable[Iterable[object]]) -> str:
    """The rows, each ended by CRLF. None is an empty cell; a text that could be a formula gets an apostrophe."""
    text = io.StringIO()
    csv.writer(text).writerows([_cell(each) for each in row] for row in rows)
    return text.getvalue()


def headings(language: str, zone: ZoneInfo) -> list[str]:
    """The first line of an exported list. Times are in this zone, which their columns name."""
    names = {name: both[language == "zh-CN"] for name, both in _COLUMNS.items()}
    return [f"{text} ({zone.key})" if name in _TIMES else text for name, text in names.items()]


def items_shown(items: Iterable[ItemOut], language: str, zone: ZoneInfo) -> Iterable[list[Any]]:
    """Entries of a list as its further lines, in the words and times of the page."""

    def said(words: _Words, word: str | None) -> str | None:
        return words.get((word or "").casefold(), (word, word))[language == "zh-CN"]

    for item in items:
        originator = item["originator"] or {"name": None, "user_id": None}
        times = {name: _local(item[name], zone) for name in _TIMES}
        shown: dict[str, Any] = {**item, **times}
        shown |= {"originator": originator["name"], "originator_id": originator["user_id"]}
        shown["status"] = said(STATUSES, item["status"])
        shown |= {"outcome": said(DECISIONS, item["outcome"]), "result": said(DECISIONS, item["result"])}
        yield [shown[name] for name in _COLUMNS]


def _local(moment: str | None, zone: ZoneInfo) -> str | None:
    return None if moment is None else datetime.fromisoformat(moment).astimezone(zone).strftime(_TIME)


def csv_headers(name: str) -> dict[str, str]:
    """Of the answer that a browser stores as this file."""
    return {"cache-control": "no-store", "content-disposition": f'attachment; filename="{name}"'}


def csv_documented(description: str, example: str) -> dict[int | str, dict[str, Any]]:
    content = {"text/csv": {"schema": {"type": "string"}, "example": example}}
    return {200: {"description": description, "content": content}}


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
