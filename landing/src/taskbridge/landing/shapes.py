"""The tables of forms: created and widened as fields appear, described in ``form_columns``, shown by views.

A column stays for ever. A field whose kind changes gets another column, and the old one is marked as dropped. All of it
is changed in the transaction that writes the rows, by one process at a time.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from taskbridge.landing.names import column_names, ends_of, line_table_name, table_name, view_names
from taskbridge.landing.tables import SCHEMA, TABLES, Columns, Put, Type, create_table, quoted, type_of
from taskbridge.landing.values import Field, Kind, Place, fields_of, guessed, plain
from taskbridge.schemas.events import Form

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

    from taskbridge.landing.values import Values
    from taskbridge.runtime.database import Database

COLUMNS_MAX, LINE_TABLES_MAX = 1_000, 200
"""Columns of fields in a table, and sub-forms of a form. PostgreSQL has 1,600 columns at most. Further ones are raw."""
_REVISION = "shapes"
"""In ``about``: changed with every change of a table, so that another process reads all of them again."""
_FORM: Columns = {"instance_id": "text", "corp_id": "text", "app_type": "text"}
_LINE: Columns = {"instance_id": "text", "line": "int"}
_LAST: Columns = {"_modified_at": "at", "_read_at": "at", "_deleted": "flag", "_raw": "json"}
_RAW: Columns = {"_raw": "json"}
_OF_KIND: dict[Kind, Type] = {
    Kind.NUMBER: "number",
    Kind.DATE: "at",
    Kind.DATETIME: "at",
    Kind.DATE_RANGE: "at",
    Kind.PERSON: "json",
    Kind.DEPARTMENT: "json",
    Kind.CHOICES: "json",
    Kind.FILES: "json",
}
"""Others are texts."""

FormKey = tuple[str, str]
"""Corp and form."""


class Column(NamedTuple):
    name: str
    field: Field
    label: str | None
    position: int
    dropped: bool


@dataclass(eq=False)
class LandedTable:
    """A form's table, or one of its sub-forms'."""

    name: str
    parent: str | None
    """The sub-form's field."""
    columns: list[Column] = field(default_factory=list[Column])
    in_use: list[Column] = field(default_factory=list[Column])
    """Those of the fields' kinds of today, also of fields that the definition does not have any more."""
    put: Put | None = None
    """Of the columns in use; made when rows are written."""

    @property
    def key(self) -> list[str]:
        return ["instance_id"] if self.parent is None else ["instance_id", "line"]

    @property
    def ours(self) -> tuple[Columns, Columns]:
        """Before and after those of fields."""
        return (_FORM, _LAST) if self.parent is None else (_LINE, _RAW)

    @property
    def has_room(self) -> bool:
        return len(self.columns) + 2 <= COLUMNS_MAX

    def names_of(self, its: Field) -> list[str]:
        return [each.name for each in self.columns if each.field == its]


@dataclass(eq=False)
class LandedForm:
    key: FormKey
    main: LandedTable
    app_type: str
    process_code: str | None
    label: str | None
    lines: dict[str, LandedTable] = field(default_factory=dict[str, LandedTable])
    fields: dict[Place, Field] = field(default_factory=dict[Place, Field])
    """Those that have a column, or a table, of their kind of today."""

    @property
    def tables(self) -> list[LandedTable]:
        return [self.main, *self.lines.values()]

    def guess(self, place: Place) -> Field | None:
        """A field that is not in the definition, by its id, where there is room for it."""
        return guessed(place[1], place[0]) if self._has_room(place[0]) else None

    def _has_room(self, parent: str | None) -> bool:
        table = self.main if parent is None else self.lines.get(parent)
        return len(self.lines) < LINE_TABLES_MAX if table is None else table.has_room


