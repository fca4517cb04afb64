"""Tables as CSV for a spreadsheet, which must take no text for a formula. Pure."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

BYTE_ORDER_MARK = "\ufeff"
"""First in a file, so that Excel reads UTF-8."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""With these, also in full width, a spreadsheet would take a text for a formula."""


def csv_lines(rows: Iterable[Iterable[object]]) -> str:
    """The rows, each ended by CRLF. None is an empty cell; a text that could be a formula gets an apostrophe."""
    text = io.StringIO()
    csv.writer(text).writerows([_cell(each) for each in row] for row in rows)
    return text.getvalue()


def csv_headers(name: str) -> dict[str, str]:
    """Of the answer that a browser stores as this file."""
    return {"cache-control": "no-store", "content-disposition": f'attachment; filename="{name}"'}


def csv_documented(description: str, example: str) -> dict[int | str, dict[str, Any]]:
    content = {"text/csv": {"schema": {"type": "string"}, "example": example}}
    return {200: {"description": description, "content": content}}


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
