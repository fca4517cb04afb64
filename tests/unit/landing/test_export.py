"""Files of what has landed: logs of events that process mining reads, and tables as Parquet, of either database."""

from __future__ import annotations

from collections import Counter
from datetime import datetime  # noqa: TC003 - msgspec resolves the types of fields
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import duckdb
import msgspec
import pytest
from msgspec import Struct
from typer.testing import CliRunner

from support.landing import APP, CORP, TABLE, Source, new_target, rows_of
from support.simulated_month import EMPLOYEES, land_month, month
from taskbridge.cli.program import app
from taskbridge.landing.export import export
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Lifecycle, Person, Status, TaskEntry, TaskState

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from support.center import Databases
    from taskbridge.runtime.database import Database


class Named(Struct, forbid_unknown_fields=True):
    name: str
    type: str


class TypeOf(Struct, forbid_unknown_fields=True):
    name: str
    attributes: list[Named]


class Value(Struct, forbid_unknown_fields=True):
    name: str
    value: str


class ValueAt(Value, forbid_unknown_fields=True):
    time: datetime


class Related(Struct, forbid_unknown_fields=True):
    object_id: str = msgspec.field(name="objectId")
    qualifier: str


class Object(Struct, forbid_unknown_fields=True):
    id: str
    type: str
    attributes: list[ValueAt]


class Event(Struct, forbid_unknown_fields=True):
    id: str
    type: str
    time: datetime
    attributes: list[Value]
    relationships: list[Related]


class Ocel(Struct, forbid_unknown_fields=True):
    """As the JSON schema of OCEL 2.0 has it."""

    object_types: list[TypeOf] = msgspec.field(name="objectTypes")
    event_types: list[TypeOf] = msgspec.field(name="eventTypes")
    objects: list[Object]
    events: list[Event]


@pytest.fixture(params=["sqlite", "postgresql"])
def target(databases: Databases, request: pytest.FixtureRequest) -> Generator[Database]:
    found = new_target(databases, request.param)
    yield found
    found.close()


def url_of(target: Database) -> str:
    return target.engine.url.render_as_string(hide_password=False)


def expected() -> Counter[str]:
    """The events of the month, by activity."""
    states = month().states.values()
    decided = (each for state in states for each in state.tasks if each.status is Status.COMPLETED)
    found = Counter(each.step_name or "decided" for each in decided)
    return found + Counter(began=len(states), ended=sum(each.finished_at is not None for each in states))


def test_logs_have_every_event_of_the_month(target: Database, tmp_path: Path) -> None:
    land_month(target)
    counts = export(url_of(target), {"ocel": tmp_path / "month.json", "xes": tmp_path / "month.xes"})
    assert counts == dict.fromkeys(("ocel", "xes"), expected().total())
    found = msgspec.json.decode((tmp_path / "month.json").read_bytes(), type=Ocel)
    assert Counter(each.type for each in found.events) == expected()
    assert {each.type for each in found.events} == {each.name for each in found.event_types}
    assert len({each.id for each in found.events}) == len(found.events)
    objects = {each.id: each for each in found.objects}
    assert len(objects) == len(found.objects)
    assert {each.id for each in found.objects if each.type == "instance"} == month().states.keys()
    people = {each.id for each in found.objects if each.type == "person"}
    assert people <= {f"corp/{each.user_id}" for each in EMPLOYEES}
    assert {each.object_id for event in found.events for each in event.relationships} == objects.keys()
    traces = ET.parse(tmp_path / "month.xes").getroot().findall("trace")  # noqa: S314 - our own
    by_trace = {name_of(each): [name_of(event) for event in each.findall("event")] for each in traces}
    assert by_trace.keys() == month().states.keys()
    assert Counter(each for names in by_trace.values() for each in names) == expected()
    assert {names[0] for names in by_trace.values()} == {"began"}


