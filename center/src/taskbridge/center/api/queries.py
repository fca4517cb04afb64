"""The queries of the API, each of one to three statements. Nothing here knows HTTP.

Every method blocks, and raises ``DatabaseUnavailable`` if the database does not answer.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from sqlalchemy import and_, bindparam, case, func, literal, or_, select, true, tuple_, union_all
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import Integer

from taskbridge.center.access.delegations import delegated_to, is_delegated
from taskbridge.center.access.refusals import EventsBehind
from taskbridge.center.api import models
from taskbridge.center.api.cursors import PageCursor, read_cursor, write_cursor
from taskbridge.center.api.form_files import FormFile, files_of
from taskbridge.center.api.json_forms import (
    event_json,
    files_json,
    form_json,
    item_json,
    people_json,
    state_json,
    users_of_events,
    users_of_state,
)
from taskbridge.center.api.marks import listed_statement, mark_columns, marks_json
from taskbridge.center.api.waits_for import waits_for_columns, waits_for_json
from taskbridge.center.reminders.due import NO_RULES, DueRules, RuleKeys, is_overdue
from taskbridge.center.reminders.waiting import names_of
from taskbridge.center.search import text_of_query
from taskbridge.center.tables import (
    CODES_BY_NAME,
    entries,
    events,
    forms,
    instances,
    people,
    person_ids,
    preferences,
    read_entry,
    read_state,
)
from taskbridge.runtime.database import Database, clean, now_ms
from taskbridge.runtime.follow.positions import filled_epoch
from taskbridge.runtime.refusals import Unknown
from taskbridge.runtime.tokens import ALL_CORPS
from taskbridge.schemas.events import LAST_MS, Action, Form, TaskEvent, TaskState
from taskbridge.schemas.topics import TASK_STATES
from taskbridge.schemas.views import began_at_of, concerns

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import BindParameter, ColumnElement, Connection, FromClause, RowMapping, Select, Subquery

    from taskbridge.center.access.access import Caller
    from taskbridge.center.tables import Complete, Person
    from taskbridge.schemas.views import Entry

    Statement = Select[*tuple[Any, ...]]

DELEGATED_MAX = 500
"""Tasks of others that a delegate sees: the newest."""
SEARCHED_MAX = 10_000
"""Entries that one search examines."""
APPS_SEARCHED = 500
"""The newest entries of each view in which a person's apps are looked for."""
HISTORY_MAX = 100
BEHIND_MS = 600_000
"""An event that was not read after so long does not come any more."""
LIMIT_MAX, LIMIT_DEFAULT = 200, 50

_PENDING: Final = "pending"
_CREATED: Final = "created"
_STARTED_MAX = 100
"""Requests of a person in which their forms are looked up."""
_BOUND_S, _BOUNDS = 30.0, 1_024
"""How long the end of a search is remembered, and of how many."""

_read_event = msgspec.json.Decoder(TaskEvent).decode
_read_labels = msgspec.json.Decoder(dict[str, str]).decode
_read_preferences = msgspec.json.Decoder(models.Preferences).decode


class PageQuery(NamedTuple):
    """Which entries of whom; every value is one that the contract allows."""

    corp_id: str
    user_id: str
    view: models.ViewName
    app_type: str | None = None
    source: str | None = None
    q: str = ""
    overdue: bool = False
    limit: int = LIMIT_DEFAULT
    cursor: str | None = None
    marks: bool = False


class strpos(GenericFunction[int]):  # noqa: N801 - named as PostgreSQL's
    """Where the first text contains the second, from 1; 0 if it does not."""

    type = Integer()
    inherit_cache = True


@compiles(strpos, "sqlite")
def _instr(element: strpos, compiler: Any, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)})"


def contains(text: ColumnElement[str], part: BindParameter[str] | str) -> ColumnElement[bool]:
    """Whether the text contains the part, compared by characters."""
    return strpos(text, part) > 0


# Statements are built once: to build one takes longer than the database needs for a page.


def _given(name: str) -> BindParameter[Any]:
    return bindparam(name)


