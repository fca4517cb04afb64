"""Parse CSV files of people and forms, as saved by a spreadsheet: all lines are valid, or none is used."""

from __future__ import annotations

import csv
import io
from codecs import BOM_UTF8
from collections import defaultdict
from typing import TYPE_CHECKING, Literal

from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.events import MAX_NAME_CHARACTERS, Form, PersonRecord, form_key, notification_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Encoding = Literal["utf-8", "gb18030"]
"""GB18030 also reads GBK and GB2312, the default of spreadsheets in Chinese."""

CORP_ID, USER_ID, NAME = "corp_id", "user_id", "name"
FORM_UUID, FORM_TITLE, FIELD_ID, LABEL = "form_uuid", "form_title", "field_id", "label"
_PERSON_COLUMNS = (CORP_ID, USER_ID, NAME, "department", "employee_number")


class BadFile(ConfigurationError):
    """The file is invalid; ``problems`` has one line per invalid line."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = problems


def read_people(
    content: bytes, *, corp_id: str | None = None, encoding: Encoding = "utf-8", complete: bool = True
) -> dict[bytes, PersonRecord]:
    """The people of the file by record key. ``complete``: each must have a name.

    An unknown column is another id of the person, by the column's name.

    Raises BadFile as ``read_lines``.
    """
    needed = (USER_ID, NAME) if complete else (USER_ID,)
    lines = read_lines(content, ids=(USER_ID,), needed=needed, corp_id=corp_id, encoding=encoding)
    return {
        notification_key(found[CORP_ID], found[USER_ID]): PersonRecord(
            user_id=found[USER_ID],
            name=found.get(NAME),
            department=found.get("department"),
            employee_number=found.get("employee_number"),
            # Sorted, so that the order of columns does not change the record's bytes.
            other_ids={column: found[column] for column in sorted(found) if column not in _PERSON_COLUMNS},
        )
        for found in lines
    }


def read_forms(
    content: bytes, *, corp_id: str | None = None, encoding: Encoding = "utf-8", complete: bool = True
) -> dict[bytes, Form]:
    """The forms of the file by record key. ``complete``: each line must have a field and its label.

    Unknown columns are ignored: exports have more.

    Raises BadFile as ``read_lines``; or a form has several titles.
    """
    needed = (FORM_UUID, FIELD_ID, LABEL) if complete else (FORM_UUID,)
    lines = read_lines(content, ids=(FORM_UUID, FIELD_ID), needed=needed, corp_id=corp_id, encoding=encoding)
    by_form: dict[bytes, list[dict[str, str]]] = defaultdict(list)
    for found in lines:
        by_form[form_key(found[CORP_ID], found[FORM_UUID])].append(found)
    return {key: _form(fields) for key, fields in by_form.items()}


def _form(fields: list[dict[str, str]]) -> Form:
    form_uuid = fields[0][FORM_UUID]
    titles = {found[FORM_TITLE] for found in fields if FORM_TITLE in found}
    if len(titles) > 1:
        raise BadFile(f"{form_uuid} has several titles: {', '.join(sorted(titles))}")
    # Sorted, so that the order of lines does not change the record's bytes.
    labels = sorted((found[FIELD_ID], found[LABEL]) for found in fields if FIELD_ID in found and LABEL in found)
    return Form(form_uuid, next(iter(titles), None), dict(labels))


def read_lines(
    content: bytes, *, ids: Sequence[str], needed: Sequence[str], corp_id: str | None, encoding: Encoding
) -> list[dict[str, str]]:
    """The cells of each line by column, without empty ones; ``corp_id`` is the default for lines without one.

    The first line has the column names. Each line must have a corp, unique ``ids``, and the ``needed`` columns.

    Raises BadFile if the encoding, the columns or some lines are invalid.
    """
    reader = csv.DictReader(io.StringIO(_text(content, encoding), newline=""), strict=True)
    good: list[dict[str, str]] = []
    problems: list[str] = []
    lines: dict[tuple[str | None, ...], int] = {}
    try:
        columns = reader.fieldnames = [each.strip() for each in reader.fieldnames or ()]
        _check_columns(columns, needed if corp_id is not None else (CORP_ID, *needed))
        for row in reader:
            outside = row.pop(None, None)  # where csv puts cells beyond the columns
            found = {column: cell.strip() for column, cell in row.items() if cell and cell.strip()}
            if not found and not outside:
                continue
            found.setdefault(CORP_ID, corp_id or "")
            problem = "a cell is outside the columns" if outside or "" in found else _problem(found, needed)
            if problem is None:
                before = lines.setdefault(tuple(found.get(each) for each in (CORP_ID, *ids)), reader.line_num)
                last = next(found[each] for each in reversed(ids) if each in found)
                problem = None if before == reader.line_num else f"{last} is also on line {before}"
            if problem is None:
                good.append(found)
            else:
                problems.append(f"line {reader.line_num}: {problem}")
    except csv.Error as error:
        raise BadFile(f"line {reader.reader.line_num} is not CSV: {error}") from error
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


def _check_columns(heads: Sequence[str], needed: Sequence[str]) -> None:
    if missing := [each for each in needed if each not in heads]:
        hint = f" (or set {CORP_ID} for all lines with --corp)" if CORP_ID in missing else ""
        raise BadFile(f"the first line lacks the column {', '.join(missing)}{hint}; it has {', '.join(heads)}")
    if twice := {each for each in heads if each and heads.count(each) > 1}:
        raise BadFile(f"the first line has the column {', '.join(sorted(twice))} twice")


def _problem(found: Mapping[str, str], needed: Sequence[str]) -> str | None:
    for column in (CORP_ID, *needed):
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
