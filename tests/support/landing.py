"""Targets of ``land`` in tests: their tables as mappings, and processes that read topics in memory into them."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import event

from support.center_records import NOW_MS, REGISTRY, FakeTopic, Replica, encode_state
from taskbridge.landing.records import Definitions, People, States, Values
from taskbridge.landing.shapes import Shapes
from taskbridge.landing.tables import SCHEMA, prepare
from taskbridge.runtime.database import open_target
from taskbridge.runtime.follow.batch import PositionLost
from taskbridge.runtime.follow.positions import read_positions
from taskbridge.schemas.codec import form_codec, form_data_codec, person_codec
from taskbridge.schemas.events import Form, FormData, FormField, PersonRecord, form_key, notification_key
from taskbridge.schemas.topics import FORM_DATA, FORMS, PEOPLE, TASK_STATES

if TYPE_CHECKING:
    import random
    from collections.abc import Generator, Mapping, Sequence

    from support.center import Databases
    from taskbridge.runtime.database import Database
    from taskbridge.runtime.follow.batch import FollowedTopic
    from taskbridge.schemas.events import TaskState

CORP, APP, FORM = "ding1", "APP_1", "FORM-AB12CD34"
TABLE = "f_formab12cd34"
encode_form, _encode_values = form_codec(REGISTRY).encode, form_data_codec(REGISTRY).encode
encode_person = person_codec(REGISTRY).encode


def new_target(databases: Databases, dialect: str) -> Database:
    """An empty target that is prepared."""
    where = databases.empty_url(dialect)
    if isinstance(where, Path):
        where.mkdir(parents=True)
        where = f"sqlite:///{where / 'target.db'}"
    target = open_target(where, schema=SCHEMA)
    prepare(target)
    return target


class LandProcess(Replica):
    """A process with its own memory of the tables."""

    def make_followed(self) -> Sequence[FollowedTopic]:
        shapes = Shapes(self.database)
        return [
            Values(self.database, REGISTRY, Shapes(self.database)),
            Definitions(self.database, REGISTRY, shapes),
            People(self.database, REGISTRY),
            States(self.database, REGISTRY),
        ]


@dataclass
class Source:
    """The topics."""

    values: FakeTopic = field(default_factory=lambda: FakeTopic(FORM_DATA.name))
    forms: FakeTopic = field(default_factory=lambda: FakeTopic(FORMS.name))
    people: FakeTopic = field(default_factory=lambda: FakeTopic(PEOPLE.name))
    states: FakeTopic = field(default_factory=lambda: FakeTopic(TASK_STATES.name))
    read_at: int = NOW_MS

    @property
    def topics(self) -> list[FakeTopic]:
        return [self.values, self.forms, self.people, self.states]

    def fill(
        self,
        instance_id: str,
        data: Mapping[str, object],
        *,
        form: str = FORM,
        deleted: bool = False,
        read_at: int | None = None,
    ) -> FormData:
        """The values of an instance; what is no text becomes JSON."""
        self.read_at += 1
        given = {name: _text(value) for name, value in data.items()}
        at = self.read_at if read_at is None else read_at
        record = FormData(CORP, APP, form, instance_id, at, "event", data=given, modified_at=at - 1, deleted=deleted)
        self.put(record)
        return record

    def put(self, record: FormData) -> None:
        self.values.append(record.instance_id.encode(), _encode_values(record))

    def forget(self, instance_id: str) -> None:
        self.values.append(instance_id.encode(), None)

    def define(
        self,
        fields: Mapping[str, str],
        labels: Mapping[str, str] | None = None,
        *,
        form: str = FORM,
        title: str | None = None,
    ) -> None:
        """Field, or `SUBFORM.FIELD` → its component."""
        made: list[FormField] = []
        for name, component in fields.items():
            parent, _, its_id = name.rpartition("/")
            made.append(FormField(its_id, component, parent or None))
        found = Form(form, title, labels or {}, tuple(made))
        self.forms.append(form_key(CORP, form), encode_form(found))

    def name(self, person: PersonRecord) -> None:
        self.people.append(notification_key(CORP, person.user_id), encode_person(person))

    def move(self, state: TaskState) -> None:
        self.states.append(state.instance_id.encode(), encode_state(state))

    def land(self, target: Database) -> LandProcess:
        """By a new process, until nothing is left."""
        while True:
            process = LandProcess(target, *self.topics)
            process.follow()
            if self.has_landed(target):
                return process

    def land_under_kills(
        self, target: Database, processes: list[LandProcess], chance: random.Random, *, calm: bool
    ) -> list[LandProcess]:
        """By processes that are killed, or whose connection is; ``calm``: until everything has landed."""
        for attempt in range(1000 if calm else 3):
            if not processes or chance.random() < 0.5:
                processes = [LandProcess(target, *self.topics) for _ in range(chance.choice([1, 1, 2]))]
            with suppress(Killed, PositionLost), killed_before(target, chance.randrange(20 + 40 * attempt)):
                for each in processes:
                    each.assign({*each.assigned})
                    each.follow(batch=chance.choice([1, 3, 1000]), chance=chance)
            if calm and self.has_landed(target):
                return processes
        assert not calm, "the tables never became those of the topics"
        return processes

    def has_landed(self, target: Database) -> bool:
        with target.read() as connection:
            found = read_positions(connection, [each.name for each in self.topics])
        return all(
            found[topic.name, at].next_offset == topic.end(at)
            for topic in self.topics
            for at in range(topic.partitions)
        )


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def rows_of(target: Database, table: str, *, order: str = "1, 2") -> list[dict[str, Any]]:
    with target.read() as connection:
        name = '"' + table.replace('"', '""') + '"'
        name = name if target.is_sqlite else name.replace("%", "%%")
        found = connection.exec_driver_sql(f"SELECT * FROM {name} ORDER BY {order}").mappings()  # noqa: S608
        return [dict(each) for each in found]


class Killed(Exception):
    """The process ends here."""


@contextmanager
def killed_before(target: Database, statement: int) -> Generator[None]:
    """Raise Killed before a statement of the block, as a kill: its transaction is rolled back."""
    left = [statement]

    def count(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    event.listen(target.engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        event.remove(target.engine, "before_cursor_execute", count)