_CORP, _USER, _VIEW = _given("corp_id"), _given("user_id"), _given("view")
_OF_PERSON = and_(entries.c.corp_id == _CORP, entries.c.user_id == _USER)
_EPOCH = filled_epoch(TASK_STATES.name).label("epoch")
_ORDER = entries.c.entered_at.desc(), entries.c.instance_id, entries.c.task_id
_PLACE = entries.c.entered_at, entries.c.instance_id, entries.c.task_id


def _in_view(of: FromClause = entries, *, after: bool, until: bool = False) -> list[ColumnElement[bool]]:
    """Entries of the view, after a place, and up to another. The first condition on time is the one of the index."""
    where = [of.c.corp_id == _CORP, of.c.user_id == _USER, of.c.view == _VIEW]
    ids = tuple_(of.c.instance_id, of.c.task_id)
    if after:
        at, given = _given("after_at"), tuple_(_given("after_instance"), _given("after_task"))
        where += [of.c.entered_at <= at, or_(of.c.entered_at < at, ids > given)]
    if until:
        at, given = _given("until_at"), tuple_(_given("until_instance"), _given("until_task"))
        where += [of.c.entered_at >= at, or_(of.c.entered_at > at, ids <= given)]
    return where


def _values(name: str, place: PageCursor | None) -> dict[str, Any]:
    """The parameters of ``_in_view``."""
    return {} if place is None else dict(zip((f"{name}_at", f"{name}_instance", f"{name}_task"), place, strict=True))


@lru_cache
def bound_statement(*, after: bool) -> Statement:
    """The last place that a search examines, and whether there are entries after it."""
    return select(*_PLACE).where(*_in_view(after=after)).order_by(*_ORDER).limit(2).offset(SEARCHED_MAX - 1)


def _named(*, after: bool, until: bool) -> Statement:
    """The originators with the text in their names, of the entries that a search examines.

    Each is looked up once: an entry's originator would be looked up for each entry, and a corp may have more people
    than the search examines entries.
    """
    its = entries.alias()
    where = *_in_view(its, after=after, until=until), its.c.unnamed_originator.is_not(None)
    user_id = select(its.c.unnamed_originator).distinct().where(*where).subquery().c.unnamed_originator
    name = func.substr(people.c.search, 1, strpos(people.c.search, "\n") - 1)
    is_named = select(contains(name, _given("q"))).where(people.c.corp_id == _CORP, people.c.user_id == user_id)
    return select(user_id).where(is_named.scalar_subquery())


@lru_cache
def page_statement(
    *,
    after: bool,
    until: bool,
    q: bool,
    app_type: bool,
    source: bool,
    overdue: RuleKeys | None = None,
    marks: bool = False,
    waits_for: bool = False,
) -> Statement:
    """A page and the epoch in which it was read, which a row without an entry has if there is none."""
    where = _in_view(after=after, until=until)
    if q:
        unnamed = entries.c.unnamed_originator
        by_name = and_(unnamed.is_not(None), unnamed.in_(_named(after=after, until=until)))
        where.append(or_(contains(entries.c.search, _given("q")), by_name))
    if app_type:
        where.append(entries.c.app_type == _given("app_type"))
    if source:
        where.append(entries.c.source == _given("source"))
    if overdue is not None:
        where.append(is_overdue(overdue))
    columns = select(*_PLACE, entries.c.unnamed_originator, entries.c.instance, entries.c.number).where(*where)
    found = columns.order_by(*_ORDER).limit(_given("rows")).subquery()
    page = _with_content(found).add_columns(_EPOCH)
    if marks:
        page = page.add_columns(*mark_columns(found.c.instance_id, found.c.task_id))
    if waits_for:
        page = page.add_columns(*waits_for_columns(_CORP, found.c.instance))
    return page.select_from(select(literal(1).label("one")).subquery().outerjoin(found, true()))


def delegated_statement(delegate: Person, now: int) -> Statement:
    """The newest pending tasks that are delegated to this person, each once, and the person whose task it is."""
    columns = entries.c.unnamed_originator, entries.c.instance, entries.c.number, entries.c.user_id
    found = select(*_PLACE, *columns).distinct().where(delegated_to(delegate, now))
    return _with_content(found.order_by(*_ORDER).limit(DELEGATED_MAX).subquery(), "user_id")


