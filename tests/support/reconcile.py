"""A fake DingTalk on loopback, a company at work in virtual time, and reconcile against both."""

from __future__ import annotations

import random
import sqlite3
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from pydantic import SecretStr

from support.dingtalk import FakeClock, FaultyDingTalk
from taskbridge.dingtalk.api import YidaApi
from taskbridge.dingtalk.apps import App, Corp
from taskbridge.dingtalk.calls import Calls
from taskbridge.local.fake_dingtalk import Company, FakeCluster, served
from taskbridge.local.simulation import SimulatedApp, Simulation, event_of_posting
from taskbridge.reconcile.assembly import open_data
from taskbridge.reconcile.budget import Allowance, Budget
from taskbridge.reconcile.repairer import Context, Rules, Tally
from taskbridge.reconcile.runs import PassReport, import_history, make_pass
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.reconcile.store import Store
from taskbridge.runtime.bounded_http import open_http
from taskbridge.schemas.events import Action, Person, TaskEvent
from taskbridge.schemas.views import views
from taskbridge.streams.fold.instance import fold

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from taskbridge.reconcile.assembly import LocalData
    from taskbridge.runtime.clock import Clock
    from taskbridge.schemas.views import Entry, EntryKey
    from taskbridge.streams.fold.instance import Instance


CORP_ID, APP_TYPE, FORM = "ding1", "APP_1", "FORM-1"
SYSTEM_TOKEN, APP_SECRET = "the-system-token-of-app-1", "the-app-secret-of-ding1"
NOW = 1_790_000_000_000
"""Mon 2026-09-21 22:13:20 in China."""
MINUTE_MS, HOUR_MS = 60_000, 3_600_000


@dataclass
class FakeApi:
    client: YidaApi
    calls: Calls
    budget: Budget
    clock: FakeClock
    company: Company
    dingtalk: FaultyDingTalk


@asynccontextmanager
async def fake_api(
    *events: TaskEvent,
    allowance: Allowance | None = None,
    database: sqlite3.Connection | None = None,
    attempts: int = 3,
) -> AsyncGenerator[FakeApi]:
    """The API of one app, over HTTP; these events happened."""
    clock, company = FakeClock(NOW), Company(events)
    dingtalk = FaultyDingTalk(
        company, clock, system_tokens={APP_TYPE: SYSTEM_TOKEN}, app_key="key-1", app_secret=APP_SECRET
    )
    corp = Corp(CORP_ID, "key-1", SecretStr(APP_SECRET))
    app = App(corp, APP_TYPE, SecretStr(SYSTEM_TOKEN), dingtalk.user_id, ())
    allowed = allowance or Allowance(per_second=10, per_day=10_000, per_month=100_000)
    budget = Budget(database or sqlite3.connect(":memory:", isolation_level=None), allowed, clock)
    with served(dingtalk) as url:
        async with open_http(url, timeout_s=10) as http:
            calls = Calls(http, corp, budget, clock, attempts=attempts, float_hook=Decimal)
            yield FakeApi(YidaApi(calls, app, clock), calls, budget, clock, company, dingtalk)


def settings_in(folder: Path, **more: object) -> ReconcileSettings:
    """Settings of reconcile without Kafka and DingTalk, with a corp that has a corp token."""
    (folder / "apps.toml").write_text(
        f'[[corps]]\ncorp_id = "{CORP_ID}"\napp_key = "key-1"\napp_secret = "{APP_SECRET}"\nuser_id = "manager"\n'
        'corp_token = "fake-corp-token"\n'
    )
    nowhere = {"kafka_bootstrap_servers": "127.0.0.1:9", "schema_registry_url": "http://127.0.0.1:9"}
    files = {"apps_file": folder / "apps.toml", "data_dir": folder / "reconcile"}
    return ReconcileSettings.model_validate({**nowhere, **files, **more})


def local_data(folder: Path, clock: Clock | None = None) -> AbstractContextManager[LocalData]:
    """The data of reconcile with these settings."""
    return open_data(settings_in(folder), clock)


def filed(instance_id: str = "I-1", at: int = NOW - 60 * MINUTE_MS, **more: object) -> TaskEvent:
    """An instance begins; ``more`` are further fields of the event."""
    fields: dict[str, object] = {
        "event_id": f"filed {instance_id} {at}",
        "source": "yida",
        "action": Action.CREATED,
        "corp_id": CORP_ID,
        "app_type": APP_TYPE,
        "instance_id": instance_id,
        "occurred_at": at,
        "received_at": at,
        "created_at": at,
        "form_uuid": FORM,
        "process_code": "TPROC--1",
        "title": f"Request {instance_id}",
        "originator": Person("u-zhang", "张红"),
    }
    return TaskEvent(**{**fields, **more})  # pyright: ignore[reportArgumentType]


def assigned(task_id: str, *user_ids: str, at: int, instance_id: str = "I-1", **more: object) -> TaskEvent:
    event_id = f"assigned {instance_id} {task_id} {at}"
    return filed(instance_id, at, event_id=event_id, task_id=task_id, recipient_ids=user_ids, **more)


