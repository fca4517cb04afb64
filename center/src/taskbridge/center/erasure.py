"""Erasing a person: what the database holds about them, but for what must be kept.

The audit trail keeps its entries under a pseudonym, which nobody can resolve from then on. Lists and histories follow
the topics, and belong to requests: they keep the ids that the topics have.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, delete, false, func, or_, select

from taskbridge.center.access.audit import ERASED, AuditEntry, about_person, append
from taskbridge.center.access.sessions import refuse_tokens
from taskbridge.center.tables import PERSONAL, Person, audit, entries, lock_of, people, person_ids, pseudonyms
from taskbridge.runtime.database import Database, clean, in_key_order

_ERASED = (person_ids.c.user_id, people.c.user_id, *(each for each in PERSONAL if each is not pseudonyms.c.user_id))
"""In this order: ids belong to people."""


class Erased(NamedTuple):
    deleted: Counter[str]
    """Rows by table."""
    entry: AuditEntry
    """Of the audit trail, which says so."""
    pseudonymous: int
    """Entries of the audit trail that were theirs, and are nobody's now."""


class Erasure:
    """Every method raises DatabaseUnavailable if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, person: Person) -> Counter[str] | None:
        """The rows that would be deleted, by table; None if nothing is known of this person, also no list entry."""
        with self._database.read() as connection:
            found: Counter[str] = Counter()
            for each in (*_ERASED, pseudonyms.c.user_id):
                found[each.table.name] += _count(connection, each.table, _is(each, person))
            its = _is(entries.c.user_id, person)
            listed = connection.execute(select(entries.c.instance).where(its).limit(1)).first()
        return None if listed is None and not +found else +found

    def erase(self, person: Person) -> Erased:
        """Delete them, in one transaction with the entry that says so. Sessions, streams and access tokens end.

        Safe to repeat. Somebody who signs in again is known again, by another pseudonym.
        """
        with self._database.write() as connection:
            self._database.lock(connection, lock_of(person))
            pseudonymous = _count(connection, audit, or_(false(), *about_person(connection, person)))
            deleted: Counter[str] = Counter()
            corp_id, user_id = map(clean, person)
            # Before the sessions, as where a person signs out.
            connection.execute(refuse_tokens(self._database, (corp_id, user_id)))
            for each in _ERASED:
                deleted[each.table.name] += _delete(connection, each, person)
            # The trail's lock is the last one, and pseudonyms belong to it.
            entry = append(connection, self._database, "", ERASED, person)
            deleted[pseudonyms.name] += _delete(connection, pseudonyms.c.user_id, person)
        return Erased(+deleted, entry, pseudonymous)


def _is(user_id: Column[str], person: Person) -> ColumnElement[bool]:
    corp, user = map(clean, person)
    return and_(user_id.table.c.corp_id == corp, user_id == user)


def _delete(connection: Connection, user_id: Column[str], person: Person) -> int:
    table = user_id.table
    return connection.execute(delete(table).where(in_key_order(table, _is(user_id, person)))).rowcount


def _count(connection: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one()