def _with_content(found: Subquery, *more: str) -> Statement:
    """The places of these entries, what they show, the name of an originator without one, and more columns."""
    # Of 10,000 entries, the contents only of those found: the index has what is compared. By subqueries, because
    # PostgreSQL would join by reading all entries of the person.
    its = entries.alias()
    item = select(its.c.item).where(its.c.instance == found.c.instance, its.c.number == found.c.number)
    name = select(people.c.name).where(people.c.corp_id == _CORP, people.c.user_id == found.c.unnamed_originator)
    place = found.c.entered_at, found.c.instance_id, found.c.task_id
    shown = item.scalar_subquery().label("item"), name.scalar_subquery().label("name")
    return select(*place, *shown, *(found.c[each] for each in more))


class _FormOf(msgspec.Struct):
    """Of ``instances.state``."""

    form_uuid: str | None = None


_read_form_of = msgspec.json.Decoder(_FormOf).decode
_latest = select(entries.c.entered_at, entries.c.instance).where(_OF_PERSON, entries.c.view == _VIEW)
_latest = _latest.order_by(*_ORDER).limit(_STARTED_MAX).subquery()
_STARTED = select(_latest.c.entered_at, instances.c.state).join(instances, instances.c.id == _latest.c.instance)


def _count(view: int) -> ColumnElement[int]:
    return select(func.count()).select_from(entries).where(_OF_PERSON, entries.c.view == view).scalar_subquery()


# In SQLite, four counts take half of the time of one with groups.
COUNTS = select(*(_count(code).label(view) for view, code in CODES_BY_NAME.items()), _EPOCH)


def _newest_apps(view: int) -> Any:
    newest = select(entries.c.app_type, entries.c.source, entries.c.process_name)
    newest = newest.where(_OF_PERSON, entries.c.view == view).order_by(*_ORDER).limit(APPS_SEARCHED).subquery()
    return select(newest)


_APPS = union_all(*map(_newest_apps, CODES_BY_NAME.values()))
_INSTANCE = select(instances.c.corp_id, instances.c.state).where(instances.c.instance_id == _given("instance_id"))
_EVENTS = (
    select(events.c.data, events.c.partition, events.c.offset)
    .where(events.c.instance_id == _given("instance_id"), events.c.corp_id == _CORP)
    .order_by(events.c.received_at.desc(), events.c.offset.desc())
    .limit(HISTORY_MAX)
)
_FORM = select(forms.c.title, forms.c.labels).where(forms.c.corp_id == _CORP, forms.c.form_uuid == _given("form_uuid"))
_IMPORTED_USER = select(people.c.user_id).where(people.c.corp_id == _CORP, people.c.user_id == _given("value"))
_PREFERENCES = select(preferences.c.data).where(preferences.c.corp_id == _CORP, preferences.c.user_id == _USER)
_USERS_OF = select(person_ids.c.user_id).where(
    person_ids.c.corp_id == _CORP, person_ids.c.kind == _given("kind"), person_ids.c.value == _given("value")
)


@lru_cache
def _people(*, all_corps: bool, q: bool) -> Statement:
    found = select(people.c.corp_id, people.c.user_id, people.c.name, people.c.department)
    order: list[Any] = [people.c.corp_id, people.c.user_id]
    if not all_corps:
        found = found.where(people.c.corp_id.in_(bindparam("corps", expanding=True)))
    if q:
        found = found.where(or_(contains(people.c.search, _given("q")), people.c.user_id == _given("exact")))
        order.insert(0, case((people.c.user_id == _given("exact"), 0), else_=1))
    return found.order_by(*order).limit(_given("rows"))


