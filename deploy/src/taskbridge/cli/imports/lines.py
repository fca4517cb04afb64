"""Reads the lines of a CSV file, as a spreadsheet saves it: all of them are right, or none of them is used."""

from __future__ import annotations

import csv
import io
from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Literal

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Encoding = Literal["utf-8", "gb18030"]
"""GB18030 reads GBK and GB2312 too, which a spreadsheet in Chinese saves where it is not told otherwise."""

CORP_ID = "corp_id"


class BadFile(ConfigurationError):
    """Not a file of what was asked for, or not all of it; ``problems`` has a line for each place."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = problems


def read_lines(
    content: bytes, *, ids: Sequence[str], needed: Sequence[str], corp_id: str | None, encoding: Encoding
) -> list[dict[str, str]]:
    """The cells of each line by column, without the blank ones; ``corp_id`` counts where a line has none.

    The first line names the columns. Each line has a corp, one that no other line is about by ``ids``, and what is
    ``needed``.

    Raises:
        BadFile: the encoding or the columns are not right, or lines are not.
    """
    needed = (CORP_ID, *needed)
    table = _table(_text(content, encoding))
    _, heads = next(table, (1, list[str]()))
    columns = _columns(heads, [each for each in needed if each != CORP_ID or corp_id is None])
    good: list[dict[str, str]] = []
    problems: list[str] = []
    lines: dict[tuple[str | None, ...], int] = {}
    for number, cells in table:
        found = {column: cell for column, cell in zip(columns, cells, strict=False) if cell}
        if not any(cells):
            continue
        found.setdefault(CORP_ID, corp_id or "")
        problem = _problem(found, cells, columns, needed)
        if problem is None:
            before = lines.setdefault(tuple(found.get(each) for each in (CORP_ID, *ids)), number)
            last = next(found[each] for each in reversed(ids) if each in found)
            problem = None if before == number else f"{last} stands on line {before} too"
        if problem is None:
            good.append(found)
        else:
            problems.append(f"line {number}: {problem}")
    if problems:
        raise BadFile(f"{len(problems)} of {len(good) + len(problems)} lines are not right", problems)
    return good


def _text(content: bytes, encoding: Encoding) -> str:
    # Excel marks UTF-8 by three bytes, which are no part of the first column's name.
    content = content.removeprefix(BOM_UTF8)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadFile(
            f"line {line} is not {encoding}: save it as 'CSV UTF-8', or say what it is: --encoding gb18030 for GBK"
        ) from error


def _table(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each record's first line, and its cells."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 1
    try:
        for cells in reader:
            yield number, [cell.strip() for cell in cells]
            number = reader.line_num + 1
    except csv.Error as error:
        raise BadFile(f"line {number} is not CSV: {error}") from error


def _columns(heads: list[str], needed: Sequence[str]) -> list[str]:
    if missing := [each for each in needed if each not in heads]:
        hint = " (--corp names one for all)" if CORP_ID in missing else ""
        raise BadFile(f"the first line names no column {', '.join(missing)}{hint}; it names {', '.join(heads)}")
    if twice := {each for each in heads if each and heads.count(each) > 1}:
        raise BadFile(f"the first line names {', '.join(sorted(twice))} twice")
    return heads


def _problem(found: Mapping[str, str], cells: list[str], columns: list[str], needed: Sequence[str]) -> str | None:
    from taskbridge.schemas.events import MAX_NAME_CHARACTERS  # noqa: PLC0415 - the flags stand on this module

    if len(cells) > len(columns) or "" in found:
        return "a cell has no column"
    for column in needed:
        if not found.get(column):
            return f"no {column}"
    if "/" in found[CORP_ID]:  # it ends at the first slash of the record's key
        return f"{CORP_ID} has a slash"
    for column, cell in found.items():
        if len(cell) > MAX_NAME_CHARACTERS:
            return f"{column} has more than {MAX_NAME_CHARACTERS} characters"
        if not cell.isprintable():
            return f"{column} has control characters"
    return None