def happened(action: Action, at: int, *, instance_id: str = "I-1", **more: object) -> TaskEvent:
    """Callbacks without facts of the instance: a decision, a deletion."""
    fields: dict[str, object] = {
        "event_id": f"{action} {instance_id} {more} {at}",
        "source": "yida",
        "action": action,
        "corp_id": CORP_ID,
        "app_type": APP_TYPE,
        "instance_id": instance_id,
        "occurred_at": at,
        "received_at": at,
    }
    return TaskEvent(**{**fields, **more})  # pyright: ignore[reportArgumentType]


BEGIN = 1_790_000_000_000
CORP, APPS = "ding1", ("APP_1", "APP_2")
GENEROUS = Allowance(per_second=10, per_day=100_000, per_month=1_000_000)
RULES = Rules(settle_ms=15 * MINUTE_MS, copies=True)


def company_life(seed: int, count: int, *, step_ms: int = 2 * MINUTE_MS) -> list[TaskEvent]:
    """What happens, in its order; no two things of an instance in the same minute."""
    simulation = Simulation([SimulatedApp(each, CORP, "t") for each in APPS], seed=seed)
    return [event_of_posting(simulation.next(BEGIN + at * step_ms + at % 60_000)) for at in range(count)]


class Streams:
    """Folds events as workers do, and is the outbox that puts them there."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.changed: set[str] = set()
        self.published: list[TaskEvent] = []

    def fold(self, events: Iterable[TaskEvent]) -> None:
        for event in events:
            self.instances[event.instance_id] = fold(self.instances.get(event.instance_id), event)
            self.changed.add(event.instance_id)

    async def publish(self, events: Sequence[TaskEvent]) -> None:
        self.published += events
        self.fold(events)

    def lines(self) -> dict[tuple[str, EntryKey], Entry]:
        return {
            (instance_id, key): entry
            for instance_id, instance in self.instances.items()
            for key, entry in views(instance.state).items()
        }


class Reconciled:
    """One company: what is true of it, what came of it, and who looks for the rest."""

    def __init__(
        self, apis: list[YidaApi], budget: Budget, database: sqlite3.Connection, fake: FaultyDingTalk, clock: FakeClock
    ) -> None:
        self.apis, self.budget, self.dingtalk, self.clock = apis, budget, fake, clock
        self.streams, self.store = Streams(), Store(database)
        self.rules = RULES

    async def catch_up(self) -> None:
        for each in self.streams.changed:
            self.store.states.store(self.streams.instances[each].state)
        self.streams.changed.clear()
        self.store.states.current_ms = self.clock.now_ms()

    async def run(self, clock: FakeClock) -> PassReport:
        return await make_pass(self.context(clock), self.apis)

    async def backfill(self, api: YidaApi, clock: FakeClock, since_ms: int) -> Tally:
        await self.catch_up()
        tally = Tally()
        await import_history(self.context(clock), api, since_ms, tally=tally, on_progress=lambda _: None)
        return tally

    def context(self, clock: FakeClock, rules: Rules | None = None) -> Context:
        return Context(self.store, self.streams, clock, rules or self.rules, self.catch_up)


@asynccontextmanager
async def reconciled(
    company: Company, clock: FakeClock, *, allowance: Allowance = GENEROUS, is_cluster: bool = False
) -> AsyncGenerator[Reconciled]:
    """Over HTTP; times are exact, so that everything comes out the same to a millisecond.

    A dedicated cluster lacks calls, and no other address answers.
    """
    fake = FaultyDingTalk(company, clock, system_tokens={each: f"token of {each}" for each in APPS})
    fake.faults.exact_times = True
    fake.faults.calls_per_month = 10**9
    fake.lacks = FakeCluster.lacks if is_cluster else fake.lacks
    database = sqlite3.connect(":memory:", isolation_level=None)
    budget = Budget(database, allowance, clock)
    with served(fake) as url:
        corp = Corp(CORP, fake.app_key, SecretStr(fake.app_secret), yida_url=url if is_cluster else "")
        async with open_http("http://127.0.0.1:1" if is_cluster else url, timeout_s=30) as http:
            calls = Calls(http, corp, budget, clock, attempts=3, float_hook=Decimal)
            apis = [
                YidaApi(
                    calls,
                    App(
                        corp,
                        each,
                        SecretStr(fake.system_tokens[each]),
                        fake.user_id,
                        (),
                        f"https://yida.example/{each}/processDetail?procInsId={{instance_id}}",
                    ),
                    clock,
                )
                for each in APPS
            ]
            yield Reconciled(apis, budget, database, fake, clock)


def losses(seed: int, events: Sequence[TaskEvent], share: float) -> tuple[set[str], set[str]]:
    """The ids of events that never come, and of those that come late."""
    chance = random.Random(f"lost {seed}")
    drawn = [(each.event_id, chance.random()) for each in events]
    return {each for each, at in drawn if at < share}, {each for each, at in drawn if share <= at < 2 * share}
