"""Delegations: for a time, somebody sees the pending tasks of another person, and decides them on their behalf."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select

from taskbridge.center.access.audit import append_of
from taskbridge.center.tables import (
    VIEW_CODES,
    Person,
    among_its_entries,
    delegations,
    entries,
    lock_of,
    of_instance,
    of_person,
    people,
)
from taskbridge.runtime.database import Database, clean
from taskbridge.runtime.refusals import BadQuery, Unknown
from taskbridge.schemas.events import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.center.access.access import Caller
    from taskbridge.center.tables import Complete

    Also = Callable[[Connection, "Delegation"], None]

DELEGATED, UNDELEGATED, ACTED_FOR = "delegated", "undelegated", "acted_for"
"""In the audit trail."""
ALL = ""
"""As an app or process: each."""
LONGEST_MS = 366 * 24 * 3600 * 1000
MOST = 20
"""Delegations of one person."""


_COVERS = and_(
    or_(delegations.c.app_type == ALL, delegations.c.app_type == entries.c.app_type),
    or_(delegations.c.process_name == ALL, delegations.c.process_name == entries.c.process_name),
)


class Delegation(NamedTuple):
    """A row, in the order of the columns."""

    delegation_id: str
    corp_id: str
    user_id: str
    delegate_id: str
    app_type: str
    process_name: str
    starts_at: int
    ends_at: int

    def covers(self, app_type: str, process_name: str | None) -> bool:
        return self.app_type in (ALL, app_type) and self.process_name in (ALL, process_name)


class Delegations:
    """Every method blocks, and raises DatabaseUnavailable if the database does not answer."""

    def __init__(self, database: Database, complete: Complete) -> None:
        self._database, self._complete = database, complete

    def add(
        self, caller: Caller, wanted: Delegation, *, address: str, now: int, also: Also | None = None
    ) -> Delegation:
        """Store a delegation by the caller, with the audit trail; its id is chosen here. Those that ended are deleted.

        ``also`` is part of the transaction. Raises BadQuery, which says whether the delegate is not known, the times
        are wrong, or there are too many; and what ``also`` raises.
        """
        corp_id, user_id = wanted.corp_id, wanted.user_id
        if not 0 < wanted.ends_at - wanted.starts_at <= LONGEST_MS or wanted.ends_at <= now:
            raise BadQuery("a delegation must end after its start, in the future, and within a year")
        delegate_id, app_type, process_name = map(clean, (wanted.delegate_id, wanted.app_type, wanted.process_name))
        found = wanted._replace(
            delegation_id=uuid.uuid4().hex, delegate_id=delegate_id, app_type=app_type, process_name=process_name
        )
        # While topics are read again, the delegate may not be known yet.
        with self._database.write() as connection, self._complete(connection):
            self._database.lock(connection, lock_of((corp_id, user_id)))
            if delegate_id == user_id or not is_known(connection, (corp_id, delegate_id)):
                raise BadQuery("the delegate must be another person who was imported")
            own = of_person(delegations, (corp_id, user_id))
            connection.execute(delete(delegations).where(own, delegations.c.ends_at <= now))
            count = connection.execute(select(func.count()).select_from(delegations).where(own)).scalar_one()
            if count >= MOST:
                raise BadQuery(f"there are {MOST} delegations already: end one first")
            connection.execute(insert(delegations).values(found._asdict()))
            if also is not None:
                also(connection, found)
            append_of(connection, self._database, caller, DELEGATED, (corp_id, found.delegate_id), address=address)
        return found

    def end(
        self, caller: Caller, person: Person, delegation_id: str, *, address: str, also: Also | None = None
    ) -> None:
        """End a delegation by this person, with the audit trail and ``also``. Raises Unknown if there is none."""
        its = and_(delegations.c.delegation_id == delegation_id, of_person(delegations, person))
        with self._database.write() as connection:
            self._database.lock(connection, lock_of(person))
            row = connection.execute(delete(delegations).where(its).returning(*delegations.c)).first()
            if row is None:
                raise Unknown("no such delegation")
            gone = Delegation(*row)
            if also is not None:
                also(connection, gone)
            append_of(connection, self._database, caller, UNDELEGATED, (person[0], gone.delegate_id), address=address)

    def given(self, person: Person, *, now: int) -> list[Delegation]:
        """By this person, not ended yet."""
        own = of_person(delegations, person), delegations.c.ends_at > now
        with self._database.read() as connection:
            query = select(delegations).where(*own).order_by(delegations.c.starts_at)
            return [Delegation(*row) for row in connection.execute(query)]


def is_known(connection: Connection, person: Person) -> bool:
    """Whether this person was imported."""
    return connection.execute(select(people.c.user_id).where(of_person(people, person))).first() is not None


def active(connection: Connection, delegate: Person, *, now: int) -> list[Delegation]:
    """The delegations to this person that are under way."""
    query = select(delegations).where(_to(delegate, now)).order_by(delegations.c.user_id, delegations.c.starts_at)
    return [Delegation(*row) for row in connection.execute(query)]


def is_delegated(connection: Connection, instance_id: str, delegate: Person, *, now: int) -> bool:
    """Whether a pending task of the instance is delegated to this person now."""
    query = select(entries.c.instance).where(
        _to(delegate, now),
        of_instance(instance_id),
        among_its_entries(corp_id=delegations.c.corp_id, user_id=delegations.c.user_id, view=VIEW_CODES[View.PENDING]),
        _COVERS,
    )
    return connection.execute(query.limit(1)).first() is not None


def delegated_to(delegate: Person, now: int) -> ColumnElement[bool]:
    """Joins each delegation to this person that is under way to the pending entries that it covers."""
    return and_(
        _to(delegate, now),
        entries.c.corp_id == delegations.c.corp_id,
        entries.c.user_id == delegations.c.user_id,
        entries.c.view == VIEW_CODES[View.PENDING],
        _COVERS,
    )


def _to(delegate: Person, now: int) -> ColumnElement[bool]:
    corp_id, user_id = delegate
    return and_(
        delegations.c.corp_id == corp_id,
        delegations.c.delegate_id == user_id,
        delegations.c.starts_at <= now,
        delegations.c.ends_at > now,
    )