class Queries:
    """What the API answers, as values for JSON."""

    def __init__(
        self,
        database: Database,
        due_rules: Callable[[], DueRules] = lambda: NO_RULES,
        now: Callable[[], int] = now_ms,
        *,
        complete: Complete,
        all_people: Callable[[Connection], AbstractContextManager[object]],
        opens_files: Callable[[str, str, str], bool] = lambda _corp, _source, _app: False,
        reads_forms: Callable[[str, str, str], bool] = lambda _corp, _source, _app: False,
    ) -> None:
        """``due_rules`` are those in force; ``all_people`` raises Filling unless all are there within its block.

        ``opens_files``: whether files of this corp, source and app can be opened. ``reads_forms``: whether its forms
        can be read as they are now.
        """
        self._database, self._due_rules, self._now = database, due_rules, now
        self._complete, self._all_people = complete, all_people
        self._opens_files, self._reads_forms = opens_files, reads_forms
        self._bound = lru_cache(_BOUNDS)(self._read_bound)

    def page(self, query: PageQuery) -> models.PageOut:
        """A page of a view, newest first; raises BadQuery if the cursor is not of this view of this user.

        What is overdue depends on the time of each request: entries that become so meanwhile are found from the start.
        """
        due = self._due_rules()
        corp_id, user_id, view = query.corp_id, query.user_id, CODES_BY_NAME[query.view]
        after = None if query.cursor is None else read_cursor(query.cursor, corp_id, user_id, view)
        given: dict[str, Any] = {"corp_id": clean(corp_id), "user_id": clean(user_id), "view": view}
        q = text_of_query(query.q)
        filters: dict[str, Any] = {
            "q": bool(q),
            "app_type": query.app_type is not None,
            "source": query.source is not None,
            # Nothing is overdue in other views.
            "overdue": (due.keys if query.view == _PENDING else ()) if query.overdue else None,
        }
        last: PageCursor | None = None
        if query.overdue or any(filters.values()):
            # A search ends after so many entries, even if it has found nothing.
            last = self._bound(*given.values(), after, int(time.monotonic() / _BOUND_S))
            given |= {"q": q, "app_type": clean(query.app_type or ""), "source": clean(query.source or "")}
        if query.overdue:
            given |= due.given(self._now())
        given |= {"rows": query.limit + 1, **_values("after", after), **_values("until", last)}
        more = {"marks": query.marks, "waits_for": query.view == _CREATED}
        statement = page_statement(after=after is not None, until=last is not None, **filters, **more)
        with self._database.read() as connection, self._complete(connection) as seen:
            rows = connection.execute(statement, given).mappings().all()
            seen(rows[0]["epoch"])
        rows = [row for row in rows if row["instance_id"] is not None]
        shown = _in_order(rows)[: query.limit]
        if len(rows) > query.limit:
            last = PageCursor(*(shown[-1][each] for each in PageCursor._fields))
        next_cursor = None if last is None else write_cursor(corp_id, user_id, view, last)
        item = _marked_item if query.marks else _item
        return {"items": [item(row, query.view, due) for row in shown], "next_cursor": next_cursor}

    def marked(self, person: Person, view: models.ViewName) -> models.MarkedOut:
        """The pinned and the hidden entries of a view, newest first."""
        due, (corp_id, user_id) = self._due_rules(), map(clean, person)
        given = {"corp_id": corp_id, "user_id": user_id, "view": CODES_BY_NAME[view], "now": now_ms()}
        with self._database.read() as connection, self._complete(connection):
            rows = connection.execute(listed_statement(waits_for=view == _CREATED), given).mappings().all()
        each_once = {(row["instance_id"], row["task_id"]): row for row in rows}
        return {"items": [_marked_item(row, view, due) for row in _in_order(each_once.values())]}

    def delegated(self, delegate: Person) -> models.DelegatedOut:
        """The newest pending tasks of others that are delegated to this person now, and on behalf of whom."""
        due, now = self._due_rules(), self._now()
        corp_id, user_id = map(clean, delegate)
        with self._database.read() as connection, self._complete(connection):
            statement = delegated_statement((corp_id, user_id), now)
            rows = connection.execute(statement, {"corp_id": corp_id}).mappings().all()
            names = names_of(connection, corp_id, {row["user_id"] for row in rows})
        items: list[models.DelegatedItemOut] = [
            {
                **_item(row, _PENDING, due),
                "on_behalf_of": {"user_id": (user := row["user_id"]), "name": names.get(user)},
            }
            for row in _in_order(rows)
        ]
        return {"items": items}

    def _read_bound(
        self, corp_id: str, user_id: str, view: int, after: PageCursor | None, _period: int
    ) -> PageCursor | None:
        """The last place that a search examines; None where it examines all entries.

        To find it takes as long as the search: it is remembered for the next word that a person types. Entries that
        come or go meanwhile change how many are examined, and not which are found.
        """
        given = {"corp_id": corp_id, "user_id": user_id, "view": view, **_values("after", after)}
        with self._database.read() as connection:
            bound = connection.execute(bound_statement(after=after is not None), given).all()
        return PageCursor(*bound[0]) if len(bound) > 1 else None

    def counts(self, corp_id: str, user_id: str) -> models.CountsOut:
        with self._database.read() as connection, self._complete(connection) as seen:
            row = connection.execute(COUNTS, {"corp_id": clean(corp_id), "user_id": clean(user_id)}).mappings().one()
            seen(row["epoch"])
        return {
            "created": row["created"],
            "pending": row["pending"],
            "handled": row["handled"],
            "copied": row["copied"],
        }

    def apps(self, corp_id: str, user_id: str) -> models.AppsOut:
        """Each app of the APPS_SEARCHED newest entries of every view, once for each of its processes.

        Without a process' name only where no entry of the app has one.
        """
        with self._database.read() as connection, self._complete(connection):
            rows = connection.execute(_APPS, {"corp_id": clean(corp_id), "user_id": clean(user_id)}).mappings().all()
        names: dict[tuple[str, str], set[str]] = {}
        for row in rows:
            found = names.setdefault((row["app_type"], row["source"]), set())
            if row["process_name"] is not None:
                found.add(row["process_name"])
        items: list[models.AppOut] = [
            {"app_type": app_type, "process_name": name, "source": source}
            for app_type, source in sorted(names)
            for name in sorted(names[app_type, source]) or [None]
        ]
        return {"items": items}

    def instance(self, instance_id: str, caller: Caller) -> models.InstanceOut:
        """The instance's state; raises Unknown as ``find_state``."""
        with self._database.read() as connection, self._complete(connection):
            return shown_instance(connection, find_state(connection, instance_id, caller))

    def state(self, instance_id: str, caller: Caller) -> TaskState:
        """Raises Unknown as ``find_state``."""
        with self._database.read() as connection, self._complete(connection):
            return find_state(connection, instance_id, caller)

    def history(self, instance_id: str, caller: Caller, *, now_ms: int = LAST_MS) -> models.HistoryOut:
        """The instance's last events, oldest first, and its form.

        Raises EventsBehind if the state is of the last BEHIND_MS, and of a later event than these.
        """
        with self._database.read() as connection, self._complete(connection):
            state = find_state(connection, instance_id, caller)
            app = state.corp_id, state.source, state.app_type
            may = {"opens_files": self._opens_files(*app), "reads_form": self._reads_forms(*app)}
            return shown_history(connection, state, now_ms=now_ms, **may)

    def start(
        self, instance_id: str, caller: Caller, *, now_ms: int = LAST_MS
    ) -> tuple[TaskState, Mapping[str, str | None]]:
        """The instance, and its form in the earliest event that has one. Raises as ``history``."""
        with self._database.read() as connection, self._complete(connection):
            state = find_state(connection, instance_id, caller)
            found = [event for event, _, _ in _last_events(connection, state.instance_id, state.corp_id)]
        _check_not_behind(state, found, now_ms)
        return state, next((each.form_data for each in found if each.form_data), dict[str, str | None]())

    def file(self, instance_id: str, caller: Caller, place: str, number: int) -> tuple[TaskState, FormFile]:
        """A file of the instance's form. Raises Unknown as ``find_state``, and if the form has no such file."""
        with self._database.read() as connection, self._complete(connection):
            state = find_state(connection, instance_id, caller)
            form_of = latest_form(event for event, _, _ in _last_events(connection, state.instance_id, state.corp_id))
        files = [] if form_of is None else files_of(form_of.form_data).get(place, [])
        if number >= len(files):
            raise Unknown("the form has no such file any more: load the page again")
        return state, files[number]

    def people(self, q: str, corps: Collection[str], limit: int) -> models.PeopleOut:
        """The first ``limit`` people of these corps with ``q`` in name, department or user id.

        Those whose user id is exactly ``q`` come first.
        """
        text, all_corps = text_of_query(q), ALL_CORPS in corps
        given = {"q": text, "exact": clean(q.strip()), "corps": list(corps), "rows": limit}
        with self._database.read() as connection, self._all_people(connection):
            rows = connection.execute(_people(all_corps=all_corps, q=bool(text)), given)
            items: list[models.FoundPersonOut] = [
                {"corp_id": corp_id, "user_id": user_id, "name": name, "department": department}
                for corp_id, user_id, name, department in rows
            ]
        return {"items": items}

    def users_of(self, corp_id: str, kind: str | None, value: str) -> Sequence[str]:
        """The users of a corp who have this id of this kind; None is the user id itself."""
        given = {"corp_id": clean(corp_id), "value": clean(value)}
        with self._database.read() as connection:
            if kind is None:
                return connection.execute(_IMPORTED_USER, given).scalars().all()
            return connection.execute(_USERS_OF, {**given, "kind": clean(kind)}).scalars().all()

    def last_started(self, person: Person) -> dict[str, int]:
        """By form, when the person started it last, of their latest requests."""
        corp_id, user_id = map(clean, person)
        given = {"corp_id": corp_id, "user_id": user_id, "view": CODES_BY_NAME[_CREATED]}
        with self._database.read() as connection, self._complete(connection):
            rows = connection.execute(_STARTED, given).all()
        found: dict[str, int] = {}
        for row in rows:
            if (form := _read_form_of(row.state).form_uuid) is not None:
                found[form] = max(row.entered_at, found.get(form, 0))
        return found

    def form_titles(self, corp_id: str, form_uuids: Iterable[str]) -> dict[str, str]:
        """As far as the topic of forms has them."""
        its = forms.c.corp_id == clean(corp_id), self._database.among(forms.c.form_uuid), forms.c.title.is_not(None)
        titles = select(forms.c.form_uuid, forms.c.title).where(*its)
        with self._database.read() as connection:
            found = connection.execute(titles, self._database.keys(map(clean, form_uuids)))
            return {row.form_uuid: row.title for row in found}

    def names(self, corp_id: str, user_ids: Iterable[str]) -> dict[str, str]:
        with self._database.read() as connection:
            return names_of(connection, clean(corp_id), map(clean, user_ids))

    def name_and_preferences_of(self, corp_id: str, user_id: str) -> tuple[str | None, models.Preferences]:
        corp_id, user_id = clean(corp_id), clean(user_id)
        with self._database.read() as connection:
            name = names_of(connection, corp_id, [user_id]).get(user_id)
            data = connection.execute(_PREFERENCES, {"corp_id": corp_id, "user_id": user_id}).scalar()
        return name, {**models.NO_PREFERENCES, **_read_preferences(data or b"{}")}


