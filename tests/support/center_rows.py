"""The task center's API without Kafka: rows are written as the follower would, and a replica answers from them."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, insert

from taskbridge.center.access.sso import EMPLOYEE_NUMBER
from taskbridge.center.api.current_form import NewestForms
from taskbridge.center.api.marks import MarksStore
from taskbridge.center.api.queries import Queries
from taskbridge.center.api.routes import lists_router
from taskbridge.center.filling import not_filled
from taskbridge.center.follow.lists import due_column, shown_views
from taskbridge.center.metrics import Metrics
from taskbridge.center.search import person_text, search_text
from taskbridge.center.server import build_http
from taskbridge.center.tables import (
    VIEW_CODES,
    WHOLE_INSTANCE,
    entries,
    events,
    forms,
    instances,
    people,
    person_ids,
)
from taskbridge.runtime.database import Threads
from taskbridge.runtime.follow.tables import positions
from taskbridge.schemas.events import SOURCE_YIDA, Person, Status, TaskState, View
from taskbridge.schemas.views import Entry

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from fastapi import APIRouter, FastAPI
    from sqlalchemy import Connection

    from taskbridge.center.access.access import Access
    from taskbridge.center.actions.systems import FormReader, OpenFile
    from taskbridge.center.tables import Seen
    from taskbridge.runtime.database import Database
    from taskbridge.schemas.events import Form, PersonRecord, TaskEvent

ANN = Person("ann", "Ann")
_numbers = count(1)


@contextmanager
def unchecked(_connection: Connection) -> Generator[Seen]:
    """For readers of lists that nothing drops meanwhile."""
    yield lambda _: None


def state(instance_id: str = "I-1", *, corp_id: str = "corp", **fields: Any) -> TaskState:
    """An instance; what a test does not care about has a default."""
    given: dict[str, Any] = {"app_type": "APP", "updated_at": 1_000, "revision": 1, "began_at": 1_000, **fields}
    return TaskState(instance_id=instance_id, corp_id=corp_id, **given)


def entry(**fields: Any) -> Entry:
    """The content of an entry; what a test does not care about has a default."""
    given: dict[str, Any] = {
        "title": "Leave",
        "url": None,
        "app_type": "APP",
        "originator": ANN,
        "actor_id": None,
        "status": Status.PENDING,
        "process_name": None,
        "source": SOURCE_YIDA,
        "entered_at": 1_000,
        "updated_at": fields.get("entered_at", 1_000),
        "outcome": None,
        "remark": None,
        "finished_at": None,
        "result": None,
        **fields,
    }
    return Entry(**given)


def entry_row(
    instance_id: str = "I-1",
    task_id: str | None = "T-1",
    *,
    user: str = "ann",
    corp: str = "corp",
    view: View = View.PENDING,
    **fields: Any,
) -> dict[str, Any]:
    """A row of ``entries``; ``fields`` are those of its content."""
    content = entry(**fields)
    person = content.originator
    unnamed = person.user_id if person is not None and person.name is None else None
    name = None if person is None else person.name
    return {
        "instance": 0,
        "number": next(_numbers),
        "corp_id": corp,
        "user_id": user,
        "view": VIEW_CODES[view],
        "entered_at": content.entered_at,
        "instance_id": instance_id,
        "task_id": WHOLE_INSTANCE if task_id is None else task_id,
        "app_type": content.app_type,
        "source": content.source,
        "process_name": content.process_name,
        "due_at": due_column(view, content),
        "unnamed_originator": unnamed,
        "search": search_text(content.title, content.process_name, name, None),
        "item": msgspec.json.encode(content),
    }


class AnsweringCenter:
    """A replica of the task center that answers queries."""

    def __init__(self, database: Database, access: Access) -> None:
        self.database = database
        self.metrics = Metrics()
        self.threads = Threads(2)
        self.complete = True
        self.open_file: OpenFile | None = None
        """What opens files of any app."""
        self.read_form: FormReader | None = None
        """What reads forms of any app."""
        self.queries = Queries(
            database,
            complete=self.complete_lists,
            all_people=unchecked,
            reads_forms=lambda _corp, _source, _app: self.read_form is not None,
            opens_files=lambda _corp, _source, _app: self.open_file is not None,
        )
        self.marks = MarksStore(database, self.complete_lists)
        self.access = access
        self.forms = NewestForms(self._form_reader)
        self.ready: dict[str, Any] = {"ready": True}

    def http(self, *further: APIRouter, only_hosts: frozenset[str] | None = None) -> FastAPI:
        async def readiness() -> dict[str, Any]:
            return self.ready

        return build_http(readiness, self.metrics, routers=[*further, self.lists_router()], only_hosts=only_hosts)

    @contextmanager
    def complete_lists(self, _connection: Connection) -> Generator[Seen]:
        if not self.complete:
            raise not_filled()
        yield lambda _: None

    def lists_router(self, **options: Any) -> APIRouter:
        options = {"file_opener": self._file_opener, "forms": self.forms, **options}
        return lists_router(self.access, self.queries, self.threads, **options)

    def _file_opener(self, _corp_id: str, _source: str, _app_type: str) -> OpenFile | None:
        return self.open_file

    def _form_reader(self, _corp_id: str, _source: str, _app_type: str) -> FormReader | None:
        return self.read_form

    def store(self, *states: TaskState) -> None:
        """Write instances with their entries."""
        with self.database.write() as connection:
            for each in states:
                number = next(_numbers)
                row = {"id": number, "instance_id": each.instance_id, "partition": 0, "corp_id": each.corp_id}
                connection.execute(insert(instances), [{**row, "state": msgspec.json.encode(each)}])
                rows = [
                    entry_row(
                        each.instance_id,
                        key.task_id,
                        user=key.user_id,
                        corp=each.corp_id,
                        view=key.view,
                        **msgspec.structs.asdict(content),
                    )
                    | {"instance": number}
                    for key, content in shown_views(each).items()
                ]
                if rows:
                    connection.execute(insert(entries), rows)

    def add(self, *rows: dict[str, Any]) -> None:
        """Write rows of ``entry_row``, also of instances that are not there."""
        if rows:
            with self.database.write() as connection:
                connection.execute(insert(entries), list(rows))

    def store_events(self, *received: TaskEvent) -> None:
        """Write events, at offsets in the order in which they are given."""
        rows = [
            {
                "instance_id": each.instance_id,
                "event_id": each.event_id,
                "corp_id": each.corp_id,
                "action": each.action.value,
                "occurred_at": each.occurred_at,
                "received_at": each.received_at,
                "partition": 3,
                "offset": offset,
                "data": msgspec.json.encode(each),
            }
            for offset, each in enumerate(received, 1)
        ]
        with self.database.write() as connection:
            connection.execute(insert(events), rows)

    def know(self, corp_id: str, person: PersonRecord) -> None:
        """Write a person, instead of the one before it."""
        self.forget(corp_id, person.user_id)
        ids = {**person.other_ids, **({EMPLOYEE_NUMBER: person.employee_number} if person.employee_number else {})}
        row = {
            "corp_id": corp_id,
            "user_id": person.user_id,
            "name": person.name,
            "department": person.department,
            "search": person_text(person.name, person.user_id, person.department),
        }
        with self.database.write() as connection:
            connection.execute(insert(people), [row | ({"partition": 0} if "partition" in people.c else {})])
            rows = [
                {"corp_id": corp_id, "kind": kind, "value": value, "user_id": person.user_id}
                for kind, value in ids.items()
                if value
            ]
            if rows:
                connection.execute(insert(person_ids), rows)

    def forget(self, corp_id: str, user_id: str) -> None:
        with self.database.write() as connection:
            for table in (people, person_ids):
                connection.execute(delete(table).where(table.c.corp_id == corp_id, table.c.user_id == user_id))

    def label(self, corp_id: str, form: Form) -> None:
        """Write a form."""
        row = {
            "corp_id": corp_id,
            "form_uuid": form.form_uuid,
            "title": form.title,
            "labels": msgspec.json.encode(form.labels),
        }
        with self.database.write() as connection:
            connection.execute(insert(forms), [row | ({"partition": 0} if "partition" in forms.c else {})])

    def close(self) -> None:
        self.threads.close()


def fill(database: Database, topic: str, *, read: int, of: int) -> None:
    """Have the one partition of a topic read so far."""
    row = {"topic": topic, "partition": 0, "topic_id": "x", "next_offset": read, "fill_end": of, "at": 0}
    with database.write() as connection:
        connection.execute(delete(positions).where(positions.c.topic == topic))
        connection.execute(insert(positions), [row])


def items(answer: Mapping[str, Any]) -> Sequence[tuple[str, str | None]]:
    return [(each["instance_id"], each["task_id"]) for each in answer["items"]]
