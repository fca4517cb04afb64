"""What has landed, as files of other programs: logs of events for process mining, and tables as Parquet.

Every file is of one state of the database. Rows are streamed.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from taskbridge.landing.shapes import OF_KIND, OURS
from taskbridge.landing.tables import SCHEMA, TABLES, quoted
from taskbridge.landing.values import Kind, to_json
from taskbridge.runtime.database import open_target
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TextIO

    from sqlalchemy import Connection, Row

    from taskbridge.runtime.database import Database

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BEGAN, _DECIDED, _ENDED = "began", "decided", "ended"
"""Activities. That of a decision is its step, where it is known."""
_EVENTS = f"""
SELECT instance_id, corp_id, app_type, source, title, result, task_id, activity, at, user_id, outcome, decided_by
FROM instances JOIN (
    SELECT instance_id AS its, 0 AS place, '' AS task_id, '{_BEGAN}' AS activity, began_at AS at,
        originator_id AS user_id, NULL AS outcome, NULL AS decided_by
    FROM instances
    UNION ALL
    SELECT instance_id, 1, task_id, coalesce(step_name, '{_DECIDED}'), decided_at, actor_id, outcome, decided_by
    FROM decisions
    UNION ALL
    SELECT instance_id, 2, '', '{_ENDED}', finished_at, NULL, result, NULL FROM instances
) AS found ON its = instance_id
WHERE at IS NOT NULL
ORDER BY instance_id, at, place, task_id
"""
_STEPS = f"SELECT DISTINCT coalesce(step_name, '{_DECIDED}') FROM decisions WHERE decided_at IS NOT NULL ORDER BY 1"
_PEOPLE = """
SELECT corp_id, user_id, name, department FROM (
    SELECT corp_id, originator_id AS user_id FROM instances
    UNION SELECT corp_id, actor_id FROM decisions JOIN instances USING (instance_id)
) AS acting LEFT JOIN people USING (corp_id, user_id)
WHERE user_id IS NOT NULL
"""
_OF_INSTANCE, _OF_PERSON = ("corp_id", "app_type", "source", "title", "result"), ("name", "department")
_OF_EVENT = ("outcome", "decided_by")
_DUCKDB = {"number": "DOUBLE", "at": "TIMESTAMPTZ", "flag": "BOOLEAN", "int": "BIGINT"}
"""Others are texts."""
_DUCKDB_LIMITS = {"memory_limit": "256MB", "threads": "1", "preserve_insertion_order": "false"}
_LARGEST_ROW = 1 << 26


def export(url: str | Path, files: Mapping[str, Path]) -> dict[str, int]:
    """Write a file for each of these formats: ``ocel``, ``xes``, ``parquet``; returns how many events or rows it has.

    Raises:
        OperatorError: a file is there already, or cannot be written; or the database has nothing that has landed.
    """
    with closing(open_target(url, schema=SCHEMA)) as database:
        if database.is_sqlite and not Path(str(database.engine.url.database)).exists():
            raise OperatorError(f"{database.engine.url.database}: no such file")
        with database.snapshot() as connection:
            return {name: _written(_WRITERS[name], database, connection, path) for name, path in files.items()}


def _written(write: Writer, database: Database, connection: Connection, path: Path) -> int:
    """Write to a folder next to the path, and move what is complete; what is there is never replaced."""
    try:
        if path.exists():
            raise FileExistsError(17, "the file exists, and is not replaced")
        with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
            made = Path(folder) / "made"
            count = write(database, connection, made)
            if made.is_dir():
                made.rename(path)
            else:
                os.link(made, path)  # unlike a rename, it replaces no file
            return count
    except OSError as error:
        raise OperatorError(f"{path}: {error.strerror}") from error


def _ocel(_database: Database, connection: Connection, path: Path) -> int:
    """OCEL 2.0 in JSON. Objects are instances and people."""
    types = {"instance": _OF_INSTANCE, "person": _OF_PERSON}
    activities = [_BEGAN, *(each[0] for each in connection.exec_driver_sql(_STEPS)), _ENDED]
    head = {
        "objectTypes": [_type(name, attributes) for name, attributes in types.items()],
        "eventTypes": [_type(each, _OF_EVENT) for each in dict.fromkeys(activities)],
    }
    with path.open("w", encoding="utf-8") as out:
        out.write(to_json(head)[:-1])
        _listed(out, "objects", _objects(connection))
        count = _listed(out, "events", map(_event, connection.exec_driver_sql(_EVENTS)))
        out.write("}\n")
    return count


def _type(name: str, attributes: tuple[str, ...]) -> dict[str, Any]:
    return {"name": name, "attributes": [{"name": each, "type": "string"} for each in attributes]}


def _listed(out: TextIO, name: str, items: Iterator[Mapping[str, Any]]) -> int:
    out.write(f',\n"{name}":[')
    count = 0
    for count, each in enumerate(items, 1):
        out.write(f"{',' if count > 1 else ''}\n{to_json(each)}")
    out.write("]")
    return count


def _objects(connection: Connection) -> Iterator[Mapping[str, Any]]:
    def found(its_id: str, kind: str, row: Row[Any], names: tuple[str, ...]) -> Mapping[str, Any]:
        attributes = [{**each, "time": _iso(_EPOCH)} for each in _attributes(row, names)]
        return {"id": its_id, "type": kind, "attributes": attributes}

    for row in connection.exec_driver_sql("SELECT * FROM instances"):
        yield found(row.instance_id, "instance", row, _OF_INSTANCE)
    for row in connection.exec_driver_sql(_PEOPLE):
        yield found(f"{row.corp_id}/{row.user_id}", "person", row, _OF_PERSON)


def _event(row: Row[Any]) -> Mapping[str, Any]:
    related = [{"objectId": row.instance_id, "qualifier": "instance"}]
    if row.user_id is not None:
        related.append({"objectId": f"{row.corp_id}/{row.user_id}", "qualifier": "actor"})
    return {
        "id": f"{row.instance_id}/{row.task_id or row.activity}",
        "type": row.activity,
        "time": _iso(row.at),
        "attributes": _attributes(row, _OF_EVENT),
        "relationships": related,
    }


def _attributes(row: Row[Any], names: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"name": each, "value": value} for each in names if (value := getattr(row, each)) is not None]


def _xes(_database: Database, connection: Connection, path: Path) -> int:
    """XES. A trace is an instance; its events are in the order of their times."""
    count = 0
    with path.open("w", encoding="utf-8") as out:
        out.write('<?xml version="1.0" encoding="UTF-8"?>\n<log xes.version="1.0" xes.features="">\n')
        for name, prefix in (("Concept", "concept"), ("Time", "time"), ("Organizational", "org")):
            where = f"http://www.xes-standard.org/{prefix}.xesext"
            out.write(f'<extension name="{name}" prefix="{prefix}" uri="{where}"/>\n')
        out.write('<classifier name="Activity" keys="concept:name"/>\n')
        for instance_id, rows in itertools.groupby(connection.exec_driver_sql(_EVENTS), lambda row: row.instance_id):
            for number, row in enumerate(rows):
                if number == 0:
                    out.write(f"<trace>\n{_text('concept:name', instance_id)}{_texts(row, _OF_INSTANCE)}\n")
                resource = "" if row.user_id is None else _text("org:resource", row.user_id)
                at = f'<date key="time:timestamp" value="{_iso(row.at)}"/>'
                its = f"{_text('concept:name', row.activity)}{at}{resource}{_texts(row, _OF_EVENT)}"
                out.write(f"<event>{its}</event>\n")
                count += 1
            out.write("</trace>\n")
        out.write("</log>\n")
    return count


def _texts(row: Row[Any], names: tuple[str, ...]) -> str:
    return "".join(_text(each["name"], each["value"]) for each in _attributes(row, names))


def _text(key: str, value: str) -> str:
    return f'<string key="{key}" value={quoteattr(_NOT_XML.sub(chr(0xFFFD), value))}/>'


def _parquet(database: Database, connection: Connection, path: Path) -> int:
    """A file for each table of forms, instances, tasks, decisions and people."""
    try:
        import duckdb  # noqa: PLC0415 - an extra
    except ImportError:
        raise OperatorError("Parquet needs DuckDB: install the package duckdb") from None
    path.mkdir()
    count, rows = 0, path.with_name("rows")
    for name, kinds in _tables(connection):
        with rows.open("w", encoding="utf-8") as out:
            found = connection.exec_driver_sql(f"SELECT * FROM {quoted(database, name)}")
            columns = {each: kinds.get(each, "text") for each in found.keys() if each != "_partition"}  # noqa: SIM118
            for row in found.mappings():
                out.write(to_json({each: _plain(row[each], kind) for each, kind in columns.items()}) + "\n")
                count += 1
        types = {each: _DUCKDB.get(kind, "VARCHAR") for each, kind in columns.items()}
        with duckdb.connect(config={**_DUCKDB_LIMITS}) as reader:
            found = reader.read_json(
                glob.escape(str(rows)), columns=types, format="newline_delimited", maximum_object_size=_LARGEST_ROW
            )
            found.write_parquet(str(path / f"{quote(name, safe='')}.parquet"))
    return count


def _tables(connection: Connection) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The tables of the documentation, each with the kinds of its columns."""
    for name in ("forms", "form_columns", "instances", "tasks", "decisions", "people"):
        yield name, TABLES[name][0]
    kinds: dict[str, dict[str, str]] = {
        name: {**OURS}
        for query in ("SELECT table_name FROM forms", "SELECT table_name FROM line_tables")
        for (name,) in connection.exec_driver_sql(query)
    }
    for table, column, kind in connection.exec_driver_sql("SELECT table_name, column_name, type FROM form_columns"):
        kinds[table][column] = OF_KIND.get(Kind(kind), "text")
    yield from kinds.items()


def _plain(value: Any, kind: str) -> Any:
    """As JSON has it, the same from both databases."""
    if value is None:
        return None
    if kind == "at":
        return _iso(value)
    if kind == "json" and not isinstance(value, str):
        return to_json(value)
    return bool(value) if kind == "flag" else value if kind == "int" else str(value)


def _iso(at: datetime | int) -> str:
    """SQLite has milliseconds."""
    moment = _EPOCH + timedelta(milliseconds=at) if isinstance(at, int) else at.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds")


Writer = Callable[["Database", "Connection", Path], int]
_WRITERS: dict[str, Writer] = {"ocel": _ocel, "xes": _xes, "parquet": _parquet}
