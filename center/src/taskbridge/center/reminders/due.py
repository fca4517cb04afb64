"""When tasks are due: when their source says so, or else so many working hours after they entered the pending view.

What follows from the rule of a process is not stored: a changed rule or calendar counts at once. In SQL, what is
overdue by a rule are its entries that entered up to some moment.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import BigInteger, BindParameter, ColumnElement, and_, bindparam, case, func

from taskbridge.center.reminders.working_time import DAY_MINUTES, WorkingTime
from taskbridge.center.tables import NAME_CHARACTERS, entries
from taskbridge.runtime.database import clean

if TYPE_CHECKING:
    from collections.abc import Sequence


_YEARS_MS = range(-62_000_000_000_000, 200_000_000_000_000)
"""Some thousand years, for which Python has dates: a task of a damaged time has no due time."""
_NEVER_MS = -(1 << 62)

RuleKeys = tuple[tuple[str | None, str | None], ...]
"""App and process of each rule."""


class Rule(NamedTuple):
    """Of a process, an app (``process`` is None), or all tasks (both are None)."""

    app_type: str | None
    process: str | None
    hours_ms: int
    reminder_ms: int | None = None
    """How much working time before the due time a reminder is sent."""

    @property
    def key(self) -> tuple[str | None, str | None]:
        return self.app_type, self.process


class DueRules:
    """The rules of one version of the file. The most specific one counts."""

    def __init__(self, working_time: WorkingTime | None = None, rules: Sequence[Rule] = ()) -> None:
        """Without rules, any working time will do."""
        self.working_time = working_time or WorkingTime(ZoneInfo("UTC"), [(0, DAY_MINUTES)], weekdays=range(7))
        cleaned = [each._replace(app_type=_clean(each.app_type), process=_clean(each.process)) for each in rules]
        self.rules = tuple(sorted(cleaned, key=lambda each: (each.process is None, each.app_type is None)))
        self._by_key = {each.key: each for each in self.rules}

    def __bool__(self) -> bool:
        return bool(self.rules)

    @property
    def keys(self) -> RuleKeys:
        """Of the rules, the most specific first: which statement ``is_overdue`` is."""
        return tuple(each.key for each in self.rules)

    def rule_of(self, app_type: str, process: str | None) -> Rule | None:
        app_type, process = app_type[:NAME_CHARACTERS], process and process[:NAME_CHARACTERS]
        for key in ((app_type, process), (app_type, None), (None, None)):
            if (found := self._by_key.get(key)) is not None:
                return found
        return None

    def due_at(self, app_type: str, process: str | None, entered_at: int, stated: int | None) -> int | None:
        """When a task that entered then is due; ``stated`` by its source. None if no rule is about it either."""
        if stated is not None and stated in _YEARS_MS:
            return stated
        rule = self.rule_of(app_type, process)
        if rule is None or entered_at not in _YEARS_MS:
            return None
        return self.working_time.after(entered_at, rule.hours_ms)

    def entered_up_to(self, rule: Rule, now: int, *, less_ms: int = 0) -> int:
        """The latest time of entering that is overdue at ``now``, or was so much working time later."""
        amount = rule.hours_ms - less_ms
        return now if amount <= 0 else self.working_time.before(now, amount)

    def given(self, now: int) -> dict[str, Any]:
        """The parameters of ``is_overdue``."""
        by_rule = {f"due_{number}": self.entered_up_to(each, now) for number, each in enumerate(self.rules)}
        return {"now": now, **by_rule}


NO_RULES = DueRules()


@lru_cache
def is_overdue(keys: RuleKeys) -> ColumnElement[bool]:
    """Whether an entry of the pending view is overdue, by rules with these keys."""
    stated = entries.c.due_at <= bindparam("now", type_=BigInteger)
    if not keys:
        return stated
    cases: list[tuple[ColumnElement[bool], Any]] = []
    others: Any = _NEVER_MS
    for number, (app_type, process) in enumerate(keys):
        up_to: BindParameter[int] = bindparam(f"due_{number}", type_=BigInteger)
        if app_type is None:
            others = up_to
        elif process is None:
            cases.append((entries.c.app_type == app_type, up_to))
        else:
            cases.append((and_(entries.c.app_type == app_type, entries.c.process_name == process), up_to))
    # The first is null, and so does not count, where the source says nothing.
    return func.coalesce(stated, entries.c.entered_at <= (case(*cases, else_=others) if cases else others))


def _clean(text: str | None) -> str | None:
    return None if text is None else clean(text)[:NAME_CHARACTERS]
