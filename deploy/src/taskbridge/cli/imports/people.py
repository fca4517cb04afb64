"""People of a CSV file."""

from __future__ import annotations

from taskbridge.cli.imports.lines import CORP_ID, Encoding, read_lines
from taskbridge.schemas.events import PersonRecord, notification_key

USER_ID, NAME = "user_id", "name"
_OWN = (CORP_ID, USER_ID, NAME, "department", "employee_number")


def read_people(
    content: bytes, *, corp_id: str | None = None, encoding: Encoding = "utf-8", named: bool = True
) -> dict[bytes, PersonRecord]:
    """The people of the file by their records' keys. ``named``: each must have a name.

    A column that is not ours is another id of the person, by its name.

    Raises:
        BadFile: as ``read_lines`` does.
    """
    needed = (USER_ID, NAME) if named else (USER_ID,)
    lines = read_lines(content, ids=(USER_ID,), needed=needed, corp_id=corp_id, encoding=encoding)
    return {
        notification_key(found[CORP_ID], found[USER_ID]): PersonRecord(
            user_id=found[USER_ID],
            name=found.get(NAME),
            department=found.get("department"),
            employee_number=found.get("employee_number"),
            # In one order, so that the same people in a file of other columns' order are the same bytes.
            other_ids={column: found[column] for column in sorted(found) if column not in _OWN},
        )
        for found in lines
    }
