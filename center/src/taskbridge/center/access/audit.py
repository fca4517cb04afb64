"""The audit trail: who signed in or out, changed something, or looked at somebody else's tasks.

Each row has a hash of itself and of the row before, so that a changed or removed row shows. The log has the hashes too:
who can rewrite the whole table cannot rewrite the log elsewhere. When old rows are deleted, a new row says so first.

Rows and log name people by random pseudonyms. A table of its own says who that is, so that a person can be erased and
every row stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from sqlalchemy import ColumnElement, Connection, Select, and_, delete, exists, insert, or_, select, tuple_, union_all

from taskbridge.center.tables import Person, audit, of_person, people, pseudonyms
from taskbridge.runtime.database import Database, Threads, clean, now_ms
from taskbridge.runtime.rates import PerSource
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.center.access.access import Caller

SIGNED_IN, SIGNED_OUT, READ, EXPORTED = "signed_in", "signed_out", "read", "exported"
FILE_OPENED = "file_opened"
"""Its subject is the instance, a space, and the file's place and number."""
ASSISTANT_READ = "assistant_read"
"""A person read by an assistant, whose client is the subject; or a program about a person, who is."""
PROPOSED, CONFIRMED, DISCARDED = "decision_proposed", "proposal_confirmed", "proposal_discarded"
"""Their subject is the proposal, a space, and the client."""
DECIDED = "proposal_decided_by_rule"
"""Its subject is the proposal, the client, and the administrator's rule that needed no confirmation."""
REFUSED, ALLOWED = "assistant_refused", "assistant_allowed"
"""By an operator; the client is the subject."""
DELETED, ERASED, SESSIONS_ENDED = "audit_deleted", "person_erased", "sessions_ended"
_LOCK = 0x61756474
"""PostgreSQL's advisory lock: rows are added one after the other."""
_SESSION_DIGITS = 12
_READ_AGAIN_S = 3600.0
"""Somebody who reads a list every few seconds is recorded this often."""
_DAY_MS = 86_400_000
_PART = 10_000
_LAST = select(audit.c.seq, audit.c.sha256).order_by(audit.c.seq.desc()).limit(1)
_PSEUDONYM = "person-"
_IS_PSEUDONYM = re.compile(rf"{_PSEUDONYM}[0-9a-f]{{16}}").fullmatch
_PLACE = audit.c.at, audit.c.seq
_NEWEST_FIRST = audit.c.at.desc(), audit.c.seq.desc()

log = structlog.get_logger(__name__)


class AuditEntry(NamedTuple):
    """A row, in the order of the columns."""

    seq: int
    at: int
    corp_id: str
    actor: str
    action: str
    subject: str
    address: str
    session: str
    sha256: str

    def hash_after(self, before: str) -> str:
        """What ``sha256`` must be, after a row with the hash ``before``."""
        return hashlib.sha256(json.dumps([before, *self[:-1]], ensure_ascii=True).encode()).hexdigest()


class AuditQuery(NamedTuple):
    """Which entries: those by or about a person, of an action, from a time on and before another, after a place."""

    limit: int
    before: int | None = None
    """Only what follows the entry with this number, newest first."""
    person: Person | None = None
    action: str | None = None
    since: int | None = None
    until: int | None = None


class Audit:
    """Every method raises DatabaseUnavailable if the database does not answer."""

    def __init__(self, database: Database, threads: Threads) -> None:
        self._database, self._threads = database, threads
        self._read_at = PerSource[list[float]](lambda: [-_READ_AGAIN_S])

    async def add(self, caller: Caller, action: str, subject: Person | str = "", *, address: str) -> None:
        """Record what a caller is about to do: before its effect, so that nothing happens unrecorded."""

        def write() -> None:
            with self._database.write() as connection:
                append_of(connection, self._database, caller, action, subject, address=address)

        await self._threads.write(write)

    async def add_read(self, caller: Caller, subject: Person | str, *, address: str) -> None:
        """Record that a person reads what is another's, at most once an hour for each session and subject."""
        last = self._read_at.of((caller.rate_key, caller.session, subject))
        if last[0] + _READ_AGAIN_S <= (now := time.monotonic()):
            await self.add(caller, READ, subject, address=address)
            last[0] = now

    async def page(self, query: AuditQuery) -> Sequence[dict[str, Any]]:
        """These entries, newest first, as auditors see them: with the ids and names of people who are not erased."""

        def read() -> Sequence[dict[str, Any]]:
            with self._database.read() as connection:
                return _page(connection, query)

        return await self._threads.run(read)


