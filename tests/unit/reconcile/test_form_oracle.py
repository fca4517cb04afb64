"""However people edit, and whenever reconcile and land are killed: topic and tables end with the values of DingTalk.

In virtual time.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections import defaultdict
from contextlib import closing, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from support.center import databases, dialect
from support.form_topics import ORDINARY, FakeTopics, Forms, forms, truth, values
from support.landing import LandProcess, Source, new_target, rows_of
from support.reconcile import FORM, HOUR_MS, MINUTE_MS, NOW, filed, happened
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.calls import Spent
from taskbridge.dingtalk.times import DAY_MS, day_of
from taskbridge.reconcile.budget import Allowance
from taskbridge.reconcile.store import FILE_NAME
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Action
from taskbridge.schemas.topics import FORM_DATA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from support.center import Databases
    from taskbridge.runtime.database import Database
    from taskbridge.schemas.events import FormData

__all__ = ["databases", "dialect"]

SEEDS = [pytest.param(each, marks=[pytest.mark.nightly] if each > 0 else []) for each in range(10)]
DAYS, STEP_MS = 4, 30 * MINUTE_MS
PER_DAY = 60
KEEP_DAYS = 17
"""Of values of the form without a process: those of the first days go before the end."""


class Killed(BaseException):
    pass


@dataclass
class Death:
    """Kills reconcile at one of its next steps: between any two statements or writes."""

    chance: random.Random
    left: int = 1_000_000_000
    kills: int = 0

    def aim(self) -> None:
        self.left = self.chance.choice([10, 100, 1000, 10_000]) * self.chance.randrange(1, 10)

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.kills += 1
            raise Killed


class Mortal(sqlite3.Connection):
    death: Death

    def execute(self, *given: Any) -> sqlite3.Cursor:
        if given[0] == "ROLLBACK":
            return super().execute(*given)
        self.death.step()
        found = super().execute(*given)
        self.death.step()
        return found


class MortalTopics(FakeTopics):
    death: Death

    async def write_forms(self, records: Sequence[FormData], tombstones: Sequence[str] = ()) -> None:
        for each in records:
            self.death.step()
            await super().write_forms([each])
        await super().write_forms([], tombstones)
        self.death.step()


@dataclass
class Tables:
    """The tables of form data, by processes of land that are killed."""

    found: Forms
    target: Database
    chance: random.Random
    source: Source = field(default_factory=Source)
    processes: list[LandProcess] = field(default_factory=list[LandProcess])

    def define(self) -> None:
        """The form's version of today: without the field of yesterday, and with other labels."""
        day = self.found.api.clock.now_ms() // DAY_MS
        fields = {"number_1": "NumberField", "table_1": "TableField", f"text_{day % 5}": "TextField"}
        fields |= {"table_1/text_9": "TextField", "table_1/number_2": "NumberField"}
        labels = {"number_1": f"金额 {day}", "number_2": "数量"}
        for form in (FORM, ORDINARY):
            self.source.define(fields, labels, form=form)

    def land(self, *, calm: bool) -> None:
        log = self.found.topics.logs[FORM_DATA.name]
        for each in log[len(self.source.values.records) :]:
            self.source.values.append(each.key(), each.value())
        self.processes = self.source.land_under_kills(self.target, self.processes, self.chance, calm=calm)

    def values(self) -> dict[str, dict[str, Any]]:
        """Of instances that are not deleted, by the views' tables; what has no column is as it came."""
        found: dict[str, dict[str, Any]] = {}
        lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for form in rows_of(self.target, "forms"):
            table = form["table_name"]
            for row in rows_of(self.target, f"{table}__table_1"):
                lines[row["instance_id"]].append(shown(row, ("text_9", "number_2")))
            for row in rows_of(self.target, table):
                if not row["_deleted"]:
                    found[row["instance_id"]] = shown(row, ("number_1", *(f"text_{each}" for each in range(5))))
        assert not lines.keys() - found.keys()
        return {key: {**each, "table_1": lines[key]} for key, each in found.items()}


