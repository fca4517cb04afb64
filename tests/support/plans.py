"""How a database executes the statements of a test."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy.event import listen

if TYPE_CHECKING:
    from taskbridge.runtime.database import Database


class Plans(dict[str, str]):
    """Of each statement that the database executes, its plan."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
        self._column = 3 if database.is_sqlite else 0
        listen(database.engine, "before_cursor_execute", self._read)

    def _read(self, connection: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, many: Any) -> None:
        if re.match("SELECT|UPDATE|DELETE|INSERT|WITH", sql) and "pg_catalog" not in sql:
            cursor = connection.connection.cursor()
            cursor.execute(self._explain + sql, parameters[0] if many else parameters)
            self[sql] = "\n".join(each[self._column] for each in cursor.fetchall())