def append_of(
    connection: Connection, database: Database, caller: Caller, action: str, subject: Person | str, *, address: str
) -> None:
    """Add an entry about what a caller does, in the transaction of what it is about."""
    session = "" if caller.session is None else caller.session.token_sha256[:_SESSION_DIGITS]
    who: Person | str = caller.name or ""
    if caller.corp_id is not None and caller.user_id is not None:
        who = caller.corp_id, caller.user_id
    append(connection, database, who, action, subject, address=address, session=session)


def append(
    connection: Connection,
    database: Database,
    who: Person | str,
    action: str,
    subject: Person | str = "",
    *,
    address: str = "",
    session: str = "",
) -> AuditEntry:
    """Add an entry in the transaction of what it is about. People, as actor or subject, get their pseudonyms."""
    database.lock(connection, _LOCK)
    corp_id = clean(who[0]) if isinstance(who, tuple) else ""
    actor, subject = (_named(connection, each) for each in (who, subject))
    seq, before = connection.execute(_LAST).first() or (0, "")
    entry = AuditEntry(seq + 1, now_ms(), corp_id, actor, action, subject, address, session, "")
    entry = entry._replace(sha256=entry.hash_after(before))
    connection.execute(insert(audit).values(entry._asdict()))
    log.info("audit_entry_added", **entry._asdict())
    return entry


def _named(connection: Connection, given: Person | str) -> str:
    """A text as it is, and a person's pseudonym, which is made at its first use."""
    if isinstance(given, str):
        return clean(given)
    found = pseudonym_of(connection, given)
    if found is None:
        found = _PSEUDONYM + secrets.token_hex(8)
        corp_id, user_id = map(clean, given)
        connection.execute(insert(pseudonyms).values(pseudonym=found, corp_id=corp_id, user_id=user_id))
    return found


def pseudonym_of(connection: Connection, person: Person) -> str | None:
    corp_id, user_id = map(clean, person)
    its = of_person(pseudonyms, (corp_id, user_id))
    return connection.execute(select(pseudonyms.c.pseudonym).where(its)).scalar()


def about_person(connection: Connection, person: Person) -> Sequence[ColumnElement[bool]]:
    """Which entries are by or about a person. Each condition has an index that serves it."""
    pseudonym = pseudonym_of(connection, person)
    return () if pseudonym is None else (audit.c.actor == pseudonym, audit.c.subject == pseudonym)


_ACTOR, _SUBJECT = pseudonyms.alias("of_actor"), pseudonyms.alias("of_subject")
_WHO, _WHOM = people.alias("who"), people.alias("whom")


def _is(person: Any, pseudonym: Any) -> ColumnElement[bool]:
    return and_(person.c.corp_id == pseudonym.c.corp_id, person.c.user_id == pseudonym.c.user_id)


_SHOWN = select(
    *audit.c, _ACTOR.c.user_id, _WHO.c.name, _SUBJECT.c.corp_id, _SUBJECT.c.user_id, _WHOM.c.name
).select_from(
    audit.outerjoin(_ACTOR, _ACTOR.c.pseudonym == audit.c.actor)
    .outerjoin(_WHO, _is(_WHO, _ACTOR))
    .outerjoin(_SUBJECT, _SUBJECT.c.pseudonym == audit.c.subject)
    .outerjoin(_WHOM, _is(_WHOM, _SUBJECT))
)


