"""The tables that every target has, and statements for rows of any table: names may have any characters.

Tables of forms are in ``shapes``. Times are ``timestamptz`` in PostgreSQL, and milliseconds in SQLite.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, cast

from sqlalchemy import inspect

from taskbridge.runtime.follow.tables import EPOCH
from taskbridge.runtime.follow.tables import metadata as positions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from taskbridge.runtime.database import Database

Type = Literal["text", "number", "at", "json", "flag", "int"]
_TYPES: Mapping[Type, tuple[str, str]] = {
    "text": ("text", "TEXT"),
    # SQLite changes no value of a column without a type; as NUMERIC, it would round.
    "number": ("numeric", ""),
    "at": ("timestamptz", "INTEGER"),
    "json": ("jsonb", "TEXT"),
    "flag": ("boolean", "BOOLEAN"),
    "int": ("bigint", "INTEGER"),
}
"""In PostgreSQL and SQLite."""
SCHEMA = "taskbridge"
WRITER = 0x6C616E64
"""PostgreSQL's advisory lock of the process that writes, or changes tables: one at a time, as in SQLite."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SQLITE_INTEGERS = 1 << 63

Columns = dict[str, Type]


def _table(columns: str, *, key: int) -> tuple[Columns, list[str]]:
    """Columns, texts where they name no type, and the key: the first ones."""
    parts = [each.partition(":") for each in columns.split()]
    return {name: cast("Type", kind or "text") for name, _, kind in parts}, [name for name, *_ in parts[:key]]


TABLES: Mapping[str, tuple[Columns, list[str]]] = {
    "forms": _table("corp_id form_uuid app_type label table_name process_code", key=2),
    "form_columns": _table(
        "table_name column_name field_id label type position:int parent_field_id dropped:flag", key=2
    ),
    "instances": _table(
        "instance_id corp_id app_type source title originator_id began_at:at finished_at:at result", key=1
    ),
    "tasks": _table("instance_id task_id assignee_id step_name created_at:at due_at:at status", key=3),
    "decisions": _table("instance_id task_id actor_id outcome remark decided_by decided_at:at step_name", key=2),
    # Forms that the database refused: their records land once it does not.
    "waiting": _table("corp_id form_uuid app_type problem", key=2),
    "people": _table("corp_id user_id name department employee_number _partition:int", key=2),
    # Ours: which record each row is from, definitions of forms, and the tables of their sub-forms.
    "landed": _table("kind instance_id partition:int corp_id form_uuid read_at:int", key=2),
    "definitions": _table("corp_id form_uuid _partition:int definition", key=2),
    "line_tables": _table("table_name form_table field_id", key=1),
}


def quoted(database: Database, name: str) -> str:
    """As an identifier in a statement with parameters, of which PostgreSQL's driver begins each with a percent sign."""
    found = f'"{name.replace(chr(34), chr(34) * 2)}"'
    return found if database.is_sqlite else found.replace("%", "%%")


def type_of(database: Database, kind: Type) -> str:
    return _TYPES[kind][database.is_sqlite]


def create_table(
    database: Database,
    connection: Connection,
    name: str,
    columns: Columns,
    key: Sequence[str],
) -> None:
    listed = [f"{quoted(database, each)} {type_of(database, kind)}" for each, kind in columns.items()]
    listed.append(f"PRIMARY KEY ({', '.join(quoted(database, each) for each in key)})")
    connection.exec_driver_sql(f"CREATE TABLE {quoted(database, name)} ({', '.join(listed)})")


def prepare(database: Database) -> str:
    """Create the schema and the tables that are missing; returns the target's own id.

    Raises:
        DatabaseUnavailable: The database does not answer, or its user may not create them.
    """
    with database.write() as connection:
        database.lock(connection, WRITER)
        if (
            not database.is_sqlite
            and connection.exec_driver_sql(f"SELECT to_regnamespace('{SCHEMA}')").scalar() is None
        ):
            connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
        positions.create_all(connection)
        # Only those that are missing: a user who may create no more tables fills those that are there.
        for name in TABLES.keys() - {*inspect(connection).get_table_names(None if database.is_sqlite else SCHEMA)}:
            create_table(database, connection, name, *TABLES[name])
        found = connection.exec_driver_sql(f"SELECT value FROM about WHERE name = '{EPOCH}'").scalar()
        if found is None:
            found = secrets.token_hex(8)
            Put(database, "about", {"name": "text", "value": "text"}, ["name"]).rows(connection, [(EPOCH, found)])
        return found


class Put:
    """Inserts rows, and replaces those whose key is there."""

    def __init__(self, database: Database, table: str, columns: Columns, key: Sequence[str]) -> None:
        self._sqlite = database.is_sqlite
        kind, self._convert = ("number", _exact) if self._sqlite else ("at", _time)
        self._converted = [at for at, each in enumerate(columns.values()) if each == kind]
        names = {each: quoted(database, each) for each in columns}
        changes = ", ".join(f"{name} = excluded.{name}" for each, name in names.items() if each not in key)
        head = f"INSERT INTO {quoted(database, table)} ({', '.join(names.values())})"
        tail = f"ON CONFLICT ({', '.join(names[each] for each in key)}) DO UPDATE SET {changes}"
        # Numbers and JSON are sent as texts.
        sent = [f"%b::{'text' if kind in ('number', 'json') else _TYPES[kind][0]}[]" for kind in columns.values()]
        cast = ", ".join(f"c{at}::{_TYPES[kind][0]}" for at, kind in enumerate(columns.values()))
        given = f"unnest({', '.join(sent)}) AS given({', '.join(f'c{at}' for at in range(len(columns)))})"
        values = f"VALUES ({', '.join('?' * len(columns))})"
        self._statement = f"{head} {values if self._sqlite else f'SELECT {cast} FROM {given}'} {tail}"

    def rows(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """A key may occur once."""
        if not rows:
            return
        lists = list(map(list, zip(*rows, strict=True)))
        for at in self._converted:
            lists[at] = [None if each is None else self._convert(each) for each in lists[at]]
        # SQLite gets rows, PostgreSQL columns.
        connection.exec_driver_sql(self._statement, list(zip(*lists, strict=True)) if self._sqlite else tuple(lists))


def _time(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _exact(text: str) -> float | str:
    """A number of SQLite, or the text where that would be another one."""
    number = Decimal(text)
    if abs(number) < _SQLITE_INTEGERS and number == number.to_integral_value():
        return int(number)
    found = float(number)
    return found if Decimal(repr(found)) == number else text
