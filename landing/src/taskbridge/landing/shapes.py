"""The tables of forms: created and widened as fields appear, described in ``form_columns``, shown by views.

A column stays for ever. A field whose kind changes gets another column, and the old one is marked as dropped. All of it
is changed in the transaction that writes the rows, by one process at a time.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog
from sqlalchemy.exc import ProgrammingError

from taskbridge.landing.names import column_names, ends_of, line_table_name, table_name, view_names
from taskbridge.landing.tables import SCHEMA, TABLES, Columns, Put, Type, create_table, quoted, type_of
from taskbridge.landing.values import Field, Kind, Place, fields_of, plain, to_json
from taskbridge.schemas.events import Form
from taskbridge.schemas.topics import FORM_DATA

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from taskbridge.landing.values import Values
    from taskbridge.runtime.database import Database

log = structlog.get_logger(__name__)

COLUMNS_MAX, LINE_TABLES_MAX = 400, 200
"""Columns of fields in a table, and sub-forms of a form; values of others are raw.

A row of PostgreSQL is within a page, where each long value leaves 18 bytes.
"""
_REVISION = "shapes"
"""In ``about``: changed with every change of a table, so that another process reads all of them again."""
_FORM: Columns = {"instance_id": "text", "corp_id": "text", "app_type": "text"}
_LINE: Columns = {"instance_id": "text", "line": "int"}
_LAST: Columns = {"_modified_at": "at", "_read_at": "at", "_deleted": "flag", "_raw": "json"}
_RAW: Columns = {"_raw": "json"}
OURS: Columns = {**_FORM, **_LINE, **_LAST}
OF_KIND: dict[Kind, Type] = {
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
    is_shown: bool = True
    """Whether the view may be right: it has been written since a column was added."""

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

    @property
    def view(self) -> str:
        return f"v_{self.name}"


@dataclass(eq=False)
class LandedForm:
    key: FormKey
    main: LandedTable
    app_type: str
    process_code: str | None
    label: str | None
    lines: dict[str, LandedTable] = field(default_factory=dict[str, LandedTable])
    fields: dict[Place, Field] = field(default_factory=dict[Place, Field])
    """Those that have a column, or a table, of their kind of today. Replaced where they change."""
    definition: Form | None = None

    @property
    def tables(self) -> list[LandedTable]:
        return [self.main, *self.lines.values()]

    def may_have(self, its: Field) -> bool:
        """Whether the field has no column, or table, and there is room for one."""
        parent = its.field_id if its.kind is Kind.SUBFORM else its.parent
        table = self.main if parent is None else self.lines.get(parent)
        if table is None:
            return len(self.lines) < LINE_TABLES_MAX
        return its.kind is not Kind.SUBFORM and table.has_room and not table.names_of(its)


class Shapes:
    """All forms of the target, as they are in the database. Changed by what ``lock`` lets in."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._mark = "?" if database.is_sqlite else "%s"
        self._revision: str | None = None
        self.forms: dict[FormKey, LandedForm] = {}
        self.waiting: dict[FormKey, tuple[str, str]] = {}
        """The app of each form that the database refused, and why."""
        self._refused: set[FormKey] = set()
        self._taken: set[str] = set()
        self._there: Mapping[str, set[str]] = {}
        """The columns of tables in the database, in lower case: also those that an administrator added."""
        self._put = {
            name: Put(database, name, *TABLES[name]) for name in ("forms", "form_columns", "line_tables", "waiting")
        }
        self._put_about = Put(database, "about", {"name": "text", "value": "text"}, ["name"])

    @contextmanager
    def used(self, connection: Connection) -> Generator[None]:
        """Each use in a transaction. After an error, what an administrator dropped is looked for."""
        try:
            self._refresh(connection)
            yield
        except Exception:
            self._revision = None
            raise

    @contextmanager
    def apart(self, connection: Connection, key: FormKey, app_type: str) -> Generator[None]:
        """A block that is rolled back alone where the database refuses it: then this form waits, and no other.

        The first time all of the transaction fails, and is repeated with the tables that there are now.
        """
        try:
            with connection.begin_nested():
                yield
            self._refused.discard(key)
        except ProgrammingError as error:
            if key not in self._refused:
                self._refused.add(key)
                raise
            problem = str(error.orig).partition("\n")[0]
            # No trace, which would show the statement: an administrator has to change something.
            log.error("form_waits", form_uuid=key[1], problem=problem)  # noqa: TRY400
            self._put["waiting"].rows(connection, [(*key, app_type, plain(problem))])
            self._renew(connection)
            self._revision = None
            self._refresh(connection)

    def try_again(self, connection: Connection) -> None:
        """Make the tables of forms that wait, and read all values again."""
        where = f"corp_id = {self._mark} AND form_uuid = {self._mark}"
        for key, (app_type, _) in [*self.waiting.items()]:
            self._refused.add(key)
            with self.apart(connection, key, app_type):
                connection.exec_driver_sql(f"DELETE FROM waiting WHERE {where}", key)
                if key in self.forms:
                    self._repair(connection, self.forms[key], self._there)
                form = self.form_of(connection, key, app_type, None)
                self.define(connection, form, self._definition_of(connection, key))
                read_values_again(self._database, connection)
                self.waiting.pop(key, None)

    def _refresh(self, connection: Connection) -> None:
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
        self._revision = revision
        waiting = "SELECT corp_id, form_uuid, app_type, problem FROM waiting"
        self.waiting = {(each[0], each[1]): (each[2], each[3]) for each in self._rows(connection, waiting)}
        relations = (
            "SELECT m.name, c.name FROM sqlite_master AS m"
            " LEFT JOIN pragma_table_info(CASE m.type WHEN 'table' THEN m.name END) AS c"
            if self._database.is_sqlite
            else "SELECT relname, attname FROM pg_class LEFT JOIN pg_attribute"
            " ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped"
            f" WHERE relnamespace = '{SCHEMA}'::regnamespace"
        )
        there = defaultdict[str, set[str]](set)
        for name, column in self._rows(connection, relations):
            there[name].add((column or "").lower())
        self._taken, self._there = {*there}, there
        for form in [*self.forms.values()]:
            form.definition = self._definition_of(connection, form.key)
            self._settle(form)
            if form.key not in self.waiting and any(
                each.view not in there or not there.get(each.name, set()) >= {column.name for column in each.columns}
                for each in form.tables
            ):
                log.warning("dropped_tables_made_again", table=form.main.name)
                with self.apart(connection, form.key, form.app_type):
                    self._repair(connection, form, there)
                if form.key in self.waiting:
                    return  # all were read again

    def _repair(self, connection: Connection, form: LandedForm, there: Mapping[str, set[str]]) -> None:
        """Make what was dropped again, and read all values again."""
        gone = list[Field]()
        for table in form.tables:
            if table.name not in there:
                self._create(connection, table)
            lost = [each for each in table.columns if each.name not in there.get(table.name, ())]
            where = f"table_name = {self._mark} AND column_name = {self._mark}"
            for each in lost:
                connection.exec_driver_sql(f"DELETE FROM form_columns WHERE {where}", (table.name, each.name))
            gone += [each.field for each in lost if each in table.in_use]
            table.columns = [each for each in table.columns if each not in lost]
            table.is_shown = False
        self._change(connection, form, dict.fromkeys(gone))
        read_values_again(self._database, connection)

    def present(self, key: FormKey) -> Iterable[LandedTable]:
        """The form's tables, without those that somebody dropped, and that the database refuses to make again."""
        return [each for each in self.forms[key].tables if each.name in self._taken]

    def _definition_of(self, connection: Connection, key: FormKey) -> Form | None:
        query = f"SELECT definition FROM definitions WHERE corp_id = {self._mark} AND form_uuid = {self._mark}"
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
            self.define(connection, form, self._definition_of(connection, key))
        elif process_code is not None and process_code != form.process_code:
            self._renew(connection)
            form.process_code = process_code
            self._describe(connection, form)
        return form

    def define(self, connection: Connection, form: LandedForm, definition: Form | None) -> bool:
        """Let the form's tables follow its definition; whether fields got other columns than their values are in."""
        before, form.definition = form.fields, definition
        if definition is not None:
            form.label = None if definition.title is None else plain(definition.title)
        self._change(connection, form, {} if definition is None else fields_of(definition).values())
        changed = [each for place, each in form.fields.items() if each != before.get(place)]
        return any(each.place in before for each in changed) or any(
            self._has_raw(connection, table, [each.field_id for each in changed if each.parent == table.parent])
            for table in form.tables
        )

    def _has_raw(self, connection: Connection, table: LandedTable, field_ids: list[str]) -> bool:
        """Whether any row has a raw value of these fields."""
        if not field_ids:
            return False
        is_sqlite = self._database.is_sqlite
        has_key = "EXISTS (SELECT 1 FROM json_each(_raw) WHERE key IN (SELECT value FROM json_each(?)))"
        where = has_key if is_sqlite else "jsonb_exists_any(_raw, %s::text[])"
        query = f"SELECT 1 FROM {quoted(self._database, table.name)} WHERE {where} LIMIT 1"
        return connection.exec_driver_sql(query, (to_json(field_ids) if is_sqlite else field_ids,)).first() is not None

    def add(self, connection: Connection, form: LandedForm, fields: Iterable[Field]) -> bool:
        """Give these fields columns, or tables, where there is room; whether any got one."""
        new = [each for each in fields if form.may_have(each)]
        if new:
            self._change(connection, form, new)
        return bool(new)

    def _change(self, connection: Connection, form: LandedForm, fields: Iterable[Field]) -> None:
        self._renew(connection)
        for each in fields:
            parent = each.field_id if each.kind is Kind.SUBFORM else each.parent
            if form.may_have(each):
                table = form.main if parent is None else self._line_table(connection, form, parent)
                if each.kind is not Kind.SUBFORM:
                    self._add_columns(connection, table, each)
        self._settle(form)
        self._describe(connection, form)

    def _line_table(self, connection: Connection, form: LandedForm, field_id: str) -> LandedTable:
        table = form.lines.get(field_id)
        if table is None:
            name = line_table_name(form.main.name, field_id, self._taken)
            table = form.lines[field_id] = LandedTable(name, field_id)
            self._create(connection, table)
            self._put["line_tables"].rows(connection, [(name, form.main.name, field_id)])
        return table

    def _create(self, connection: Connection, table: LandedTable) -> None:
        first, last = table.ours
        create_table(self._database, connection, table.name, {**first, **last}, table.key)
        self._taken.add(table.name)

    def _lock(self, connection: Connection, table: LandedTable) -> None:
        """The view first and then its table, as those who read it.

        After a second, PostgreSQL looks at one who waits: it ends an automatic vacuum that is in the way, and of two
        that wait for each other the one that it looks at. For further locks this waits long enough to be that one, and
        not so long that a reader who comes later is.
        """
        if table.view in self._taken and not self._database.is_sqlite:
            view = quoted(self._database, table.view)
            connection.exec_driver_sql(f"LOCK TABLE {view} IN ACCESS EXCLUSIVE MODE")
            connection.exec_driver_sql("SET LOCAL lock_timeout = '1500ms'")

    def _add_columns(self, connection: Connection, table: LandedTable, its: Field) -> None:
        self._lock(connection, table)
        kind = type_of(self._database, OF_KIND.get(its.kind, "text"))
        taken = {*self._there.get(table.name, ()), *(each.name for each in table.columns)}
        for name in column_names(its.field_id, its.kind, taken):
            alter = f"ALTER TABLE {quoted(self._database, table.name)} ADD COLUMN {quoted(self._database, name)} {kind}"
            connection.exec_driver_sql(alter)
            table.is_shown = False
            last = table.columns[-1].position if table.columns else 0
            table.columns.append(Column(name, its, None, last + 1, dropped=False))

    def _settle(self, form: LandedForm) -> None:
        """Which columns are in use, and their labels: those of the definition, else the latest of each field."""
        definition = form.definition
        defined = {} if definition is None else fields_of(definition)
        labels = {} if definition is None else {plain(each): plain(text) for each, text in definition.labels.items()}
        fields: dict[Place, Field] = {(None, each): Field(each, Kind.SUBFORM) for each in form.lines}
        for table in form.tables:
            used = {each.field.place: each.field for each in table.columns}
            # The kind of today may be an older one again. It has no column where there was no room.
            used |= {place: its for place, its in defined.items() if place in used}
            fields |= {place: its for place, its in used.items() if table.names_of(its)}
            for at, each in enumerate(table.columns):
                place, label = each.field.place, labels.get(each.field.field_id)
                gone = used[place] != each.field or (bool(defined) and place not in defined)
                table.columns[at] = each._replace(label=each.label if label is None else label, dropped=gone)
            table.in_use = [each for each in table.columns if used[each.field.place] == each.field]
            table.put = None
        form.fields = fields

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
        """The view with labels as names. In PostgreSQL it is never dropped: people have grants on it.

        One with the right names may show something else: what an administrator renamed, or added to the view.
        """
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
        quote, view = self._database, quoted(self._database, table.view)
        selected = ", ".join(f"{quoted(quote, column)} AS {quoted(quote, name)}" for column, name in shown)
        replace = ""
        if self._database.is_sqlite:
            connection.exec_driver_sql(f"DROP VIEW IF EXISTS {view}")
        else:
            replace = "OR REPLACE "
            if self._rename(connection, table, view, [name for _, name in shown]) and table.is_shown:
                return
        select = f"SELECT {selected} FROM {quoted(quote, table.name)}"
        connection.exec_driver_sql(f"CREATE {replace}VIEW {view} AS {select}")
        self._taken.add(table.view)
        table.is_shown = True

    def _rename(self, connection: Connection, table: LandedTable, view: str, names: Sequence[str]) -> bool:
        """Give the columns that the view has these names; whether it had all of them."""
        columns = (
            "SELECT attname FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped AND attrelid = "
            f"(SELECT oid FROM pg_class WHERE relnamespace = '{SCHEMA}'::regnamespace AND relname = %s) ORDER BY attnum"
        )
        there = [each[0] for each in connection.exec_driver_sql(columns, (table.view,))]
        if there == names:
            return True
        self._lock(connection, table)
        changed = [(at, old) for at, old in enumerate(there[: len(names)]) if old != names[at]]
        # By names that nothing has first: two labels may change places.
        steps = [(old, f"{self._revision}_{at}") for at, old in changed]
        for old, new in [*steps, *((between, names[at]) for (at, _), (_, between) in zip(changed, steps, strict=True))]:
            old_name, new_name = quoted(self._database, old), quoted(self._database, new)
            connection.exec_driver_sql(f"ALTER TABLE {view} RENAME COLUMN {old_name} TO {new_name}")
        return False

    def _renew(self, connection: Connection) -> None:
        """Before each change, also of this object: after a rollback, the database has another revision than this."""
        self._revision = secrets.token_hex(8)
        self._put_about.rows(connection, [(_REVISION, self._revision)])

    def _rows(self, connection: Connection, query: str) -> Sequence[Any]:
        return connection.exec_driver_sql(query).all()


def read_values_again(database: Database, connection: Connection) -> None:
    """Where values are in other columns than they should be, or raw."""
    mark = "?" if database.is_sqlite else "%s"
    connection.exec_driver_sql(f"UPDATE positions SET next_offset = 0 WHERE topic = {mark}", (FORM_DATA.name,))


def put_of(database: Database, table: LandedTable) -> Put:
    """The statement for rows of this table: our columns, and those in use between them."""
    if table.put is None:
        first, last = table.ours
        used: Columns = {each.name: OF_KIND.get(each.field.kind, "text") for each in table.in_use}
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