def _in_order(rows: Iterable[RowMapping]) -> list[RowMapping]:
    """Newest first. SQL promises no order of a subquery in order; Python compares ids as the databases do."""
    return sorted(rows, key=lambda row: (-row["entered_at"], row["instance_id"], row["task_id"]))


def _item(row: RowMapping, view: models.ViewName, due: DueRules) -> models.ItemOut:
    return _shown(row, read_entry(row["item"]), view, due)


def _marked_item(row: RowMapping, view: models.ViewName, due: DueRules) -> models.MarkedItemOut:
    """With the marks that the row has."""
    entry = read_entry(row["item"])
    return {**_shown(row, entry, view, due), "marks": marks_json(row, view, entry, now_ms())}


def _shown(row: RowMapping, entry: Entry, view: models.ViewName, due: DueRules) -> models.ItemOut:
    due_at = None
    if view == _PENDING and entry.finished_at is None:  # what has ended at its source is not due
        due_at = due.due_at(entry.app_type, entry.process_name, entry.entered_at, entry.due_at)
    place = row["instance_id"], row["task_id"] or None
    waits = waits_for_json(row) if view == _CREATED else None
    return item_json(*place, view, entry, row["name"], due_at, waits)


def shown_instance(connection: Connection, state: TaskState) -> models.InstanceOut:
    names = names_of(connection, state.corp_id, users_of_state(state))
    return state_json(state, names, _form(connection, state))


