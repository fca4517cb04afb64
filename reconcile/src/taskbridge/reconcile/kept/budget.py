"""How often DingTalk may be asked: by second, day and month, of each organisation, counted across restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from taskbridge.reconcile.dingtalk.errors import Spent
from taskbridge.reconcile.dingtalk.moments import day_of, month_of, next_day_ms, next_month_ms

if TYPE_CHECKING:
    import sqlite3

    from taskbridge.reconcile.clock import Clock

_TABLES = """
CREATE TABLE IF NOT EXISTS calls (
    corp_id TEXT NOT NULL, day TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (corp_id, day)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS closed (corp_id TEXT PRIMARY KEY, until_ms INTEGER NOT NULL, reason TEXT NOT NULL);
"""


class Allowance(NamedTuple):
    """What the administrator allows to be called for one organisation."""

    per_second: float
    per_day: int
    per_month: int


class Used(NamedTuple):
    day: int
    month: int


class Budget:
    """Gives out calls. One that is given out counts, whatever becomes of it: a crash never makes it forget one."""

    def __init__(self, database: sqlite3.Connection, allowance: Allowance, clock: Clock) -> None:
        self._database = database
        self.allowance = allowance
        self._clock = clock
        self._free_at_ms: dict[str, float] = {}
        database.executescript(_TABLES)

    async def take(self, corp_id: str) -> None:
        """Wait until one more call may be made, and count it.

        Raises:
            Spent: none may be made in this day, or month.
        """
        self.check(corp_id)
        await self.pace(corp_id)
        self._database.execute(
            "INSERT INTO calls VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
            (corp_id, day_of(self._clock.now_ms())),
        )

    async def pace(self, corp_id: str) -> None:
        """Wait for this call's turn. What DingTalk does not count, a token, takes no more than its turn."""
        now = self._clock.now_ms()
        turn = max(self._free_at_ms.get(corp_id, now), now)
        self._free_at_ms[corp_id] = turn + 1000 / self.allowance.per_second
        if turn > now:
            await self._clock.sleep((turn - now) / 1000)

    def check(self, corp_id: str) -> None:
        """Return where a call may be made today.

        Raises:
            Spent: none may be.
        """
        now = self._clock.now_ms()
        closed = self._database.execute("SELECT until_ms, reason FROM closed WHERE corp_id = ?", (corp_id,)).fetchone()
        if closed is not None and closed[0] > now:
            raise Spent(closed[1], retry_at_ms=closed[0])
        used = self.used(corp_id)
        if used.month >= self.allowance.per_month:
            problem = f"RECONCILE_CALLS_PER_MONTH is used up: {used.month} calls this month"
            raise Spent(problem, retry_at_ms=next_month_ms(now))
        if used.day >= self.allowance.per_day:
            problem = f"RECONCILE_CALLS_PER_DAY is used up: {used.day} calls today"
            raise Spent(problem, retry_at_ms=next_day_ms(now))

    def left(self, corp_id: str) -> int:
        """How many calls may still be made today."""
        used = self.used(corp_id)
        return max(0, min(self.allowance.per_day - used.day, self.allowance.per_month - used.month))

    def used(self, corp_id: str) -> Used:
        now = self._clock.now_ms()
        [(day, month)] = self._database.execute(
            "SELECT coalesce(sum(count) FILTER (WHERE day = ?), 0), coalesce(sum(count), 0) FROM calls"
            " WHERE corp_id = ? AND day >= ?",
            (day_of(now), corp_id, f"{month_of(now)}-01"),
        )
        return Used(day, month)

    def close(self, corp_id: str, *, until_ms: int, reason: str) -> None:
        """Give out no calls of this organisation until then: DingTalk itself says that there are no more."""
        self._database.execute("INSERT OR REPLACE INTO closed VALUES (?, ?, ?)", (corp_id, until_ms, reason))

    def reopen(self, corp_id: str) -> None:
        """Give out calls again: the organisation has more of them now."""
        self._database.execute("DELETE FROM closed WHERE corp_id = ?", (corp_id,))