def name_of(found: ET.Element) -> str | None:
    return next(each.get("value") for each in found.findall("string") if each.get("key") == "concept:name")


def test_hostile_texts_stay_texts(target: Database, tmp_path: Path) -> None:
    source, hostile = Source(), 'a "<b>" &\n\x01 %s'
    source.move(
        TaskState(
            instance_id='I-"<', corp_id=CORP, app_type=APP, lifecycle=Lifecycle.ACTIVE, updated_at=3, revision=1,
            title=hostile, originator=Person("u'1"), began_at=1,
            tasks=(TaskEntry("T-1", Status.COMPLETED, actor_id="u'1", decided_at=2, step_name=hostile),),
        )
    )  # fmt: skip
    source.land(target)
    export(url_of(target), {"ocel": tmp_path / "o", "xes": tmp_path / "x"})
    found = msgspec.json.decode((tmp_path / "o").read_bytes(), type=Ocel)
    assert hostile in [each.type for each in found.events]
    (trace,) = ET.parse(tmp_path / "x").getroot().findall("trace")  # noqa: S314 - our own
    assert name_of(trace) == 'I-"<'
    assert hostile.replace("\x01", "\ufffd") in [name_of(each) for each in trace.findall("event")]


def test_each_table_becomes_a_parquet_file(target: Database, tmp_path: Path) -> None:
    source = Source()
    source.define({"amount": "NumberField", "day": "DateField", "lines": "TableField", "lines/n%": "NumberField"})
    source.fill("I-1", {"amount": "12.5", "day": "1700000000000", "lines": [{"n%": 1}, {"n%": 2}], "other": "raw"})
    source.fill("I-2", {}, deleted=True)
    source.land(target)
    folder = tmp_path / "out[1]"
    assert export(url_of(target), {"parquet": folder}) == {"parquet": 8}
    assert {each.name for each in folder.iterdir()} == {
        f"{each}.parquet"
        for each in ("forms", "form_columns", "instances", "tasks", "decisions", "people", TABLE, f"{TABLE}__lines")
    }
    query = "SELECT amount, epoch_ms(day), _deleted, _raw FROM read_parquet($1) ORDER BY instance_id"
    where = str(folder / f"{TABLE}.parquet").replace("[", "[[]")
    assert duckdb.execute(query, [where]).fetchall() == [
        (12.5, 1_700_000_000_000, False, '{"other":"raw"}'),
        (None, None, True, None),
    ]
    lines = duckdb.execute('SELECT line, "n%" FROM read_parquet($1)', [where.replace(TABLE, f"{TABLE}__lines")])
    assert lines.fetchall() == [(1, 1.0), (2, 2.0)]


def test_nothing_is_replaced(databases: Databases, tmp_path: Path) -> None:
    target = new_target(databases, "sqlite")
    there = tmp_path / "there"
    there.write_text("mine")
    for name in ("ocel", "xes", "parquet"):
        with pytest.raises(OperatorError, match="exists"):
            export(url_of(target), {name: there})
    assert there.read_text() == "mine"
    assert [*tmp_path.glob(".*")] == []
    assert rows_of(target, "instances") == []
    target.close()


def test_the_command_says_what_it_wrote(databases: Databases, tmp_path: Path) -> None:
    target = new_target(databases, "sqlite")
    arguments = ["land", "export", "--from", url_of(target), "--xes", str(tmp_path / "x")]
    assert CliRunner().invoke(app, arguments).output == f"{tmp_path / 'x'} has 0 events.\n"
    assert CliRunner().invoke(app, arguments).exit_code == 1
    assert CliRunner().invoke(app, ["land", "export", "--from", url_of(target)]).exit_code == 2
    missing = CliRunner().invoke(app, [*arguments[:3], f"sqlite:///{tmp_path / 'no.db'}", "--xes", str(tmp_path / "y")])
    assert (missing.exit_code, [*tmp_path.glob("*.db")]) == (1, [])
    target.close()