def shown_events(connection: Connection, instance_id: str, corp_id: str) -> tuple[list[TaskEvent], models.EventsOut]:
    """The last events of an instance, oldest first: themselves, and as the API shows them and the people in them."""
    found = _last_events(connection, instance_id, corp_id)
    shown = [event for event, _, _ in found]
    names = names_of(connection, corp_id, users_of_events(shown))
    return shown, {
        "events": [event_json(event, partition=at, offset=offset) for event, at, offset in found],
        "people": people_json(users_of_events(shown), names),
    }


def _last_events(connection: Connection, instance_id: str, corp_id: str) -> list[tuple[TaskEvent, int, int]]:
    """Each with its partition and offset, oldest first."""
    rows = connection.execute(_EVENTS, {"instance_id": clean(instance_id), "corp_id": corp_id}).all()
    found = [(_read_event(data), partition, offset) for data, partition, offset in rows]
    return sorted(found, key=lambda each: (each[0].occurred_at, each[2]))


def shown_history(
    connection: Connection,
    state: TaskState,
    *,
    now_ms: int = LAST_MS,
    opens_files: bool = False,
    reads_form: bool = False,
) -> models.HistoryOut:
    """As the API shows it; raises EventsBehind as ``Queries.history``."""
    found, shown = shown_events(connection, state.instance_id, state.corp_id)
    _check_not_behind(state, found, now_ms)
    form_of = latest_form(found)
    values = {} if form_of is None else dict(form_of.form_data)
    began_at = began_at_of(state)
    return {
        "instance_id": state.instance_id,
        "corp_id": state.corp_id,
        "form": values,
        **form_json(_form(connection, state), values),
        "form_of": None if form_of is None else form_of.event_id,
        "files": files_json(values),
        "opens_files": opens_files,
        "reads_form": reads_form,
        **shown,
        "complete": len(found) < HISTORY_MAX and any(began_at in (each.occurred_at, each.created_at) for each in found),
    }


