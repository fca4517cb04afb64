"""How many calls of systems were made in a day: one count for each corp and purpose, for all replicas.

Systems limit the calls of a corp, and decisions need them: what people look at has so many of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.center.tables import day_calls
from taskbridge.runtime.database import clean, now_ms
from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from taskbridge.runtime.database import Database

_STORED_MS = 3 * 86_400_000


class DayCalls:
    """Every method blocks, and raises DatabaseUnavailable if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def use(self, corp_id: str, purpose: str, day: str, most: int) -> bool:
        """Count one more call, unless so many were made; whether it may be made. ``day`` is a date."""
        if most < 1:
            return False
        row = {"corp_id": clean(corp_id), "purpose": purpose, "day": day, "calls": 1}
        count = self._database.insert(day_calls).values(row)
        more = {"calls": day_calls.c.calls + 1}
        key = [each.name for each in day_calls.primary_key]
        count = count.on_conflict_do_update(index_elements=key, set_=more, where=day_calls.c.calls < most)
        with self._database.write() as connection:
            return connection.execute(count.returning(day_calls.c.calls)).first() is not None

    def purge(self) -> int:
        """Delete the counts of days that are over everywhere; returns how many."""
        return self._database.purge(day_calls, day_calls.c.day < iso(now_ms() - _STORED_MS)[:10])
