"""The programs that people use as assistants: who uses which, and which an operator refuses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import and_, case, func, select, tuple_

from taskbridge.center.access.audit import ALLOWED, ASSISTANT_READ, REFUSED, append_of
from taskbridge.center.access.sessions import key_of_tokens
from taskbridge.center.tables import Person, assistants
from taskbridge.runtime.database import Database, Threads, Upsert, clean, now_ms
from taskbridge.runtime.rates import PerSource
from taskbridge.runtime.refusals import Unauthorized
from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from taskbridge.center.access.access import Caller
    from taskbridge.center.api import models

CLIENT_MAX = 256
UNNAMED = "unnamed"
"""All clients whose tokens name none are one: a name of their own choice would have limits of its own."""
_STORED_MS = 90 * 86_400_000
"""Unused clients are forgotten, and older access tokens are refused: what refused them may be deleted."""
_AGAIN_S = 3600.0
_FOR_EVER = 1 << 62
_SHOWN_MOST = 200
_USED = Upsert(assistants)


class Clients:
    """Every method raises DatabaseUnavailable if the database does not answer."""

    def __init__(self, database: Database, threads: Threads) -> None:
        self._database, self._threads = database, threads
        self._noted_at = PerSource[list[float]](lambda: [-_AGAIN_S])

    async def check(self, person: Person, client: str, issued_at: int) -> None:
        """Raise Unauthorized if tokens of this person or client are refused that were issued then."""
        (corp_id, user_id), client = map(clean, person), clean(client)
        keys = (key_of_tokens((corp_id, user_id)), ""), ("", client)
        its = assistants.c.corp_id == corp_id, tuple_(assistants.c.user_id, assistants.c.client).in_(keys)

        def read() -> int:
            with self._database.read() as connection:
                return connection.execute(select(func.max(assistants.c.refused_before)).where(*its)).scalar() or 0

        if issued_at < max(now_ms() - _STORED_MS, await self._threads.run(read)):
            raise Unauthorized("the person signed out, or an operator refuses this client")

    async def note(self, caller: Caller, person: Person, client: str, said: str, *, address: str) -> None:
        """Record that a client reads for a person, with the audit trail, at most once an hour.

        ``said``: its name there.
        """
        noted_at = self._noted_at.of((caller.mode, person, client))
        if noted_at[0] + _AGAIN_S > (now := time.monotonic()):
            return

        def write() -> None:
            with self._database.write() as connection:
                if caller.mode == "sso":
                    key = dict(zip(("corp_id", "user_id", "client"), map(clean, (*person, client)), strict=True))
                    put = self._database.insert(assistants).values(**key, used_at=(at := now_ms()), refused_before=0)
                    is_old = assistants.c.used_at <= at - _AGAIN_S * 1000
                    put = put.on_conflict_do_update(index_elements=[*key], set_={"used_at": at}, where=is_old)
                    if connection.execute(put.returning(assistants.c.used_at)).first() is None:
                        return  # another replica did, or it is forgotten here
                subject = said if caller.mode == "sso" else person
                append_of(connection, self._database, caller, ASSISTANT_READ, subject, address=address)

        await self._threads.write(write)
        noted_at[0] = now

    def shown(self, corp_id: str) -> list[models.AssistantOut]:
        """The clients of a corp, those that were used last first."""
        refused = func.max(case((assistants.c.user_id == "", assistants.c.refused_before), else_=0))
        people, used_at = func.count().filter(assistants.c.user_id != ""), func.max(assistants.c.used_at)
        query = select(assistants.c.client, people, used_at, refused).where(
            assistants.c.corp_id == clean(corp_id), assistants.c.client != ""
        )
        query = query.group_by(assistants.c.client).order_by(used_at.desc(), assistants.c.client).limit(_SHOWN_MOST)
        with self._database.read() as connection:
            found = connection.execute(query).all()
        return [{"client": row[0], "people": row[1], "used_at": iso(row[2]), "refused": bool(row[3])} for row in found]

    def refuse(self, caller: Caller, client: str, *, refused: bool, address: str) -> None:
        """Refuse all access tokens of a client in the operator's corp, until they are allowed again."""
        row = clean(caller.corp_id or ""), "", clean(client), now_ms(), _FOR_EVER if refused else 0
        with self._database.write(durable=True) as connection:
            self._database.put(connection, _USED, [row])
            append_of(
                connection, self._database, caller, REFUSED if refused else ALLOWED, clean(client), address=address
            )

    def purge(self) -> int:
        """Delete what was used long ago and refuses nothing any more."""
        before = now_ms() - _STORED_MS
        return self._database.purge(
            assistants, and_(assistants.c.used_at < before, assistants.c.refused_before < before)
        )