def _check_not_behind(state: TaskState, found: Iterable[TaskEvent], now_ms: int) -> None:
    if now_ms - state.updated_at < BEHIND_MS and all(each.occurred_at < state.updated_at for each in found):
        raise EventsBehind("the latest event of this instance is not read yet")


def latest_form(shown: Iterable[TaskEvent]) -> TaskEvent | None:
    """The event whose form is the instance's: the latest create or cc that has any values."""
    with_form = [each for each in shown if each.form_data and each.action in (Action.CREATED, Action.COPIED)]
    return max(with_form, key=lambda each: (each.occurred_at, each.event_id), default=None)


def find_state(connection: Connection, instance_id: str, caller: Caller) -> TaskState:
    """Raises Unknown if it does not exist, is deleted, or this caller may not see it."""
    row = connection.execute(_INSTANCE, {"instance_id": clean(instance_id)}).first()
    if row is not None and caller.may_see(row[0]):
        state = read_state(row[1])
        if caller.user_id is None or caller.is_operator or concerns(state, caller.user_id):
            return state
        if is_delegated(connection, state.instance_id, (state.corp_id, caller.user_id), now=now_ms()):
            return state
    raise Unknown("no such instance, or this caller may not read it")


def _form(connection: Connection, state: TaskState) -> Form | None:
    if state.form_uuid is None:
        return None
    row = connection.execute(_FORM, {"corp_id": state.corp_id, "form_uuid": state.form_uuid}).first()
    return None if row is None else Form(state.form_uuid, row[0], _read_labels(row[1]))
