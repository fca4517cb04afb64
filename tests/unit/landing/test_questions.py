"""The queries of "Questions in SQL" give what the simulated month is known to have, in PostgreSQL and SQLite."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest

from support.landing import new_target
from support.simulated_month import AMOUNT, Month, decided, finished, land_month, month
from taskbridge.local.company import EMPLOYEES
from taskbridge.schemas.events import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from support.center import Databases
    from taskbridge.runtime.database import Database
    from taskbridge.schemas.events import TaskState

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "questions-in-sql.md"
QUERIES = dict(re.findall(r"^### (.+?)\n.*?```sql\n(.+?);\n```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL))
DEPARTMENTS = {each.user_id: each.department for each in EMPLOYEES}
NAMES = {each.user_id: each.name for each in EMPLOYEES}
LARGE, DAY_MS = 10_000, 86_400_000


def seconds(state: TaskState) -> float:
    return ((state.finished_at or 0) - (state.began_at or 0)) / 1000


def by_department(state: TaskState) -> str:
    return DEPARTMENTS[originator(state)]


def originator(state: TaskState) -> str:
    assert state.originator is not None
    return state.originator.user_id


def counted(found: Iterable[Any]) -> list[tuple[Any, ...]]:
    return [(*(each if isinstance(each, tuple) else (each,)), count) for each, count in Counter(found).items()]


def summed(found: Iterable[tuple[Any, Decimal]]) -> list[tuple[Any, ...]]:
    totals = defaultdict[Any, Decimal](Decimal)
    for key, value in found:
        totals[key] += value
    return [(*(key if isinstance(key, tuple) else (key,)), total) for key, total in totals.items()]


def averaged(found: Iterable[tuple[Any, float]]) -> list[tuple[Any, ...]]:
    groups = defaultdict[Any, list[float]](list)
    for key, value in found:
        groups[key].append(value)
    return [(key, fmean(values)) for key, values in groups.items()]


def longest(of: Month) -> list[tuple[Any, ...]]:
    found = [(key, seconds(each)) for key, each in of.states.items() if finished(each)]
    return sorted(found, key=lambda each: (-each[1], each[0]))[:10]


def open_for_long(of: Month) -> list[tuple[Any, ...]]:
    newest = max(task.created_at or 0 for each in of.states.values() for task in each.tasks)
    waiting = (each for each in of.states.values() if not finished(each))
    return [(each.instance_id,) for each in waiting if newest - (each.began_at or 0) > 2 * DAY_MS]


def changed_late(of: Month) -> list[tuple[Any, ...]]:
    return [
        (state.instance_id, amount, each.actor_id)
        for amount, state in of.purchases
        if finished(state) and of.forms[state.instance_id].modified_ms > (state.finished_at or 0)
        for each in decided(state)
    ]


def suppliers(of: Month) -> list[tuple[Any, ...]]:
    found = [(data["selectField_supplier"], Decimal(str(data[AMOUNT]))) for data, _ in of.of("PURCHASE")]
    counts = Counter(each for each, _ in found)
    return [(each, counts[each], total) for each, total in summed(found)]


def days_of_leave(of: Month) -> list[tuple[Any, ...]]:
    return summed(
        ((originator(state), data["selectField_leave_type"]), Decimal(str(data["numberField_days"])))
        for data, state in of.of("LEAVE")
        if state.result == "agree"
    )


EXPECTED: dict[str, Callable[[Month], list[tuple[Any, ...]]]] = {
    "How did requests end?": lambda of: counted(each.result for each in of.states.values()),
    "How many requests does each department file?": lambda of: counted(map(by_department, of.states.values())),
    "How many requests begin on each day?": lambda of: counted(
        (each.began_at or 0) // DAY_MS for each in of.states.values()
    ),
    "Which ten requests took longest?": longest,
    "Which requests have been open for more than two days?": open_for_long,
    "Who has how many open tasks?": lambda of: counted(
        user
        for each in of.states.values()
        for task in each.tasks
        if task.status is Status.PENDING
        for user in task.assignee_ids
    ),
    "How many tasks of each step are open or done?": lambda of: counted(
        (task.step_name, task.status.value) for each in of.states.values() for task in each.tasks
    ),
    "How many hours does each step take?": lambda of: averaged(
        (each.step_name, ((each.decided_at or 0) - (each.created_at or 0)) / 3_600_000) for _, each in of.decisions
    ),
    "Who decides most?": lambda of: [
        (NAMES[str(user)], count) for user, count in Counter(each.actor_id for _, each in of.decisions).items()
    ],
    "How many decisions are automatic, or by an agent?": lambda of: counted(
        each.decided_by for _, each in of.decisions
    ),
    "Who decides on requests of their own?": lambda of: counted(
        each.actor_id for state, each in of.decisions if each.actor_id == originator(state)
    ),
    "How many approvals does each cost centre need?": lambda of: counted(
        by_department(each) for each, _ in of.decisions
    ),
    "How much was approved, and how much refused?": lambda of: summed(
        (state.result, amount) for amount, state in of.purchases
    ),
    "How much does each department buy, and who approves it?": lambda of: summed(
        ((by_department(state), each.actor_id), amount) for amount, state in of.purchases for each in decided(state)
    ),
    "Does a larger amount take longer?": lambda of: averaged(
        (amount, seconds(state) / 3600) for amount, state in of.purchases if finished(state)
    ),
    "At which step were large purchases refused?": lambda of: counted(
        max(decided(state), key=lambda each: each.decided_at or 0).step_name
        for amount, state in of.purchases
        if amount > LARGE and state.result == "disagree"
    ),
    "What was changed after the request had ended, and who had approved it?": changed_late,
    "How much goes to each supplier?": suppliers,
    "How many days of leave did each person get?": days_of_leave,
    "How many requests were deleted?": lambda of: [
        (sum(each.form_uuid == "FORM-PURCHASE" and key not in of.states for key, each in of.forms.items()),)
    ],
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def landed(databases: Databases, request: pytest.FixtureRequest) -> Generator[Database]:
    target = new_target(databases, request.param)
    land_month(target)
    yield target
    target.close()


def in_sqlite(query: str) -> str:
    """As the page says."""
    query = re.sub(r"extract\(epoch FROM (\S+) - ([\w.]+)\)", r"((\1 - \2) / 1000.0)", query)
    return re.sub(r"date_trunc\('day', (\w+)\)", r"\1 / 86400000", query)


def comparable(value: Any) -> Any:
    if isinstance(value, datetime):
        value = value.timestamp() * 1000 // DAY_MS
    return f"{float(value):.6g}" if isinstance(value, float | int | Decimal) else value


def test_each_question_has_an_answer() -> None:
    assert list(QUERIES) == list(EXPECTED)
    assert len(EXPECTED) == 20


@pytest.mark.parametrize("question", EXPECTED)
def test_a_query_finds_what_the_month_had(question: str, landed: Database) -> None:
    query = QUERIES[question]
    with landed.read() as connection:
        found = connection.exec_driver_sql(in_sqlite(query) if landed.is_sqlite else query).all()
    rows = sorted(repr(tuple(map(comparable, each))) for each in found)
    assert rows == sorted(repr(tuple(map(comparable, each))) for each in EXPECTED[question](month()))
    assert rows