def _page(connection: Connection, query: AuditQuery) -> Sequence[dict[str, Any]]:
    where: list[ColumnElement[bool]] = []
    if query.action is not None:
        where.append(audit.c.action == clean(query.action))
    if query.since is not None:
        where.append(audit.c.at >= query.since)
    if query.until is not None:
        where.append(audit.c.at < query.until)
    if query.before is not None:
        at = select(audit.c.at).where(audit.c.seq <= query.before).order_by(audit.c.seq.desc()).limit(1)
        where.append(tuple_(*_PLACE) < (connection.execute(at).scalar() or 0, query.before))

    def newest(found: Select[*tuple[Any, ...]], *its: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
        return found.where(*its, *where).order_by(*_NEWEST_FIRST).limit(query.limit)

    shown = newest(_SHOWN)
    if query.person is not None:
        # Of each index the newest entries: with all conditions at once, a database may read the whole table.
        if not (conditions := about_person(connection, query.person)):
            return []
        numbers = union_all(*(select(newest(select(audit.c.seq), each).subquery()) for each in conditions))
        shown = _SHOWN.where(audit.c.seq.in_(numbers)).order_by(*_NEWEST_FIRST).limit(query.limit)
    return [_shown(row) for row in connection.execute(shown)]


def _shown(row: Sequence[Any]) -> dict[str, Any]:
    entry = AuditEntry(*row[: len(AuditEntry._fields)])
    user_id, name, corp_id_about, user_id_about, name_about = row[len(AuditEntry._fields) :]
    return {
        **entry._asdict(),
        "at": iso(entry.at),
        "actor": user_id or entry.actor,
        "actor_name": name,
        "subject": entry.subject if user_id_about is None else f"{corp_id_about}/{user_id_about}",
        "subject_name": name_about,
        "is_about_person": _IS_PSEUDONYM(entry.subject) is not None,
    }


def purge(database: Database, *, days: int) -> int:
    """Delete what is older, in one transaction with a row that says so; returns how many.

    Pseudonyms go with their last entries.
    """
    is_old = audit.c.at < now_ms() - days * _DAY_MS
    with database.write() as connection:
        last = connection.execute(_LAST.where(is_old)).first()
        if last is None:
            return 0
        append(connection, database, "", DELETED, f"{last.seq} {last.sha256}")
        count = connection.execute(delete(audit).where(audit.c.seq <= last.seq)).rowcount
        its = or_(audit.c.actor == pseudonyms.c.pseudonym, audit.c.subject == pseudonyms.c.pseudonym)
        connection.execute(delete(pseudonyms).where(~exists().where(its)))
        return count


class Logged(NamedTuple):
    """An entry as the log has it, where nobody who can rewrite the table can rewrite it."""

    seq: int
    sha256: str


def verify(database: Database, logged: Logged | None = None) -> tuple[int, int | None]:
    """The number of rows, and the first that is changed, or follows one that is missing; None if there is none.

    ``logged``: an entry that the trail must have. Without it, nothing shows that the last ones are missing.
    """
    count, before, expected = 0, "", 1
    with database.read() as connection:
        gone = connection.execute(
            select(audit.c.subject).where(audit.c.action == DELETED).order_by(audit.c.seq.desc()).limit(1)
        ).scalar()
        if gone is not None:
            seq, _, before = gone.partition(" ")
            expected = int(seq) + 1
        if logged is not None and logged.seq < expected:
            raise ConfigurationError(
                f"entry {logged.seq} of the audit trail was deleted as too old: give an entry from {expected} on"
            )
        while True:
            rows = connection.execute(
                select(audit).where(audit.c.seq >= expected).order_by(audit.c.seq).limit(_PART)
            ).all()
            for entry in (AuditEntry(*row) for row in rows):
                is_other = logged is not None and logged.seq == entry.seq and logged.sha256 != entry.sha256
                if entry.seq != expected or entry.sha256 != entry.hash_after(before) or is_other:
                    return count, entry.seq
                count, expected, before = count + 1, expected + 1, entry.sha256
            if len(rows) < _PART:
                return count, expected if logged is not None and logged.seq >= expected else None
