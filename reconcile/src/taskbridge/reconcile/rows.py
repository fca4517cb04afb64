"""What every part of reconcile's database does: create its tables, read rows, and change several as one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator


class Rows:
    tables: ClassVar[str] = ""
    """The statements that create what is missing."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(self.tables)

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Commit all of the block, or nothing of it."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _firsts(self, query: str, given: tuple[object, ...] = ()) -> list[Any]:
        """The first column of all rows."""
        return [row[0] for row in self._database.execute(query, given).fetchall()]

    def _first(self, query: str, given: tuple[object, ...] = ()) -> Any:
        """The first column of the first row; None if there is no row."""
        row = self._database.execute(query, given).fetchone()
        return None if row is None else row[0]
