"""From records of topics to rows: forms by their newest values, instances by their states, people and definitions."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import BigInteger, String, TableClause, column, delete, select

from taskbridge.landing.shapes import Shapes, put_of, read_values_again, row_of
from taskbridge.landing.tables import TABLES, WRITER, Put
from taskbridge.landing.values import Field, Place, Typed, guesses, plain, to_json, typed
from taskbridge.runtime.database import clean
from taskbridge.runtime.follow.batch import FollowedTopic, Record, key_of
from taskbridge.schemas.codec import Undecodable, form_codec, form_data_codec, person_codec, task_state_codec
from taskbridge.schemas.events import Lifecycle, Status
from taskbridge.schemas.topics import FORM_DATA, FORMS, PEOPLE, TASK_STATES
from taskbridge.schemas.views import began_at_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from confluent_kafka import Message
    from sqlalchemy import Connection

    from taskbridge.landing.shapes import FormKey, LandedForm
    from taskbridge.runtime.database import Database
    from taskbridge.schemas.events import FormData, PersonRecord, TaskState
    from taskbridge.schemas.registry import Registry

_IDLE_S = 1.0
_INSTANCE = column("instance_id", String)
_LANDED = TableClause(
    "landed",
    _INSTANCE,
    *(column(each, String) for each in ("kind", "corp_id", "form_uuid")),
    *(column(each, BigInteger) for each in ("partition", "read_at")),
)
_FORM, _STATE = "form", "state"
"""Of ``landed``: which record a row is from."""

Unfit = tuple[str, str, int]
"""Table, instance and the number of its values that are raw."""


class Filled:
    """The values of an instance, typed before the transaction that writes them, and again where fields changed."""

    def __init__(self, record: FormData, shapes: Shapes) -> None:
        self.record, self.read_at = record, record.read_at
        self.key = plain(record.corp_id), plain(record.form_uuid)
        self._fields: Mapping[Place, Field] | None = None
        self._typed = Typed({}, {}, {})
        self.by({} if (form := shapes.forms.get(self.key)) is None else form.fields)

    def by(self, fields: Mapping[Place, Field]) -> Typed:
        if self._fields is not fields:
            if self._fields != fields:
                self._typed = typed(self.record.data, fields)
            self._fields = fields
        return self._typed


class _Landed(FollowedTopic):
    """A topic whose keys are instances, with a row in ``landed`` for each."""

    kind: str

    def __init__(self, database: Database, registry: Registry) -> None:
        super().__init__(database, registry)
        self.put = {name: Put(database, name, columns, key) for name, (columns, key) in TABLES.items()}

    def landed(self, connection: Connection, keys: Iterable[str]) -> dict[str, Any]:
        query = select(_LANDED).where(_LANDED.c.kind == self.kind, self.database.among(_INSTANCE))
        return {each.instance_id: each for each in connection.execute(query, self.database.keys(keys))}

    def of_partition(self, connection: Connection, partition: int) -> list[str]:
        query = select(_INSTANCE).where(_LANDED.c.kind == self.kind, _LANDED.c.partition == partition)
        return [*connection.execute(query).scalars()]

    def forget(self, connection: Connection, keys: Iterable[str]) -> None:
        query = delete(_LANDED).where(_LANDED.c.kind == self.kind, self.database.among(_INSTANCE))
        connection.execute(query, self.database.keys(keys))

    def delete_from(self, connection: Connection, table: str, keys: Collection[str]) -> None:
        """Delete the rows of these instances, however many they are."""
        if keys:
            query = delete(TableClause(table)).where(self.database.among(column("instance_id", String)))
            connection.execute(query, self.database.keys(keys))


class Values(_Landed):
    """The values of forms. Of two readings of an instance, the later one wins."""

    topic, make_codec, kind = FORM_DATA, form_data_codec, _FORM

    def __init__(self, database: Database, registry: Registry, shapes: Shapes) -> None:
        super().__init__(database, registry)
        self._shapes = shapes

    def lock(self, connection: Connection, /) -> None:
        self.database.lock(connection, WRITER)

    def read(self, message: Message) -> tuple[str, Filled | None]:
        key, value = key_of(message), message.value()
        record: FormData | None = None if value is None else self.codec.decode(value)
        if record is not None and clean(record.instance_id) != key:
            raise Undecodable("it is about another instance than its key")
        return key, None if record is None else Filled(record, self._shapes)

    def write(self, connection: Connection, records: Sequence[Record]) -> Collection[Unfit]:
        with self._shapes.used(connection):
            return self._write(connection, records)

    def _write(self, connection: Connection, records: Sequence[Record]) -> Collection[Unfit]:
        before = self.landed(connection, {each.key for each in records})
        newest: dict[str, Record] = {}
        read_at = {key: each.read_at for key, each in before.items()}
        for each in records:
            if each.value is None:
                read_at.pop(each.key, None)
            elif each.value.read_at < read_at.get(each.key, each.value.read_at):
                continue
            else:
                read_at[each.key] = each.value.read_at
            newest[each.key] = each
        waiting = self._shapes.waiting
        gone = [
            key
            for key, each in newest.items()
            if key in before and (each.value is None or (each.value.record.deleted and each.value.key in waiting))
        ]
        self._delete(connection, gone, before)
        self.forget(connection, gone)
        by_form: dict[FormKey, dict[str, Record]] = defaultdict(dict)
        for key, each in newest.items():
            if each.value is not None and each.value.key not in waiting:
                by_form[each.value.key][key] = each
        unfit: list[Unfit] = []
        for form_key, its in by_form.items():
            last: FormData = next(reversed(its.values())).value.record
            with self._shapes.apart(connection, form_key, plain(last.app_type)):
                self._clear(connection, its, before)
                form = self._shapes.form_of(connection, form_key, plain(last.app_type), _plain(last.process_code))
                found = self._put(connection, form, [*its.values()])
                landed = [(_FORM, key, each.partition, *form_key, each.value.read_at) for key, each in its.items()]
                self.put["landed"].rows(connection, landed)
                unfit += found
        return unfit

    def purge(self, _now_ms: int, /) -> int:
        """Try the forms again that the database refused."""
        with self.database.write() as connection:
            self.lock(connection)
            with self._shapes.used(connection):
                self._shapes.try_again(connection)
        return 0

    def drop(self, connection: Connection, partition: int, /) -> None:
        with self._shapes.used(connection):
            keys = self.of_partition(connection, partition)
            self._delete(connection, keys, self.landed(connection, keys))
            self.forget(connection, keys)

    def _clear(self, connection: Connection, newest: Mapping[str, Record], before: Mapping[str, Any]) -> None:
        """Delete the rows that are replaced, but those of forms: their former columns stay."""
        known = {key: each.value for key, each in newest.items() if key in before}
        stays = {
            key
            for key, value in known.items()
            if not value.record.deleted and value.key == (before[key].corp_id, before[key].form_uuid)
        }
        self._delete(connection, known.keys() - stays, before)
        self._delete(connection, stays, before, lines_only=True)

    def _delete(
        self, connection: Connection, keys: Iterable[str], landed: Mapping[str, Any], *, lines_only: bool = False
    ) -> None:
        by_form: dict[tuple[str, str], list[str]] = defaultdict(list)
        for each in keys:
            by_form[landed[each].corp_id, landed[each].form_uuid].append(each)
        for key, its in by_form.items():
            for table in self._shapes.present(key):
                if table.parent is not None or not lines_only:
                    self.delete_from(connection, table.name, its)

    def _put(self, connection: Connection, form: LandedForm, records: Sequence[Record]) -> list[Unfit]:
        # Of a sub-form that gets a table, the lines may have fields that get columns.
        while self._shapes.add(connection, form, self._guesses(connection, form, records)):
            pass
        rows: list[tuple[object, ...]] = []
        lines: dict[str, list[tuple[object, ...]]] = defaultdict(list)
        unfit: list[Unfit] = []
        for record in records:
            value, its = record.value.record, record.value.by(form.fields)
            first = record.key, plain(value.corp_id), plain(value.app_type)
            last = value.modified_at, value.read_at, value.deleted, _raw(its)
            rows.append((*first, *row_of(form.main, its.values), *last))
            for name, each in its.lines.items():
                table = form.lines[name]
                lines[name] += [
                    (record.key, number, *row_of(table, line.values), _raw(line)) for number, line in enumerate(each, 1)
                ]
            if count := len(its.raw) + sum(len(line.raw) for each in its.lines.values() for line in each):
                unfit.append((form.main.name, record.key, count))
        put_of(self.database, form.main).rows(connection, rows)
        for name, its_lines in lines.items():
            put_of(self.database, form.lines[name]).rows(connection, its_lines)
        return unfit

    def _guesses(self, connection: Connection, form: LandedForm, records: Sequence[Record]) -> list[Field]:
        """With a statement from time to time: PostgreSQL ends a transaction that is idle for ten seconds."""
        found, at = dict[Field, None](), time.monotonic()
        for each in records:
            found.update(dict.fromkeys(guesses(each.value.by(form.fields))))
            if time.monotonic() - at > _IDLE_S:
                connection.exec_driver_sql("SELECT 1")
                at = time.monotonic()
        return [*found]


def _raw(found: Typed) -> str | None:
    return to_json(found.raw) if found.raw else None


class _Directory(FollowedTopic):
    """A topic whose keys are corp, slash, id, with a table of such a key."""

    table: str

    def __init__(self, database: Database, registry: Registry) -> None:
        super().__init__(database, registry)
        columns, self._key = TABLES[self.table]
        self._put = Put(database, self.table, columns, self._key)
        self.mark = "?" if database.is_sqlite else "%s"

    def read(self, message: Message) -> tuple[str, Any]:
        key, value = key_of(message), message.value()
        corp_id, _, its_id = key.partition("/")
        if not corp_id or not its_id:
            raise Undecodable("its key names no corp and no id in it")
        return key, None if value is None else self.codec.decode(value)

    def write(self, connection: Connection, records: Sequence[Record]) -> Collection[Any]:
        latest = {tuple(each.key.split("/", 1)): each for each in records}
        for key, each in latest.items():
            if each.value is None:
                where = " AND ".join(f"{name} = {self.mark}" for name in self._key)
                connection.exec_driver_sql(f"DELETE FROM {self.table} WHERE {where}", key)
        present = sorted((key, each) for key, each in latest.items() if each.value is not None)
        self._put.rows(connection, [self.row(key, each) for key, each in present])
        return latest

    def row(self, key: tuple[str, ...], record: Record) -> tuple[object, ...]:
        raise NotImplementedError

    def drop(self, connection: Connection, partition: int, /) -> None:
        connection.exec_driver_sql(f"DELETE FROM {self.table} WHERE _partition = {self.mark}", (partition,))


class Definitions(_Directory):
    """What forms have: their tables follow."""

    topic, make_codec, table = FORMS, form_codec, "definitions"

    def __init__(self, database: Database, registry: Registry, shapes: Shapes) -> None:
        super().__init__(database, registry)
        self._shapes = shapes

    def row(self, key: tuple[str, ...], record: Record) -> tuple[object, ...]:
        return (*key, record.partition, plain(msgspec.json.encode(record.value).decode()))

    def lock(self, connection: Connection, /) -> None:
        self.database.lock(connection, WRITER)

    def write(self, connection: Connection, records: Sequence[Record]) -> Collection[Any]:
        with self._shapes.used(connection):
            latest: Any = super().write(connection, records)
            for key, each in latest.items():
                form = self._shapes.forms.get(key)
                if form is None or key in self._shapes.waiting or form.definition == each.value:
                    continue
                with self._shapes.apart(connection, key, form.app_type):
                    if self._shapes.define(connection, form, each.value):
                        read_values_again(self.database, connection)
        return ()


class People(_Directory):
    """Names of people and their departments, for queries that join them."""

    topic, make_codec, table = PEOPLE, person_codec, "people"

    def row(self, key: tuple[str, ...], record: Record) -> tuple[object, ...]:
        person: PersonRecord = record.value
        return (*key, *map(_plain, (person.name, person.department, person.employee_number)), record.partition)

    def write(self, connection: Connection, records: Sequence[Record]) -> Collection[Any]:
        super().write(connection, records)
        return ()


class States(_Landed):
    """Instances, their tasks and decisions."""

    topic, make_codec, kind = TASK_STATES, task_state_codec, _STATE

    def read(self, message: Message) -> tuple[str, TaskState | None]:
        key, value = key_of(message), message.value()
        state: TaskState | None = None if value is None else self.codec.decode(value)
        if state is not None and clean(state.instance_id) != key:
            raise Undecodable("it is about another instance than its key")
        return key, None if state is None or state.lifecycle is Lifecycle.DELETED else state

    def write(self, connection: Connection, records: Sequence[Record]) -> Collection[Any]:
        latest = dict(sorted({each.key: each for each in records}.items()))
        present = {key: each for key, each in latest.items() if each.value is not None}
        gone = [key for key in latest if key not in present]
        for table in ("tasks", "decisions"):
            self.delete_from(connection, table, latest)
        if gone:
            self.delete_from(connection, "instances", gone)
            self.forget(connection, gone)
        instances, tasks, decisions = list[Any](), dict[Any, Any](), dict[Any, Any]()
        for key, each in present.items():
            state: TaskState = each.value
            originator = None if state.originator is None else state.originator.user_id
            its = state.corp_id, state.app_type, state.source, state.title, originator
            instances.append((key, *map(_plain, its), began_at_of(state), state.finished_at, _plain(state.result)))
            for task in state.tasks:
                task_id, step = plain(task.task_id), _plain(task.step_name)
                for assignee in task.assignee_ids or ("",):
                    row = (key, task_id, plain(assignee), step, task.created_at, task.due_at, task.status.value)
                    tasks[row[:3]] = row
                if task.status is Status.COMPLETED:
                    decided = map(_plain, (task.actor_id, task.outcome, task.remark, task.decided_by))
                    decisions[key, task_id] = (key, task_id, *decided, task.decided_at, step)
        self.put["instances"].rows(connection, instances)
        self.put["tasks"].rows(connection, [*tasks.values()])
        self.put["decisions"].rows(connection, [*decisions.values()])
        landed = [(_STATE, key, each.partition, None, None, None) for key, each in present.items()]
        self.put["landed"].rows(connection, landed)
        return ()

    def drop(self, connection: Connection, partition: int, /) -> None:
        keys = self.of_partition(connection, partition)
        for table in ("instances", "tasks", "decisions"):
            self.delete_from(connection, table, keys)
        self.forget(connection, keys)


def _plain(text: str | None) -> str | None:
    return None if text is None else plain(text)