def shown(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(row["_raw"]) if isinstance(row["_raw"], str) else row["_raw"] or {}
    assert raw.keys() <= {*names}
    values = {each: raw.get(each, row.get(each)) for each in names}
    return {name: exact(name, value) for name, value in values.items() if value is not None}


def exact(name: str, value: object) -> object:
    return Decimal(str(value)) if name.startswith("number") else value


def landed(data: Mapping[str, str | None]) -> dict[str, Any]:
    """The values of an instance as tables have them."""
    lines = json.loads(data.get("table_1") or "[]")
    plain = {name: exact(name, value) for name, value in data.items() if value and name != "table_1"}
    return {**plain, "table_1": [{name: exact(name, value) for name, value in each.items()} for each in lines]}


class World:
    """People at work: their edits and deletions, of which callbacks announce only some."""

    def __init__(self, found: Forms, seed: int) -> None:
        self.found, self.chance = found, random.Random(f"forms {seed}")
        self.count = 0

    @property
    def now(self) -> int:
        return self.found.api.clock.now_ms()

    def step(self) -> None:
        for act, share in (
            (self.create, 0.9), (self.decide, 0.9), (self.edit, 0.2), (self.delete, 0.06), (self.insert, 0.3)
        ):  # fmt: skip
            if self.chance.random() < share:
                act()

    def some(self, *, ordinary: bool | None = None) -> str | None:
        known = [
            each.instance_id
            for each in self.found.api.company.instances(at_ms=self.now)
            if ordinary is None or (each.form_uuid == ORDINARY) == ordinary
        ]
        return self.chance.choice(known) if known else None

    def data(self) -> dict[str, str | None]:
        lines = [{"text_9": str(self.chance.random()), "number_2": at} for at in range(self.chance.randrange(3))]
        found: dict[str, str | None] = {"number_1": str(self.chance.randrange(1000)), "table_1": json.dumps(lines)}
        # Fields come and go with the form's versions.
        return found | {f"text_{self.now // DAY_MS % 5}": self.chance.choice(["a", "b", None])}

    def new_id(self, kind: str) -> str:
        self.count += 1
        return f"{kind}-{self.count}"

    def is_lost(self) -> bool:
        return self.chance.random() < 0.03

    def create(self) -> None:
        event = filed(self.new_id("I"), self.now, form_data=self.data())
        self.found.happen(event, announced=not self.is_lost())

    def decide(self) -> None:
        if (instance_id := self.some(ordinary=False)) is None:
            return
        if self.chance.random() < 0.3:
            self.found.edit(instance_id, **{key: value or "" for key, value in self.data().items()})
        event = happened(Action.COMPLETED, self.now, instance_id=instance_id, task_id=self.new_id("task"))
        self.found.happen(event, announced=not self.is_lost())

    def edit(self) -> None:
        if (instance_id := self.some()) is not None:
            self.found.edit(instance_id, number_1=str(self.chance.random()))

    def delete(self) -> None:
        if (instance_id := self.some()) is not None:
            is_ordinary = instance_id.startswith("R")
            event = happened(Action.DELETED, self.now, instance_id=instance_id)
            self.found.happen(event, announced=not (is_ordinary or self.is_lost()))

    def insert(self) -> None:
        event = filed(self.new_id("R"), self.now, form_uuid=ORDINARY, process_code=None, form_data=self.data())
        self.found.happen(event, announced=False)


def become_mortal(found: Forms, death: Death, folder: Path) -> None:
    """Start reconcile again, on the same file. What was not committed is lost."""
    with suppress(AttributeError):
        found.store.forms._database.close()  # pyright: ignore[reportPrivateUsage]
    database = sqlite3.connect(folder / FILE_NAME, isolation_level=None, factory=Mortal)
    database.death = Death(random.Random(0))
    database.execute("PRAGMA synchronous=OFF")
    found.restart(database=database)
    database.death = death


async def run(found: Forms, death: Death, folder: Path) -> None:
    try:
        await found.run()
    except Killed:
        death.left = 1_000_000_000
        become_mortal(found, death, folder)
    except OperatorError:
        pass  # reported, and tried again


@pytest.mark.parametrize("seed", SEEDS)
def test_topic_and_tables_end_with_the_values_of_dingtalk(
    seed: int, databases: Databases, dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SEARCH_ROWS", 100)
    with closing(new_target(databases, dialect)) as target:
        asyncio.run(_live(seed, tmp_path, target))


async def _live(seed: int, folder: Path, target: Database) -> None:
    allowance = Allowance(per_second=10, per_day=PER_DAY, per_month=1_000_000)
    death = Death(random.Random(f"death {seed}"))
    made = dict[str, int]()
    app: dict[str, Any] = {"ordinary_forms": (ORDINARY,), "keep_days": ((ORDINARY, KEEP_DAYS),)}
    async with forms(folder, allowance=allowance, **app) as found:
        found.topics.__class__ = MortalTopics
        found.topics.death = death  # pyright: ignore[reportAttributeAccessIssue]
        become_mortal(found, death, folder)
        world, dingtalk = World(found, seed), found.api.dingtalk
        tables = Tables(found, target, random.Random(f"tables {seed}"))
        dingtalk.search_rows = 100
        for at in range(150):  # more than a query returns, on one day
            found.happen(filed(f"R-old-{at}", NOW, form_uuid=ORDINARY, process_code=None, form_data={"number_1": "1"}),
                         announced=False)  # fmt: skip
        for at in range(DAYS * DAY_MS // STEP_MS):
            hour = (at * STEP_MS) // HOUR_MS
            dingtalk.faults.is_down = hour % 48 == 15
            dingtalk.faults.lag_ms = HOUR_MS if hour % 24 in {3, 4} else 0
            if hour % 48 == 12:
                await spend_all(found)
            world.step()
            death.aim()
            await run(found, death, folder)
            count(found, made)
            if hour % 24 == 8:
                tables.define()
            if at % 8 == 0:
                tables.land(calm=False)
            found.api.clock.pass_s(STEP_MS / 1000)
        dingtalk.faults.is_down, dingtalk.faults.lag_ms, death.left = False, 0, 1_000_000_000
        # Deletions that nobody announced are found after eight days, a day after the calls of a week of checks.
        for _ in range(30):
            await run(found, death, folder)
            count(found, made)
            found.api.clock.pass_s(DAY_MS / 2 / 1000)
        await run(found, death, folder)
        kept = truth(found, since_ms=found.app.kept_since(ORDINARY, now_ms=found.api.clock.now_ms()))
        assert values(found) == kept
        tables.land(calm=True)
        assert tables.values() == {key: landed(each) for key, each in kept.items()}
        assert len(kept) < len(truth(found))
        assert max(made.values()) <= PER_DAY, "no call beyond the budget"
        assert death.kills > 5
        known = found.topics.newest()
        assert {each.instance_id for each in known.values() if each.deleted}
        assert {each.cause for each in known.values()} >= {"create", "event", "scan"}


def count(found: Forms, made: dict[str, int]) -> None:
    """Calls by day, as DingTalk counts them: without those for a token, and those of another work."""
    done = sum(each for path, each in found.api.dingtalk.calls.items() if path != wire.GetToken.path)
    found.api.dingtalk.calls.clear()
    day = day_of(found.api.clock.now_ms())
    made[day] = made.get(day, 0) + done


async def spend_all(found: Forms) -> None:
    """Passes use all calls of the day."""
    with suppress(Spent):
        while True:
            await found.api.budget.acquire(found.app.corp_id)
