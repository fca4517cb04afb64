"""Parse a CSV file as saved by a spreadsheet: all lines are valid, or none is used."""

from __future__ import annotations

import csv
import io
from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Literal

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Encoding = Literal["utf-8", "gb18030"]
"""GB18030 also reads GBK and GB2312, the default of spreadsheets in Chinese."""

CORP_ID = "corp_id"


class BadFile(ConfigurationError):
    """The file is invalid; ``problems`` has one line per invalid line."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = problems


def read_lines(
    content: bytes, *, ids: Sequence[str], needed: Sequence[str], corp_id: str | None, encoding: Encoding
) -> list[dict[str, str]]:
    """The cells of each line by column, without empty ones; ``corp_id`` is the default for lines without one.

    The first line has the column names. Each line must have a corp, unique ``ids``, and the ``needed`` columns.

    Raises:
        BadFile: the encoding, the columns or some lines are invalid.
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
            problem = None if before == number else f"{last} is also on line {before}"
        if problem is None:
            good.append(found)
        else:
            problems.append(f"line {number}: {problem}")
    if problems:
        raise BadFile(f"{len(problems)} of {len(good) + len(problems)} lines are invalid", problems)
    return good


def _text(content: bytes, encoding: Encoding) -> str:
    # Excel writes a byte order mark before UTF-8; it is no part of the first column's name.
    content = content.removeprefix(BOM_UTF8)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadFile(
            f"line {line} is not {encoding}: save the file as 'CSV UTF-8', or use --encoding gb18030 for GBK"
        ) from error


def _table(text: str) -> Iterator[tuple[int, list[str]]]:
    """The first line number and the cells of each record."""
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
        hint = f" (or set {CORP_ID} for all lines with --corp)" if CORP_ID in missing else ""
        raise BadFile(f"the first line lacks the column {', '.join(missing)}{hint}; it has {', '.join(heads)}")
    if twice := {each for each in heads if each and heads.count(each) > 1}:
        raise BadFile(f"the first line has the column {', '.join(sorted(twice))} twice")
    return heads


def _problem(found: Mapping[str, str], cells: list[str], columns: list[str], needed: Sequence[str]) -> str | None:
    from taskbridge.schemas.events import MAX_NAME_CHARACTERS  # noqa: PLC0415 - the options import this module

    if len(cells) > len(columns) or "" in found:
        return "a cell is outside the columns"
    for column in needed:
        if not found.get(column):
            return f"{column} is missing"
    if "/" in found[CORP_ID]:  # in the record's key, it ends at the first slash
        return f"{CORP_ID} contains a slash"
    for column, cell in found.items():
        if len(cell) > MAX_NAME_CHARACTERS:
            return f"{column} has more than {MAX_NAME_CHARACTERS} characters"
        if not cell.isprintable():
            return f"{column} contains control characters"
    return None
