"""Everything of reconcile put together, for a command and for the service alike."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.reconcile.apps import read_apps
from taskbridge.reconcile.clock import SystemClock
from taskbridge.reconcile.dingtalk.api import YidaApi
from taskbridge.reconcile.dingtalk.calls import Calls, open_http
from taskbridge.reconcile.kafka.outbox import KafkaOutbox
from taskbridge.reconcile.kafka.states_topic import StatesTopic
from taskbridge.reconcile.kept.budget import Allowance, Budget
from taskbridge.reconcile.kept.database import open_database
from taskbridge.reconcile.runs.mending import Kept, Rules
from taskbridge.reconcile.runs.passes import Passes
from taskbridge.reconcile.runs.read_back import ReadBack
from taskbridge.runtime.kafka import read_kafka_config
from taskbridge.runtime.reloaded_file import FileBroken
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.registry import Registry
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from taskbridge.reconcile.apps import App
    from taskbridge.reconcile.clock import Clock
    from taskbridge.reconcile.settings import ReconcileSettings

_MINUTE_MS = 60_000


@dataclass(frozen=True)
class Memory:
    """What is known without asking anybody."""

    apps: tuple[App, ...]
    kept: Kept
    budget: Budget

    @property
    def corp_ids(self) -> list[str]:
        return [*dict.fromkeys(each.corp_id for each in self.apps)]


@dataclass(frozen=True)
class Reconciler:
    """Whoever asks DingTalk and writes to Kafka."""

    memory: Memory
    apis: tuple[YidaApi, ...]
    outbox: KafkaOutbox
    states: StatesTopic
    clock: Clock
    rules: Rules

    @property
    def passes(self) -> Passes:
        return Passes(self.apis, self.memory.kept, self.outbox, self.clock, self.rules, catch_up=self.states.catch_up)

    @property
    def read_back(self) -> ReadBack:
        return ReadBack(
            self.apis,
            self.memory.kept,
            self.outbox,
            self.clock,
            self.rules,
            budget=self.memory.budget,
            catch_up=self.states.catch_up,
        )


@contextmanager
def opened_memory(settings: ReconcileSettings, clock: Clock | None = None) -> Generator[Memory]:
    """The apps, and what the data folder holds.

    Raises:
        ConfigurationError: the file of apps or the data folder cannot be used.
    """
    try:
        apps = read_apps(settings.apps_file, settings.credentials_file)
    except FileBroken as error:
        raise ConfigurationError(str(error)) from None
    database = open_database(settings.data_dir)
    allowance = Allowance(settings.calls_per_second, settings.calls_per_day, settings.calls_per_month)
    try:
        yield Memory(apps, Kept(database), Budget(database, allowance, clock or SystemClock()))
    finally:
        database.close()


@asynccontextmanager
async def assembled(
    settings: ReconcileSettings,
    memory: Memory,
    *,
    clock: Clock | None = None,
    count: Callable[[str, str], None] | None = None,
) -> AsyncGenerator[Reconciler]:
    """All that asks and writes; ``count`` hears of each call: its path, and what became of it.

    Raises:
        ConfigurationError: Kafka's configuration is not right.
        OperatorError: the registry does not answer.
    """
    clock = clock or SystemClock()
    extra = read_kafka_config(settings.kafka_config_file)
    registry = Registry(settings.schema_registry_url, ids_path=settings.data_dir / "schema-ids.json", properties=extra)
    async with AsyncExitStack() as stack:
        stack.callback(registry.close)
        if not registry.knows([TASK_EVENTS]):
            await asyncio.to_thread(registry.register, [TASK_EVENTS])
        http = await stack.enter_async_context(open_http(settings.api_url, timeout_s=settings.call_timeout_s))
        calls = {
            each.corp_id: Calls(http, each.corp, memory.budget, clock, attempts=settings.call_attempts, count=count)
            for each in memory.apps
        }
        states = StatesTopic(settings.kafka_bootstrap_servers, extra, registry, memory.kept.states, clock)
        stack.callback(states.close)
        outbox = KafkaOutbox(
            settings.kafka_bootstrap_servers, extra, registry, clock, records_per_second=settings.records_per_second
        )
        stack.push_async_callback(outbox.close)
        yield Reconciler(
            memory,
            tuple(YidaApi(calls[each.corp_id], each, clock) for each in memory.apps),
            outbox,
            states,
            clock,
            rules_of(settings),
        )


def rules_of(settings: ReconcileSettings) -> Rules:
    return Rules(
        settle_ms=int(settings.settle_minutes * _MINUTE_MS),
        outcomes=settings.outcomes,
        remarks=settings.remarks,
        copies=settings.copies,
        ids_a_pass=settings.ids_per_pass,
        read_back_ms=int(settings.read_back_quiet * 1000),
    )
