"""Reads people from a CSV file, as a spreadsheet saves it: all of it is right, or nothing of it is used."""

from __future__ import annotations

import csv
import io
from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Literal, NamedTuple

from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.events import MAX_PERSON_CHARACTERS, PersonRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Encoding = Literal["utf-8", "gb18030"]
"""GB18030 reads GBK and GB2312 too, which a spreadsheet in Chinese saves where it is not told otherwise."""

CORP_ID, USER_ID, NAME = "corp_id", "user_id", "name"
_OWN = (CORP_ID, USER_ID, NAME, "department", "employee_number")


class Row(NamedTuple):
    """One person of a file."""

    corp_id: str
    person: PersonRecord


class BadPeopleFile(ConfigurationError):
    """Not a file of people, or not all of it; ``problems`` has a line for each place."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = problems


def read_people(
    content: bytes, *, corp_id: str | None = None, encoding: Encoding = "utf-8", named: bool = True
) -> list[Row]:
    """The people of the file in its order. ``corp_id`` counts where a line has none; ``named``: each must have a name.

    The first line names the columns; one that is not ours is another id of the person, by its name.

    Raises:
        BadPeopleFile: the encoding or the columns are not right, or lines are not.
    """
    table = _table(_text(content, encoding))
    _, heads = next(table, (1, list[str]()))
    columns = _columns(heads, named=named, has_corp=corp_id is not None)
    rows: list[Row] = []
    problems: list[str] = []
    lines: dict[tuple[str, str], int] = {}
    for number, cells in table:
        found = {column: cell for column, cell in zip(columns, cells, strict=False) if cell}
        if not any(cells):
            continue
        found.setdefault(CORP_ID, corp_id or "")
        problem = _problem(found, cells, columns, named=named)
        if problem is None:
            before = lines.setdefault((found[CORP_ID], found[USER_ID]), number)
            problem = None if before == number else f"{found[USER_ID]} stands on line {before} too"
        if problem is None:
            rows.append(_row(found))
        else:
            problems.append(f"line {number}: {problem}")
    if problems:
        raise BadPeopleFile(f"{len(problems)} of {len(rows) + len(problems)} lines are not right", problems)
    return rows


def _text(content: bytes, encoding: Encoding) -> str:
    # Excel marks UTF-8 by three bytes, which are no part of the first column's name.
    content = content.removeprefix(BOM_UTF8)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadPeopleFile(
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
        raise BadPeopleFile(f"line {number} is not CSV: {error}") from error


def _columns(heads: list[str], *, named: bool, has_corp: bool) -> list[str]:
    needed = [*([] if has_corp else [CORP_ID]), USER_ID, *([NAME] if named else [])]
    if missing := [each for each in needed if each not in heads]:
        hint = " (--corp names one for all)" if CORP_ID in missing else ""
        raise BadPeopleFile(f"the first line names no column {', '.join(missing)}{hint}; it names {', '.join(heads)}")
    if twice := {each for each in heads if each and heads.count(each) > 1}:
        raise BadPeopleFile(f"the first line names {', '.join(sorted(twice))} twice")
    return heads


def _problem(found: Mapping[str, str], cells: list[str], columns: list[str], *, named: bool) -> str | None:
    if len(cells) > len(columns) or "" in found:
        return "a cell has no column"
    for column in (CORP_ID, USER_ID, *([NAME] if named else [])):
        if not found.get(column):
            return f"no {column}"
    if "/" in found[CORP_ID]:  # it ends at the first slash of the record's key
        return f"{CORP_ID} has a slash"
    for column, cell in found.items():
        if len(cell) > MAX_PERSON_CHARACTERS:
            return f"{column} has more than {MAX_PERSON_CHARACTERS} characters"
        if not cell.isprintable():
            return f"{column} has control characters"
    return None


def _row(found: Mapping[str, str]) -> Row:
    person = PersonRecord(
        user_id=found[USER_ID],
        name=found.get(NAME),
        department=found.get("department"),
        employee_number=found.get("employee_number"),
        # In one order, so that the same people in a file of other columns' order are the same bytes.
        other_ids={column: found[column] for column in sorted(found) if column not in _OWN},
    )
    return Row(found[CORP_ID], person)
