"""The audit trail: who signed in or out, changed something, or looked at somebody else's tasks.

Each row has a hash of itself and of the row before, so that a changed or removed row shows. The log has the hashes too:
who can rewrite the whole table cannot rewrite the log elsewhere. When old rows are deleted, a new row says so first.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from sqlalchemy import delete, insert, select

from taskbridge.center.tables import audit
from taskbridge.runtime.database import DatabaseUnavailable, clean, now_ms
from taskbridge.runtime.rates import PerSource
from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from taskbridge.center.access.access import Caller
    from taskbridge.runtime.database import Database, Threads

SIGNED_IN, SIGNED_OUT, READ, EXPORTED = "signed_in", "signed_out", "read", "exported"
DELETED = "audit_deleted"
_LOCK = 0x61756474
"""PostgreSQL's advisory lock: rows are added one after the other."""
_SESSION_DIGITS = 12
_READ_AGAIN_S = 3600.0
"""Somebody who reads a list every few seconds is recorded this often."""
_DAY_MS = 86_400_000
_PURGE_S = 3600.0
_PART = 10_000
_LAST = select(audit.c.seq, audit.c.sha256).order_by(audit.c.seq.desc()).limit(1)

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

    def shown(self) -> dict[str, Any]:
        return {**self._asdict(), "at": iso(self.at)}


class Audit:
    """Every method raises DatabaseUnavailable if the database does not answer."""

    def __init__(self, database: Database, threads: Threads) -> None:
        self._database, self._threads = database, threads
        self._read_at = PerSource[list[float]](lambda: [-_READ_AGAIN_S])

    async def add(self, caller: Caller, action: str, subject: str = "", *, address: str) -> None:
        """Record what a caller is about to do: before its effect, so that nothing happens unrecorded."""
        await self._threads.run(self._add, caller, action, subject, address)

    async def add_read(self, caller: Caller, subject: str, *, address: str) -> None:
        """Record that a person reads what is another's, at most once an hour for each session and subject."""
        last = self._read_at.of((caller.rate_key, caller.session, subject))
        if last[0] + _READ_AGAIN_S <= (now := time.monotonic()):
            await self.add(caller, READ, subject, address=address)
            last[0] = now

    async def watch(self, *, days: int) -> None:
        """Delete what is older, once an hour, until cancelled."""
        while True:
            with suppress(DatabaseUnavailable):
                await self._threads.run(lambda: purge(self._database, days=days))
            await asyncio.sleep(_PURGE_S)

    async def page(self, *, before: int | None, limit: int) -> Sequence[AuditEntry]:
        """The latest entries, or those before a number; the latest first."""
        query = select(audit).order_by(audit.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.seq < before)

        def read() -> Sequence[AuditEntry]:
            with self._database.read() as connection:
                return [AuditEntry(*row) for row in connection.execute(query)]

        return await self._threads.run(read)

    def _add(self, caller: Caller, action: str, subject: str, address: str) -> None:
        session = "" if caller.session is None else caller.session.token_sha256[:_SESSION_DIGITS]
        who = clean(caller.corp_id or ""), clean(caller.user_id or caller.name or "")
        with self._database.write() as connection:
            _append(connection, self._database, who, action, clean(subject), address, session)


def _append(  # noqa: PLR0917 - the columns
    connection: Connection,
    database: Database,
    who: tuple[str, str],
    action: str,
    subject: str,
    address: str = "",
    session: str = "",
) -> None:
    database.lock(connection, _LOCK)
    seq, before = connection.execute(_LAST).first() or (0, "")
    entry = AuditEntry(seq + 1, now_ms(), *who, action, subject, address, session, "")
    entry = entry._replace(sha256=entry.hash_after(before))
    connection.execute(insert(audit).values(entry._asdict()))
    log.info("audit_entry_added", **entry._asdict())


def purge(database: Database, *, days: int) -> int:
    """Delete what is older, in one transaction with a row that says so; returns how many.

    Raises:
        DatabaseUnavailable: Nothing was deleted.
    """
    is_old = audit.c.at < now_ms() - days * _DAY_MS
    with database.write() as connection:
        last = connection.execute(_LAST.where(is_old)).first()
        if last is None:
            return 0
        _append(connection, database, ("", ""), DELETED, f"{last.seq} {last.sha256}")
        return connection.execute(delete(audit).where(audit.c.seq <= last.seq)).rowcount


def verify(database: Database) -> tuple[int, int | None]:
    """The number of rows, and the first that is changed, or follows one that is missing; None if there is none.

    Raises:
        DatabaseUnavailable: It does not answer.
    """
    count, before, expected = 0, "", 1
    with database.read() as connection:
        gone = connection.execute(
            select(audit.c.subject).where(audit.c.action == DELETED).order_by(audit.c.seq.desc()).limit(1)
        ).scalar()
        if gone is not None:
            seq, _, before = gone.partition(" ")
            expected = int(seq) + 1
        while True:
            rows = connection.execute(
                select(audit).where(audit.c.seq >= expected).order_by(audit.c.seq).limit(_PART)
            ).all()
            for entry in (AuditEntry(*row) for row in rows):
                if entry.seq != expected or entry.sha256 != entry.hash_after(before):
                    return count, entry.seq
                count, expected, before = count + 1, expected + 1, entry.sha256
            if len(rows) < _PART:
                return count, None
