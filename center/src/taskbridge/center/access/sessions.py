"""Sessions of people who signed in, and sign-ins under way: rows, so that every replica knows them.

A browser has random tokens, the database their digests, with which nobody can sign in.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Executable, Row, Select, and_, delete, insert, select, update

from taskbridge.center.access.audit import SESSIONS_ENDED, AuditEntry, append
from taskbridge.center.tables import Person, assistants, of_person, sessions, sign_ins
from taskbridge.runtime.database import Database, DatabaseUnavailable, Threads, clean, in_key_order, now_ms
from taskbridge.runtime.tokens import digest_of, new_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


SIGN_IN_S = 600
"""How long somebody may take at the identity provider."""
_USED_MS = 60_000
"""Resolution of ``used_at``: a page sends many requests."""
_WATCH_S = 5.0
_FORGOTTEN_S = 60.0
"""A stream checks its session at each heartbeat. After so long without a check, it is closed."""


class Session(NamedTuple):
    """A signed-in person; their browser has the token."""

    corp_id: str
    user_id: str
    roles: frozenset[str]
    """By groups at the identity provider."""
    token_sha256: str


class SignIn(NamedTuple):
    """What the identity provider must return, and where the browser goes afterwards."""

    nonce: str
    code_verifier: str
    return_to: str


class Sessions:
    """Every method raises DatabaseUnavailable if the database does not answer."""

    def __init__(
        self,
        database: Database,
        threads: Threads,
        *,
        idle_s: float,
        longest_s: float,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """A session ends ``idle_s`` after its latest request, and ``longest_s`` after its sign-in.

        ``ended`` is called when sessions with open streams have ended.
        """
        self._database, self._threads = database, threads
        self._idle_ms, self._longest_ms = int(idle_s * 1000), int(longest_s * 1000)
        self._ended = ended
        self._watched: dict[str, float] = {}
        """When a stream of the session was checked last."""
        self._over: set[str] = set()
        self._used: set[str] = set()
        """Written together, so that no request waits for the database's writer."""

    async def add_sign_in(self, state: str, browser: str, sign_in: SignIn) -> None:
        """Store a sign-in that a browser, identified by its cookie, has started; delete those that expired."""
        now = now_ms()
        row = {**sign_in._asdict(), "state_sha256": digest_of(state), "browser_sha256": digest_of(browser), "at": now}
        expired = sign_ins.c.at < now - SIGN_IN_S * 1000
        await self._write(delete(sign_ins).where(expired), insert(sign_ins).values(row))

    async def consume_sign_in(self, state: str, browser: str) -> SignIn | None:
        """The sign-in that this browser started; None if it is unknown, expired, used, or another browser's."""
        its = and_(
            sign_ins.c.state_sha256 == digest_of(state),
            sign_ins.c.browser_sha256 == digest_of(browser),
            sign_ins.c.at >= now_ms() - SIGN_IN_S * 1000,
        )
        # Anybody may send an answer: only one that is waited for is worth a transaction that writes.
        if await self._read(select(sign_ins.c.at).where(its)) is None:
            return None
        rows = await self._write(delete(sign_ins).where(its).returning(*(sign_ins.c[each] for each in SignIn._fields)))
        return SignIn(*rows[0]) if rows else None

    async def open(self, person: Person, roles: Iterable[str], *, instead_of: str | None) -> tuple[str, Session]:
        """A new session, and the token for its browser, whose former session ends."""
        token, now = new_token(), now_ms()
        session = Session(*person, frozenset(roles), digest_of(token))
        times = {"created_at": now, "used_at": now}
        row = {**session._asdict(), "roles": " ".join(sorted(session.roles)), **times}
        gone = sessions.c.token_sha256 == digest_of(instead_of or "")
        over = in_key_order(sessions, gone | ~self.lives(now))
        await self._write(delete(sessions).where(over), insert(sessions).values(row))
        return token, session

    async def find(self, token: str) -> Session | None:
        """The session of a browser's token; None if it has ended."""
        sha256, now = digest_of(token), now_ms()
        row = await self._read(select(sessions).where(sessions.c.token_sha256 == sha256, self.lives(now)))
        if row is None:
            return None
        if row.used_at < now - _USED_MS:
            self._used.add(sha256)
        return Session(row.corp_id, row.user_id, frozenset(row.roles.split()), sha256)

    async def end(self, session: Session, *, everywhere: bool) -> None:
        """End the session, or all of its person."""
        person = session.corp_id, session.user_id
        ended = of_person(sessions, person) if everywhere else sessions.c.token_sha256 == session.token_sha256
        refuse = [refuse_tokens(self._database, person)] if everywhere else []
        rows = await self._write(
            *refuse,
            delete(sessions).where(in_key_order(sessions, ended)).returning(sessions.c.token_sha256),
        )
        self._over |= {each.token_sha256 for each in rows}
        self._ended()

    def lasting(self, token_sha256: str) -> Callable[[float], bool]:
        """A check whether the session goes on, for a stream that is open longer than a request."""

        def may_go_on(_now: float) -> bool:
            self._watched[token_sha256] = time.monotonic()
            return token_sha256 not in self._over

        may_go_on(0)
        return may_go_on

    async def watch(self) -> None:
        """Write which sessions are in use, and learn which of those with open streams have ended; until cancelled."""
        while True:
            await asyncio.sleep(_WATCH_S)
            with suppress(DatabaseUnavailable):
                await self.refresh()

    async def refresh(self) -> None:
        """As ``watch``, once."""
        now = time.monotonic()
        self._watched = {each: at for each, at in self._watched.items() if at > now - _FORGOTTEN_S}
        watched = set(self._watched)
        used, self._used = self._used, set()
        among, now_is = self._database.among(sessions.c.token_sha256), now_ms()

        def write_and_read() -> set[str]:
            if used:
                with self._database.write() as connection:
                    its = in_key_order(sessions, among & self.lives(now_is))
                    touch = update(sessions).where(its).values(used_at=now_is)
                    connection.execute(touch, self._database.keys(used))
            with self._database.read() as connection:
                alive = select(sessions.c.token_sha256).where(among, self.lives(now_is))
                return set(connection.execute(alive, self._database.keys(watched)).scalars())

        if watched or used:
            before, self._over = self._over, watched - await self._threads.write(write_and_read)
            if self._over - before:
                self._ended()

    async def _read(self, query: Select[*tuple[Any, ...]]) -> Row[*tuple[Any, ...]] | None:
        """The first row."""

        def read() -> Row[*tuple[Any, ...]] | None:
            with self._database.read() as connection:
                return connection.execute(query).first()

        return await self._threads.run(read)

    async def _write(self, *statements: Executable) -> Sequence[Row[Any]]:
        """Execute all in one transaction; returns the rows of the last one, if it returns any."""

        def write() -> Sequence[Row[Any]]:
            with self._database.write() as connection:
                *_, last = [connection.execute(each) for each in statements]
                return last.all() if last.returns_rows else ()

        return await self._threads.write(write)

    def lives(self, now: int) -> ColumnElement[bool]:
        """Whether a session goes on at this time."""
        return (sessions.c.used_at >= now - self._idle_ms) & (sessions.c.created_at >= now - self._longest_ms)


def key_of_tokens(person: Person) -> str:
    """In place of the user id in what refuses the person's earlier access tokens: it stays when they are erased."""
    return digest_of("/".join(person))


def refuse_tokens(database: Database, person: Person) -> Executable:
    """From now on, assistants need access tokens of the person that are issued later."""
    key, now = {"corp_id": person[0], "user_id": key_of_tokens(person), "client": ""}, now_ms()
    values = {"used_at": now, "refused_before": now}
    put = database.insert(assistants).values({**key, **values})
    return put.on_conflict_do_update(index_elements=[*key], set_=values)


def end_sessions_of(database: Database, person: Person) -> tuple[int, AuditEntry | None]:
    """End all sessions of a person; returns how many, and the entry of the audit trail, which is written if any ended.

    A replica sees it at the next request, and at open event streams within seconds.
    """
    corp_id, user_id = map(clean, person)
    with database.write(durable=True) as connection:
        connection.execute(refuse_tokens(database, (corp_id, user_id)))
        its = of_person(sessions, (corp_id, user_id))
        count = connection.execute(delete(sessions).where(in_key_order(sessions, its))).rowcount
        return count, append(connection, database, "", SESSIONS_ENDED, person) if count else None
