"""After any sequence of changes and kills, the tables equal the source, in PostgreSQL and SQLite; seven seeds nightly.

Instances are filled, edited, read twice, deleted and forgotten; definitions come before and after values, and fields
are added, renamed, removed and change their kinds. The processes that land them read in any order, share a target, and
are killed before any statement, or go on after it, as after an error of the database.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from support.center_records import NOW_MS
from support.landing import APP, CORP, LandProcess, Source, rows_of
from taskbridge.schemas.events import Status, TaskEntry, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.runtime.database import Database
    from taskbridge.schemas.events import FormData

FORMS = ("FORM-1", "FORM-2", "FORM-3")
FIELDS = ("amount", "numberField_1", "textField_1", "dateField_1", "employeeField_1", "multiSelectField_1")
SUBFORM, OF_LINES = "tableField_1", ("price", "textField_9")
KINDS = {"amount": "NumberField", "price": "NumberField", SUBFORM: "TableField"}
"""Of ids that do not tell it."""
CHANGED = ("TextField", "NumberField", "DateField")
ROUNDS = 14


def component(name: str) -> str:
    return KINDS.get(name) or name[:1].upper() + name[1:].partition("_")[0]


class Value(NamedTuple):
    """What is in the raw data, and which columns it gives by kind; a missing kind does not fit it."""

    raw: str
    by_kind: dict[str, tuple[Any, ...]]
    ids: str | None = None


def value_of(name: str, chance: random.Random, target: Database) -> Value:
    number = chance.choice(["12", "-3.50", "1,000", "x", str(NOW_MS + chance.randrange(1000) * 1000)])
    if component(name) == "EmployeeField":
        people = [f"人{chance.randrange(5)}"]
        ids = [f"u-{each}" for each in people]
        return Value(json.dumps(people), {"person": (ids, people)}, json.dumps(ids))
    if component(name) == "MultiSelectField":
        options = [f"o{each}" for each in range(chance.randrange(1, 4))]
        return Value(json.dumps(options), {"choices": (options,)})
    found: dict[str, tuple[Any, ...]] = {"text": (number,)}
    if "," not in number and number != "x":
        found["number"] = (Decimal(number),)
    if len(number) == len(str(NOW_MS)):
        found["date"] = (int(number) if target.is_sqlite else _at(int(number)),)
    return Value(number, found)


def _at(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


class World:
    """The vendor's forms as they are, and the records about them."""

    def __init__(self, chance: random.Random, target: Database) -> None:
        self.chance, self.target, self.source = chance, target, Source()
        self.fields: dict[str, dict[str, str]] = {}
        """By form: field → component of today. Of a form without a definition nothing is known."""
        self.labels: dict[str, dict[str, str]] = defaultdict(dict)
        self.newest: dict[str, tuple[FormData, dict[str, Value], list[dict[str, Value]]]] = {}
        self.states: dict[str, TaskState] = {}
        self.written: list[FormData] = []
        self.processes: list[LandProcess] = []

    def move(self) -> None:
        moves = [self.fill] * 6 + [self.read_again, self.delete, self.forget, self.define, self.define, self.decide]
        self.chance.choice(moves)()

    def fill(self) -> None:
        number = self.chance.randrange(25)
        instance_id, form = f"I-{number}", FORMS[number % len(FORMS)]
        values = {name: value_of(name, self.chance, self.target) for name in FIELDS if self.chance.random() < 0.7}
        lines = [
            {name: value_of(name, self.chance, self.target) for name in OF_LINES if self.chance.random() < 0.8}
            for _ in range(self.chance.randrange(3))
        ]
        data: dict[str, object] = {name: each.raw for name, each in values.items()}
        data |= {f"{name}_id": each.ids for name, each in values.items() if each.ids is not None}
        if lines:
            data[SUBFORM] = [{name: each.raw for name, each in line.items()} for line in lines]
        record = self.source.fill(instance_id, data, form=form)
        self.newest[instance_id] = record, values, lines
        self.written.append(record)

    def read_again(self) -> None:
        """An older record comes once more."""
        if self.written:
            record = self.chance.choice(self.written)
            newest = self.newest.get(record.instance_id)
            if newest is not None and not newest[0].deleted:
                self.source.put(record)

    def delete(self) -> None:
        if self.newest:
            instance_id = self.chance.choice(sorted(self.newest))
            form = self.newest[instance_id][0].form_uuid
            self.newest[instance_id] = self.source.fill(instance_id, {}, form=form, deleted=True), {}, []

    def forget(self) -> None:
        if gone := [key for key, (record, *_) in sorted(self.newest.items()) if record.deleted]:
            del self.newest[(instance_id := self.chance.choice(gone))]
            self.source.forget(instance_id)

    def define(self) -> None:
        form = self.chance.choice(FORMS)
        everything = [*FIELDS, SUBFORM, *(f"{SUBFORM}/{each}" for each in OF_LINES)]
        fields = self.fields.setdefault(form, {each: component(each.rpartition("/")[2]) for each in everything})
        name = self.chance.choice(everything)
        change = self.chance.randrange(4)
        if change == 0:
            self.labels[form][name] = f"{name} {self.chance.randrange(9)}"
        elif change == 1 and name != SUBFORM:
            fields.pop(name, None)
        elif change == 2:
            fields.setdefault(name, component(name.rpartition("/")[2]))
        elif fields.get(name) in CHANGED:
            fields[name] = self.chance.choice(CHANGED)
        labels = {name.rpartition("/")[2]: label for name, label in self.labels[form].items()}
        self.source.define(fields, labels, form=form)

    def decide(self) -> None:
        instance_id = f"I-{self.chance.randrange(25)}"
        if self.states.pop(instance_id, None) is not None and self.chance.random() < 0.3:
            self.source.states.append(instance_id.encode(), None)
            return
        tasks = tuple(
            TaskEntry(f"T-{each}", self.chance.choice([Status.PENDING, Status.COMPLETED]), ("u-1", "u-2")[: each + 1])
            for each in range(self.chance.randrange(3))
        )
        self.states[instance_id] = TaskState(instance_id, CORP, APP, NOW_MS, 1, tasks=tasks)
        self.source.move(self.states[instance_id])

    def land(self, *, calm: bool) -> None:
        self.processes = self.source.land_under_kills(self.target, self.processes, self.chance, calm=calm)

    def check(self) -> None:
        by_form: dict[str, dict[str, Any]] = defaultdict(dict)
        for instance_id, found in self.newest.items():
            by_form[found[0].form_uuid][instance_id] = found
        tables = {each["form_uuid"]: each["table_name"] for each in rows_of(self.target, "forms")}
        line_tables = {each["form_table"]: each["table_name"] for each in rows_of(self.target, "line_tables")}
        assert tables.keys() >= by_form.keys()
        for form, table in tables.items():
            rows = {each["instance_id"]: each for each in rows_of(self.target, table)}
            assert rows.keys() == by_form[form].keys()
            for instance_id, (record, values, _) in by_form[form].items():
                row = rows[instance_id]
                assert bool(row["_deleted"]) is record.deleted
                assert row["_read_at"] == (record.read_at if self.target.is_sqlite else _at(record.read_at))
                self._check_row(form, table, row, values, None)
            lines = {
                (instance_id, number): line
                for instance_id, (_, _, its) in by_form[form].items()
                for number, line in enumerate(its, 1)
            }
            if table not in line_tables:
                assert not lines
                continue
            stored = {(each["instance_id"], each["line"]): each for each in rows_of(self.target, line_tables[table])}
            assert stored.keys() == lines.keys()
            for key, line in lines.items():
                self._check_row(form, line_tables[table], stored[key], line, SUBFORM)

    def _check_row(
        self, form: str, table: str, row: dict[str, Any], values: dict[str, Value], parent: str | None
    ) -> None:
        raw: dict[str, Any] = _parsed(row["_raw"]) or {}
        columns = list(self._columns(form, table))
        for name in FIELDS if parent is None else OF_LINES:
            its = [each for each in columns if each["field_id"] == name]
            found = tuple(row[each["column_name"]] for each in its)
            value = values.get(name)
            expected = value.by_kind.get(its[0]["type"]) if value is not None and its else None
            if expected is None:
                assert all(each is None for each in found), (name, found)
                assert raw.pop(name, None) == (None if value is None else value.raw)
            else:
                assert tuple(map(_parsed, found) if isinstance(expected[0], list) else found) == expected
        assert not raw

    def _columns(self, form: str, table: str) -> Iterator[dict[str, Any]]:
        """Those in use: of today's kind, or of the latest."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for each in sorted(rows_of(self.target, "form_columns"), key=lambda each: each["position"]):
            if each["table_name"] == table:
                found[each["field_id"]].append(each)
        defined = self.fields.get(form)
        for name, its in found.items():
            current = [each for each in its if not each["dropped"]]
            place = name if its[0]["parent_field_id"] is None else f"{SUBFORM}/{name}"
            if defined is not None:
                assert bool(current) is (place in defined)
            yield from current or [each for each in its if each["type"] == its[-1]["type"]]

    def check_states(self) -> None:
        assert {each["instance_id"] for each in rows_of(self.target, "instances")} == self.states.keys()
        tasks = {(each["instance_id"], each["task_id"], each["assignee_id"]) for each in rows_of(self.target, "tasks")}
        assert tasks == {
            (key, task.task_id, user)
            for key, each in self.states.items()
            for task in each.tasks
            for user in task.assignee_ids
        }
        decisions = {(each["instance_id"], each["task_id"]) for each in rows_of(self.target, "decisions")}
        assert decisions == {
            (key, task.task_id)
            for key, each in self.states.items()
            for task in each.tasks
            if task.status is Status.COMPLETED
        }


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


@pytest.mark.parametrize(
    "seed", [pytest.param(each, marks=[pytest.mark.nightly] if each > 2 else []) for each in range(10)]
)
def test_the_tables_equal_the_source(seed: int, target: Database) -> None:
    chance = random.Random(seed)
    world = World(chance, target)
    for _ in range(ROUNDS):
        for _ in range(chance.randrange(1, 12)):
            world.move()
        world.land(calm=False)
    world.land(calm=True)
    world.check()
    world.check_states()
