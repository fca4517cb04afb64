"""Parse a CSV file of people."""

from __future__ import annotations

from taskbridge.cli.imports.lines import CORP_ID, Encoding, read_lines
from taskbridge.schemas.events import PersonRecord, notification_key

USER_ID, NAME = "user_id", "name"
_OWN = (CORP_ID, USER_ID, NAME, "department", "employee_number")


def read_people(
    content: bytes, *, corp_id: str | None = None, encoding: Encoding = "utf-8", named: bool = True
) -> dict[bytes, PersonRecord]:
    """The people of the file by record key. ``named``: each must have a name.

    An unknown column is another id of the person, by the column's name.

    Raises:
        BadFile: as ``read_lines``.
    """
    needed = (USER_ID, NAME) if named else (USER_ID,)
    lines = read_lines(content, ids=(USER_ID,), needed=needed, corp_id=corp_id, encoding=encoding)
    return {
        notification_key(found[CORP_ID], found[USER_ID]): PersonRecord(
            user_id=found[USER_ID],
            name=found.get(NAME),
            department=found.get("department"),
            employee_number=found.get("employee_number"),
            # Sorted, so that the order of columns does not change the record's bytes.
            other_ids={column: found[column] for column in sorted(found) if column not in _OWN},
        )
        for found in lines
    }
