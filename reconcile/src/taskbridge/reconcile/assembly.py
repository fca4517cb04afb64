"""Builds reconcile from its settings, for the commands and for the service."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from taskbridge.dingtalk.api import YidaApi
from taskbridge.dingtalk.apps import AppsFile
from taskbridge.dingtalk.calls import calls_by_corp
from taskbridge.dingtalk.organisation import OrganisationApi
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.reconcile.applications import AppSync
from taskbridge.reconcile.budget import Allowance, Budget
from taskbridge.reconcile.form_data import FormRules, FormSync, FormTopics
from taskbridge.reconcile.kafka import GROUP, KafkaOutbox, StatesTopic
from taskbridge.reconcile.name_sync import NameSync, NameTopic
from taskbridge.reconcile.names import FORM, PERSON
from taskbridge.reconcile.repairer import Context, Rules
from taskbridge.reconcile.runs import ReadBack
from taskbridge.reconcile.store import FILE_NAME, Store, open_database
from taskbridge.runtime.bounded_http import open_http
from taskbridge.runtime.clock import SystemClock
from taskbridge.runtime.kafka import consumer_config, read_kafka_config
from taskbridge.runtime.partition_reader import PartitionReader
from taskbridge.schemas.codec import form_data_codec, task_event_head_codec
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.registry import Registry
from taskbridge.schemas.topics import FORM_DATA, FORMS, PEOPLE, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from pathlib import Path

    from taskbridge.dingtalk.apps import App, Corp, Organisation
    from taskbridge.dingtalk.calls import Calls
    from taskbridge.reconcile.settings import ReconcileSettings
    from taskbridge.runtime.clock import Clock
    from taskbridge.schemas.events import FormData
    from taskbridge.schemas.topics import Topic

    CallsOf = Callable[[Corp], Calls]
    OnCall = Callable[[str, str], None]

_MINUTE_MS = 60_000
CALLS_PER_SECOND = 10.0
"""For one corp, all APIs together. DingTalk refuses more than 20 per app and API."""
CALL_TIMEOUT_S = 20.0
CALL_ATTEMPTS = 5
"""After a rate limit, a server error or a network error."""
_KEY_BYTES = 16


@dataclass(frozen=True)
class LocalData:
    """The apps file and the data folder: everything that needs neither DingTalk nor Kafka."""

    folder: Path
    file: AppsFile
    store: Store
    budget: Budget
    clock: Clock

    @contextmanager
    def opened_again(self) -> Generator[LocalData]:
        """The same data for another thread, by a connection of its own."""
        database = open_database(self.folder)
        try:
            budget = Budget(database, self.budget.allowance, self.clock)
            yield replace(self, store=Store(database), budget=budget)
        finally:
            database.close()

    @property
    def apps(self) -> tuple[App, ...]:
        return self.file.current.apps

    @property
    def organisations(self) -> tuple[Organisation, ...]:
        return self.file.current.organisations

    @property
    def corp_ids(self) -> list[str]:
        return [each.corp_id for each in self.organisations]


@dataclass(frozen=True)
class Reconciler:
    data: LocalData
    calls: CallsOf
    context: Context
    names: NameSync | None

    @property
    def apis(self) -> tuple[YidaApi, ...]:
        """Of the apps in the file now."""
        return tuple(YidaApi(self.calls(each.corp), each, self.data.clock) for each in self.data.apps)

    @property
    def organisations(self) -> tuple[OrganisationApi, ...]:
        return tuple(OrganisationApi(self.calls(each.corp), each) for each in self.data.organisations)

    @property
    def read_back(self) -> ReadBack:
        return ReadBack(self.context, self.apis, self.data.budget)


def allowance_of(settings: ReconcileSettings) -> Allowance:
    """The calls that reconcile may make for one corp."""
    per_month = settings.calls_per_month
    return Allowance(CALLS_PER_SECOND, settings.calls_per_day or max(1, per_month // 10), per_month)


def app_sync(settings: ReconcileSettings, data: LocalData) -> AppSync:
    """What writes apps into the credentials file.

    Raises:
        ConfigurationError: No credentials file is set, or no corp has a corp token.
    """
    if settings.credentials_file is None:
        raise ConfigurationError("RECONCILE_CREDENTIALS_FILE is required, to write apps into it")
    if not any(each.corp_token for each in data.organisations):
        raise ConfigurationError(f"apps file {settings.apps_file}: no corp has a corp_token, so apps cannot be listed")
    return AppSync(settings.credentials_file, data.store.app_tokens, data.clock)


@contextmanager
def open_data(settings: ReconcileSettings, clock: Clock | None = None) -> Generator[LocalData]:
    """Open the apps file and the data folder.

    Raises:
        ConfigurationError: One of them cannot be used.
        OperatorError: The database cannot be read or written during the block.
    """
    clock = clock or SystemClock()
    file = AppsFile(settings.apps_file, settings.credentials_file)
    database = open_database(settings.data_dir)
    try:
        budget = Budget(database, allowance_of(settings), clock)
        yield LocalData(settings.data_dir, file, Store(database), budget, clock)
    except sqlite3.Error as error:
        raise OperatorError(f"database {settings.data_dir / FILE_NAME}: {error}") from error
    finally:
        database.close()


@asynccontextmanager
async def open_calls(
    settings: ReconcileSettings, data: LocalData, *, on_call: OnCall | None = None
) -> AsyncGenerator[CallsOf]:
    """Open the client of DingTalk. ``on_call`` gets the path and the result of each call."""
    async with open_http(settings.api_url, timeout_s=CALL_TIMEOUT_S) as http:
        yield calls_by_corp(http, data.budget, data.clock, attempts=CALL_ATTEMPTS, on_call=on_call, float_hook=Decimal)


class _Clients(NamedTuple):
    registry: Registry
    calls: CallsOf
    outbox: KafkaOutbox
    reader: PartitionReader


@asynccontextmanager
async def _open_clients(
    settings: ReconcileSettings, data: LocalData, written: list[Topic], *, ids_file: str, on_call: OnCall | None
) -> AsyncGenerator[_Clients]:
    """Open the clients of DingTalk and Kafka, once the schemas of the written topics are known."""
    servers, extra = settings.kafka_bootstrap_servers, read_kafka_config(settings.kafka_config_file)
    registry = Registry(settings.schema_registry_url, ids_path=settings.data_dir / ids_file, properties=extra)
    async with AsyncExitStack() as stack:
        stack.callback(registry.close)
        if not registry.knows(written):
            await asyncio.to_thread(registry.register, written)
        calls = await stack.enter_async_context(open_calls(settings, data, on_call=on_call))
        outbox = KafkaOutbox(servers, extra, registry, data.clock)
        stack.push_async_callback(outbox.close)
        config = {**consumer_config(servers, GROUP, extra), "auto.offset.reset": "error", "enable.auto.commit": False}
        reader = PartitionReader(config)
        stack.callback(reader.close)
        yield _Clients(registry, calls, outbox, reader)


@dataclass(frozen=True)
class FormReader:
    data: LocalData
    calls: CallsOf
    sync: FormSync

    async def run(self) -> None:
        """Publish the values that are due, of the apps in the file now. Raises as ``FormSync.run``."""
        self.data.file.reload_if_changed()
        apis = [YidaApi(self.calls(each.corp), each, self.data.clock) for each in self.data.apps]
        await self.sync.run(apis, [OrganisationApi(self.calls(each.corp), each) for each in self.data.organisations])


def form_rules(settings: ReconcileSettings) -> FormRules:
    """Raises ConfigurationError if the key of hashes cannot be used."""
    key = b""
    if settings.hash_key_file is not None:
        try:
            key = settings.hash_key_file.read_bytes().strip()
        except OSError as error:
            raise ConfigurationError(f"RECONCILE_HASH_KEY_FILE: {error}") from error
        if len(key) < _KEY_BYTES:
            raise ConfigurationError(f"RECONCILE_HASH_KEY_FILE: the key must have {_KEY_BYTES} bytes or more")
    return FormRules(
        wait_ms=int(settings.form_wait_seconds * 1000),
        scan_ms=int(settings.form_scan_hours * 60 * _MINUTE_MS),
        since_ms=settings.form_since_days * DAY_MS,
        check_ms=int(settings.form_deletion_days * DAY_MS),
        hash_key=key,
    )


@asynccontextmanager
async def open_form_reader(
    settings: ReconcileSettings,
    data: LocalData,
    *,
    on_call: OnCall | None = None,
    on_written: Callable[[FormData], None] = lambda _: None,
    on_left_out: Callable[[str, int], None] = lambda _app_type, _values: None,
) -> AsyncGenerator[FormReader]:
    """Open the clients of DingTalk and Kafka; raises as ``open_reconciler``. ``on_…``: as of ``FormSync``."""
    rules, written = form_rules(settings), [TASK_EVENTS, FORM_DATA]
    async with _open_clients(settings, data, written, ids_file="form-schema-ids.json", on_call=on_call) as clients:
        registry, calls, outbox, reader = clients
        codecs = task_event_head_codec(registry, with_form=True), form_data_codec(registry)
        topics = FormTopics(reader, *codecs, outbox)
        callbacks: dict[str, Any] = {"on_written": on_written, "on_left_out": on_left_out}
        sync = FormSync(data.store, topics, data.budget, data.clock, rules, **callbacks)
        yield FormReader(data, calls, sync)


@asynccontextmanager
async def open_reconciler(
    settings: ReconcileSettings, data: LocalData, *, on_call: OnCall | None = None
) -> AsyncGenerator[Reconciler]:
    """Open the clients of DingTalk and Kafka; ``on_call`` as in ``open_calls``.

    Raises:
        ConfigurationError: Kafka's configuration is wrong.
        OperatorError: The registry does not answer.
    """
    clock, written = data.clock, [TASK_EVENTS, PEOPLE, FORMS] if settings.names else [TASK_EVENTS]
    async with _open_clients(settings, data, written, ids_file="schema-ids.json", on_call=on_call) as clients:
        registry, calls, outbox, reader = clients
        states = StatesTopic(reader, registry, data.store.states, clock)
        names: NameSync | None = None
        if settings.names:
            people, forms = (NameTopic(kind, reader, registry, data.store.names, outbox) for kind in (PERSON, FORM))
            names = NameSync(data.store.names, people, forms, data.budget, clock)
        rules = Rules(
            settle_ms=int(settings.settle_minutes * _MINUTE_MS),
            outcomes=settings.outcomes,
            remarks=settings.remarks,
            copies=settings.copies,
            read_back_ms=int(settings.read_back_quiet * 1000),
            forms=settings.form_wait_seconds > 0,
        )
        yield Reconciler(data, calls, Context(data.store, outbox, clock, rules, states.catch_up), names)