class Shapes:
    """All forms of the target, as they are in the database. ``refresh`` begins each use, in a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._revision: str | None = None
        self.forms: dict[FormKey, LandedForm] = {}
        self._taken: set[str] = set()
        self._put = {name: Put(database, name, *TABLES[name]) for name in ("forms", "form_columns", "line_tables")}
        self._put_about = Put(database, "about", {"name": "text", "value": "text"}, ["name"])

    def refresh(self, connection: Connection) -> None:
        """Read the forms again if any process has changed one, or a change of this one was rolled back."""
        found = self._rows(connection, f"SELECT value FROM about WHERE name = '{_REVISION}'")
        revision = found[0][0] if found else ""
        if revision == self._revision:
            return
        self.forms, by_table = {}, dict[str, tuple[LandedForm, LandedTable]]()
        named = "SELECT form_uuid, app_type, corp_id, label, table_name, process_code FROM forms"
        for form_uuid, app_type, corp_id, label, name, process_code in self._rows(connection, named):
            form = LandedForm((corp_id, form_uuid), LandedTable(name, None), app_type, process_code, label)
            self.forms[form.key] = form
            by_table[name] = form, form.main
        for name, form_table, field_id in self._rows(
            connection, "SELECT table_name, form_table, field_id FROM line_tables"
        ):
            form, _ = by_table[form_table]
            form.lines[field_id] = LandedTable(name, field_id)
            by_table[name] = form, form.lines[field_id]
        columns = (
            "SELECT table_name, column_name, field_id, label, type, position, parent_field_id, dropped"
            " FROM form_columns ORDER BY table_name, position"
        )
        for name, column, field_id, label, kind, position, parent, dropped in self._rows(connection, columns):
            form, table = by_table[name]
            its = Field(field_id, Kind(kind), parent)
            table.columns.append(Column(column, its, label, position, bool(dropped)))
        relations = (
            "SELECT name FROM sqlite_master"
            if self._database.is_sqlite
            else f"SELECT relname FROM pg_class WHERE relnamespace = '{SCHEMA}'::regnamespace"
        )
        self._taken = {each[0] for each in self._rows(connection, relations)}
        for form in self.forms.values():
            self._settle(form, self.definition_of(connection, form.key))
        self._revision = revision

    def definition_of(self, connection: Connection, key: FormKey) -> Form | None:
        mark = "?" if self._database.is_sqlite else "%s"
        query = f"SELECT definition FROM definitions WHERE corp_id = {mark} AND form_uuid = {mark}"
        found = connection.exec_driver_sql(query, key).scalar()
        return None if found is None else msgspec.json.decode(found, type=Form)

    def form_of(self, connection: Connection, key: FormKey, app_type: str, process_code: str | None) -> LandedForm:
        """The form, whose tables are created where they are missing."""
        form = self.forms.get(key)
        if form is None:
            self._renew(connection)
            name = table_name(key[1], self._taken)
            form = self.forms[key] = LandedForm(key, LandedTable(name, None), app_type, process_code, None)
            self._create(connection, form.main)
            self.define(connection, form)
        elif process_code is not None and process_code != form.process_code:
            self._renew(connection)
            form.process_code = process_code
            self._describe(connection, form)
        return form

    def define(self, connection: Connection, form: LandedForm) -> bool:
        """Let the form's tables follow its definition; whether fields got other columns than their values are in."""
        self._renew(connection)
        definition = self.definition_of(connection, form.key)
        before = dict(form.fields)
        fields = {} if definition is None else fields_of(definition)
        self.add(connection, form, fields.values())
        self._settle(form, definition)
        if definition is not None:
            form.label = None if definition.title is None else plain(definition.title)
        self._describe(connection, form)
        return any(
            each != before.get(place) and (place in before or self._is_raw(connection, form, each))
            for place, each in form.fields.items()
        )

    def _is_raw(self, connection: Connection, form: LandedForm, its: Field) -> bool:
        """Whether any row has a raw value of the field."""
        table = form.main if its.parent is None else form.lines[its.parent]
        has_key = "EXISTS (SELECT 1 FROM json_each(_raw) WHERE key = ?)"
        where = has_key if self._database.is_sqlite else "jsonb_exists(_raw, %s)"
        query = f"SELECT 1 FROM {quoted(self._database, table.name)} WHERE {where} LIMIT 1"
        return connection.exec_driver_sql(query, (its.field_id,)).first() is not None

    def add(self, connection: Connection, form: LandedForm, fields: Collection[Field]) -> None:
        """Give these fields columns, or tables, of their kinds."""
        if not fields:
            return
        self._renew(connection)
        changed = list[LandedTable]()
        for each in fields:
            if each.kind is Kind.SUBFORM:
                self._line_table(connection, form, each.field_id)
            else:
                table = form.main if each.parent is None else self._line_table(connection, form, each.parent)
                if table is None or not self._add_columns(connection, table, each):
                    continue
                if table not in changed:
                    changed.append(table)
            form.fields[each.place] = each
        if changed:
            self._settle(form, self.definition_of(connection, form.key))
            self._describe(connection, form)

    def _line_table(self, connection: Connection, form: LandedForm, field_id: str) -> LandedTable | None:
        table = form.lines.get(field_id)
        if table is None and len(form.lines) < LINE_TABLES_MAX:
            name = line_table_name(form.main.name, field_id, self._taken)
            table = form.lines[field_id] = LandedTable(name, field_id)
            self._create(connection, table)
            self._put["line_tables"].rows(connection, [(name, form.main.name, field_id)])
            form.fields[None, field_id] = Field(field_id, Kind.SUBFORM)
        return table

    def _create(self, connection: Connection, table: LandedTable) -> None:
        first, last = table.ours
        create_table(self._database, connection, table.name, {**first, **last}, table.key)
        self._taken |= {table.name, f"v_{table.name}"}

    def _add_columns(self, connection: Connection, table: LandedTable, its: Field) -> bool:
        """False if they are there, or there is no room."""
        if table.names_of(its) or not table.has_room:
            return False
        kind = type_of(self._database, _OF_KIND.get(its.kind, "text"))
        for name in column_names(its.field_id, its.kind, {each.name for each in table.columns}):
            alter = f"ALTER TABLE {quoted(self._database, table.name)} ADD COLUMN {quoted(self._database, name)} {kind}"
            connection.exec_driver_sql(alter)
            table.columns.append(Column(name, its, None, len(table.columns) + 1, dropped=False))
        table.put = None
        return True

    def _settle(self, form: LandedForm, definition: Form | None) -> None:
        """Which columns are in use, and their labels: those of the definition, else the latest of each field."""
        defined = {} if definition is None else fields_of(definition)
        labels = {} if definition is None else {plain(each): plain(text) for each, text in definition.labels.items()}
        form.fields = {(None, each): Field(each, Kind.SUBFORM) for each in form.lines}
        for table in form.tables:
            used = {each.field.place: each.field for each in table.columns}
            # The kind of today may be an older one again. It has no column where there was no room.
            used |= {place: its for place, its in defined.items() if place in used}
            form.fields |= {place: its for place, its in used.items() if table.names_of(its)}
            for at, each in enumerate(table.columns):
                place, label = each.field.place, labels.get(each.field.field_id)
                gone = used[place] != each.field or (bool(defined) and place not in defined)
                table.columns[at] = each._replace(label=each.label if label is None else label, dropped=gone)
            table.in_use = [each for each in table.columns if used[each.field.place] == each.field]
            table.put = None

    def _describe(self, connection: Connection, form: LandedForm) -> None:
        """Write the rows and views about a form."""
        corp_id, form_uuid = form.key
        row = (corp_id, form_uuid, form.app_type, form.label, form.main.name, form.process_code)
        self._put["forms"].rows(connection, [row])
        for table in form.tables:
            rows = [
                (table.name, each.name, each.field.field_id, each.label, each.field.kind.value, each.position,
                 table.parent, each.dropped)
                for each in table.columns
            ]  # fmt: skip
            self._put["form_columns"].rows(connection, rows)
            self._show(connection, table)

    def _show(self, connection: Connection, table: LandedTable) -> None:
        """The view with labels as names. In PostgreSQL it is never dropped: people have grants on it."""
        first, last = table.ours
        ours = [*first, *last]
        ends: dict[Field, int] = {}
        named = list[tuple[Column, str]]()
        for each in table.columns:
            at = ends[each.field] = ends.get(each.field, -1) + 1
            named.append((each, ends_of(each.field.kind)[at]))
        # Those in use have the first choice of equal names.
        order = sorted(named, key=lambda each: (each[0].dropped, each[0].position))
        names = view_names((each.label or each.field.field_id, end) for each, end in order)
        by_column = {each.name: name for (each, _), name in zip(order, names, strict=True)}
        shown = [(each, each) for each in ours] + [(each.name, by_column[each.name]) for each in table.columns]
        quote, view = self._database, quoted(self._database, f"v_{table.name}")
        selected = ", ".join(f"{quoted(quote, column)} AS {quoted(quote, name)}" for column, name in shown)
        replace = ""
        if self._database.is_sqlite:
            connection.exec_driver_sql(f"DROP VIEW IF EXISTS {view}")
        else:
            replace = "OR REPLACE "
            self._rename(connection, table, view, [name for _, name in shown])
        select = f"SELECT {selected} FROM {quoted(quote, table.name)}"
        connection.exec_driver_sql(f"CREATE {replace}VIEW {view} AS {select}")

    def _rename(self, connection: Connection, table: LandedTable, view: str, names: Sequence[str]) -> None:
        columns = (
            "SELECT attname FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped AND attrelid = "
            f"(SELECT oid FROM pg_class WHERE relnamespace = '{SCHEMA}'::regnamespace AND relname = %s) ORDER BY attnum"
        )
        there = [each[0] for each in connection.exec_driver_sql(columns, (f"v_{table.name}",))]
        changed = [(at, old) for at, old in enumerate(there[: len(names)]) if old != names[at]]
        # By other names first: two labels may change places.
        steps = [(old, f"_{at}") for at, old in changed] + [(f"_{at}", names[at]) for at, _ in changed]
        for old, new in steps:
            old_name, new_name = quoted(self._database, old), quoted(self._database, new)
            connection.exec_driver_sql(f"ALTER TABLE {view} RENAME COLUMN {old_name} TO {new_name}")

    def _renew(self, connection: Connection) -> None:
        """Before each change, also of this object: after a rollback, the database has another revision than this."""
        self._revision = secrets.token_hex(8)
        self._put_about.rows(connection, [(_REVISION, self._revision)])

    def _rows(self, connection: Connection, query: str) -> Sequence[Any]:
        return connection.exec_driver_sql(query).all()


def put_of(database: Database, table: LandedTable) -> Put:
    """The statement for rows of this table: our columns, and those in use between them."""
    if table.put is None:
        first, last = table.ours
        used: Columns = {each.name: _OF_KIND.get(each.field.kind, "text") for each in table.in_use}
        table.put = Put(database, table.name, {**first, **used, **last}, table.key)
    return table.put


def row_of(table: LandedTable, values: dict[str, Values]) -> list[object]:
    """The values of the columns in use, in their order."""
    ends: dict[str, int] = {}
    row: list[object] = []
    for each in table.in_use:
        its = each.field.field_id
        end = ends[its] = ends.get(its, -1) + 1
        row.append(values[its][end] if its in values else None)
    return row
