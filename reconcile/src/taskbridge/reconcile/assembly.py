"""Builds reconcile from its settings, for the commands and for the service."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.reconcile.budget import Allowance, Budget
from taskbridge.reconcile.kafka import KafkaOutbox, StatesTopic
from taskbridge.reconcile.repairer import Context, Rules
from taskbridge.reconcile.runs import Passes, ReadBack
from taskbridge.reconcile.store import Store, open_database
from taskbridge.runtime.dingtalk.api import YidaApi
from taskbridge.runtime.dingtalk.apps import read_apps
from taskbridge.runtime.dingtalk.calls import Calls, open_http
from taskbridge.runtime.dingtalk.clock import SystemClock
from taskbridge.runtime.kafka import read_kafka_config
from taskbridge.runtime.settings import FileBroken
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.registry import Registry
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from taskbridge.reconcile.settings import ReconcileSettings
    from taskbridge.runtime.dingtalk.apps import App

_MINUTE_MS = 60_000
_INCLUDED = {"standard": 5_000, "professional": 200_000}
"""Calls a month since 2025-11-19, by the vendor's page on billing of May 2026. Older contracts may include more."""


@dataclass(frozen=True)
class LocalData:
    """The apps file and the data folder: everything that needs neither DingTalk nor Kafka."""

    apps: tuple[App, ...]
    store: Store
    budget: Budget

    @property
    def corp_ids(self) -> list[str]:
        return [*dict.fromkeys(each.corp_id for each in self.apps)]


@dataclass(frozen=True)
class Reconciler:
    """Everything that a run needs."""

    data: LocalData
    apis: tuple[YidaApi, ...]
    context: Context

    @property
    def passes(self) -> Passes:
        return Passes(self.context, self.apis)

    @property
    def read_back(self) -> ReadBack:
        return ReadBack(self.context, self.apis, self.data.budget)


def allowance_of(settings: ReconcileSettings) -> Allowance:
    """The calls that reconcile may make for one corp: half of the edition's, unless the administrator says more."""
    per_month = settings.calls_per_month or _INCLUDED[settings.edition] // 2
    return Allowance(settings.calls_per_second, settings.calls_per_day or max(1, per_month // 10), per_month)


@contextmanager
def open_data(settings: ReconcileSettings) -> Generator[LocalData]:
    """Open the apps file and the data folder.

    Raises:
        ConfigurationError: One of them cannot be used.
    """
    try:
        apps = read_apps(settings.apps_file, settings.credentials_file)
    except FileBroken as error:
        raise ConfigurationError(str(error)) from None
    database = open_database(settings.data_dir)
    try:
        yield LocalData(apps, Store(database), Budget(database, allowance_of(settings), SystemClock()))
    finally:
        database.close()


@asynccontextmanager
async def open_reconciler(
    settings: ReconcileSettings, data: LocalData, *, on_call: Callable[[str, str], None] | None = None
) -> AsyncGenerator[Reconciler]:
    """Open the clients of DingTalk and Kafka. ``on_call`` gets the path and the result of each call of DingTalk.

    Raises:
        ConfigurationError: Kafka's configuration is wrong.
        OperatorError: The registry does not answer.
    """
    clock = SystemClock()
    servers, extra = settings.kafka_bootstrap_servers, read_kafka_config(settings.kafka_config_file)
    registry = Registry(settings.schema_registry_url, ids_path=settings.data_dir / "schema-ids.json", properties=extra)
    async with AsyncExitStack() as stack:
        stack.callback(registry.close)
        if not registry.knows([TASK_EVENTS]):
            await asyncio.to_thread(registry.register, [TASK_EVENTS])
        http = await stack.enter_async_context(open_http(settings.api_url, timeout_s=settings.call_timeout_s))
        calls = {
            each.corp_id: Calls(http, each.corp, data.budget, clock, attempts=settings.call_attempts, on_call=on_call)
            for each in data.apps
        }
        states = StatesTopic(servers, extra, registry, data.store.states, clock)
        stack.callback(states.close)
        outbox = KafkaOutbox(servers, extra, registry, clock, records_per_second=settings.records_per_second)
        stack.push_async_callback(outbox.close)
        rules = Rules(
            settle_ms=int(settings.settle_minutes * _MINUTE_MS),
            outcomes=settings.outcomes,
            remarks=settings.remarks,
            copies=settings.copies,
            ids_per_pass=settings.ids_per_pass,
            read_back_ms=int(settings.read_back_quiet * 1000),
        )
        yield Reconciler(
            data,
            tuple(YidaApi(calls[each.corp_id], each, clock) for each in data.apps),
            Context(data.store, outbox, clock, rules, states.catch_up),
        )
