"""How many calls of DingTalk's API reconcile may make: by second, day and month, stored across restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from taskbridge.dingtalk.calls import Pace, Spent
from taskbridge.dingtalk.times import day_of, day_start_ms, month_of, next_day_ms, next_month_ms

if TYPE_CHECKING:
    import sqlite3

    from taskbridge.runtime.clock import Clock

_TABLES = """
CREATE TABLE IF NOT EXISTS calls (
    corp_id TEXT NOT NULL, day TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (corp_id, day)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS closed (corp_id TEXT PRIMARY KEY, until_ms INTEGER NOT NULL, reason TEXT NOT NULL);
"""


class Allowance(NamedTuple):
    """The calls that the administrator allows for one corp."""

    per_second: float
    per_day: int
    per_month: int


class Used(NamedTuple):
    day: int
    month: int


class Budget(Pace):
    """The calls of each corp, by second, day and month, as DingTalk counts them.

    A call counts before it is made, also across a crash, until ``give_back`` says that DingTalk does not count it.
    """

    def __init__(self, database: sqlite3.Connection, allowance: Allowance, clock: Clock) -> None:
        super().__init__(allowance.per_second, clock)
        self._database = database
        self.allowance = allowance
        database.executescript(_TABLES)

    async def acquire(self, corp_id: str) -> None:
        """Wait until one more call may be made, and count it.

        Raises:
            Spent: No call may be made in this day or month.
        """
        self.check(corp_id)
        await self.pace(corp_id)
        self._database.execute(
            "INSERT INTO calls VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
            (corp_id, day_of(self._clock.now_ms())),
        )

    def give_back(self, corp_id: str) -> None:
        self._database.execute(
            "UPDATE calls SET count = count - 1 WHERE (corp_id, day) = (?, ?) AND count > 0",
            (corp_id, day_of(self._clock.now_ms())),
        )

    def check(self, corp_id: str) -> None:
        """Return if a call may be made today.

        Raises:
            Spent: No call may be made.
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
        used = self.used(corp_id)
        return max(0, min(self.allowance.per_day - used.day, self.allowance.per_month - used.month))

    def may_spend(self, corp_id: str, *, above: float = 0.5, of_month: bool = False) -> bool:
        """Whether more than this share of the day's calls is left: passes come first, other work has the other half.

        ``of_month``: also more than this share of those calls of the month that the rest of it has, so that work that
        can wait leaves calls for its last days.
        """
        if self.left(corp_id) <= above * self.allowance.per_day:
            return False
        now = self._clock.now_ms()
        end = next_month_ms(now)
        rest = (end - now) / (end - day_start_ms(f"{month_of(now)}-01"))
        left = self.allowance.per_month - self.used(corp_id).month
        return not of_month or left > above * rest * self.allowance.per_month

    def used(self, corp_id: str) -> Used:
        now = self._clock.now_ms()
        [(day, month)] = self._database.execute(
            "SELECT coalesce(sum(count) FILTER (WHERE day = ?), 0), coalesce(sum(count), 0) FROM calls"
            " WHERE corp_id = ? AND day >= ?",
            (day_of(now), corp_id, f"{month_of(now)}-01"),
        )
        return Used(day, month)

    def close(self, corp_id: str, *, until_ms: int, reason: str) -> None:
        """Allow no call of this corp until then, because DingTalk says that its quota is used up."""
        self._database.execute("INSERT OR REPLACE INTO closed VALUES (?, ?, ?)", (corp_id, until_ms, reason))
