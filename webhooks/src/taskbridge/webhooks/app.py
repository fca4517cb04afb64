"""The composition root of webhooks: settings, signals, the follower, the couriers and the HTTP side."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaException

from taskbridge.runtime.access import OnlyOwnHosts
from taskbridge.runtime.database import Database, DatabaseUnavailable, Threads, database_of, purge_hourly
from taskbridge.runtime.follow.follower import Follower
from taskbridge.runtime.guard import Guard
from taskbridge.runtime.kafka import read_kafka_config
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.migrations import check_revision, migrate
from taskbridge.runtime.openapi import without_security
from taskbridge.runtime.operation import operation_app, serve_until_stopped
from taskbridge.runtime.refusals import answer_refusals
from taskbridge.runtime.settings import load_settings, run_program
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.registry import Registry
from taskbridge.webhooks import store
from taskbridge.webhooks.dispatcher import LOOK_S, Dispatcher
from taskbridge.webhooks.endpoints import Endpoint, EndpointsFile
from taskbridge.webhooks.metrics import Metrics
from taskbridge.webhooks.migrations import FOLDER
from taskbridge.webhooks.notifications import Notifications, People
from taskbridge.webhooks.operations import Operations
from taskbridge.webhooks.present import PresentEntries
from taskbridge.webhooks.routes import Operators, operators_router
from taskbridge.webhooks.settings import WebhooksSettings
from taskbridge.webhooks.store import EndpointState, Waiting

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Mapping

    from fastapi import FastAPI


_COUNT_S, _END_S = 5.0, 10.0
_COUNT_PAUSES = 50
"""How many times as long as it took to count, counting waits."""

log = structlog.get_logger(__name__)


def run(environment: Mapping[str, str] = os.environ) -> None:
    """Deliver until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: before anything is started; also if another process uses the data folder.
        OperatorError: the database cannot be used.
    """
    settings = load_settings(WebhooksSettings, environment)
    with database_of("webhooks", settings) as database:
        configure_logs(settings.log_format, settings.log_level)
        check_revision(database, FOLDER, service="webhooks")
        asyncio.run(Webhooks(settings, database, EndpointsFile(settings.endpoints_file, environment)).serve())


def migrate_tables(environment: Mapping[str, str] = os.environ) -> str | None:
    """Bring the tables to this release; returns their revision."""
    settings = load_settings(WebhooksSettings, {"WEBHOOKS_ENDPOINTS_FILE": os.devnull, **environment})
    with database_of("webhooks", settings) as database:
        return migrate(database, FOLDER)[1]


@contextmanager
def operations(environment: Mapping[str, str] = os.environ) -> Generator[Operations]:
    """For a command; the service may run meanwhile, also with an older version of an invalid file."""
    settings = load_settings(WebhooksSettings, environment)

    def endpoints() -> Mapping[str, Endpoint]:
        return EndpointsFile(settings.endpoints_file, environment).current.by_name

    with closing(Threads(1)) as threads, database_of("webhooks", settings, alone=False) as database:
        check_revision(database, FOLDER, service="webhooks")
        yield Operations(database, endpoints, Guard(settings.allowed_networks), threads)


class Webhooks:
    def __init__(self, settings: WebhooksSettings, database: Database, file: EndpointsFile) -> None:
        self._settings, self._database, self._file = settings, database, file
        self._guard = Guard(settings.allowed_networks)
        self._threads = Threads(8)
        self.metrics = Metrics()
        self._operators = Operators(settings)
        self.operations = Operations(database, lambda: file.current.by_name, self._guard, self._threads)
        self._files = [file] if (tokens := self._operators.tokens) is None else [file, tokens]
        self._states: dict[str, EndpointState] = {}
        self._registered: dict[str, Endpoint] = {}
        """Endpoints of the file that the database knows: for them, notifications become deliveries."""
        self._is_following = False
        self._waiting: dict[str, Waiting] = {}
        self._counts_due = 0.0
        self._measured: object = None
        """What the metrics show: with 200 endpoints, six hundred are not set each second to what they were."""
        self._problem: str | None = "the database was not read yet"
        self._kafka = read_kafka_config(settings.kafka_config_file)
        ids_path = settings.data_dir / "schema-ids.json"
        self._registry = Registry(settings.schema_registry_url, ids_path=ids_path, properties=self._kafka)

    async def serve(self) -> None:
        self.dispatcher = Dispatcher(self._database, self._guard, self.metrics, self._threads, self.operations.other_id)
        self.follower = Follower(
            self._database,
            "notifications",
            [
                Notifications(self._database, self._registry, lambda: self._registered, self.dispatcher.claim),
                People(self._database, self._registry),
            ],
            service="webhooks",
            servers=self._settings.kafka_bootstrap_servers,
            kafka=self._kafka,
            on_change=self.dispatcher.send,
        )
        await serve_until_stopped(
            self.http(),
            service="webhooks",
            address=(self._settings.host, self._settings.port),
            end_s=_END_S,
            start=self._start,
            close=self._close,
        )

    async def _start(self) -> list[Coroutine[Any, Any, None]]:
        await self.look()
        purge = purge_hourly(self.purge)
        return [self._watch(), self._add_present(), purge, *(each.watch() for each in self._files)]

    async def _close(self) -> None:
        await asyncio.to_thread(self.follower.stop)
        await self.dispatcher.stop()
        self._registry.close()
        self._threads.close()

    def http(self) -> FastAPI:
        """The application; nothing is connected for it."""
        http = operation_app(
            "webhooks",
            readiness=self.readiness,
            ready="Ready when the database answers and notifications are read",
            registry=self.metrics.registry,
            amend=without_security if self._operators.tokens is None else lambda _document: None,
        )
        answer_refusals(http, lambda: None)
        http.include_router(operators_router(self.operations, self._operators, self._threads, self.metrics.recent))
        if (hosts := self._operators.only_hosts) is not None:
            http.add_middleware(OnlyOwnHosts, hosts=hosts)
        return http

    def readiness(self) -> dict[str, Any]:
        health = self.follower.health()
        files = [each.problem for each in self._files]
        problems = [self._problem, health.problem, self.dispatcher.problem, *files]
        return {
            "ready": self._problem is None and health.problem is None,
            "database": "connected" if self._problem is None else "unavailable",
            "kafka": "connected" if health.problem is None else "waiting",
            "lag": health.lag,
            "endpoints": {
                name: state.condition if name in self._registered else "removed"
                for name, state in sorted(self._states.items())
                if name in self._registered or name in self._waiting
            },
            "problems": list(dict.fromkeys(each for each in problems if each is not None)),
        }

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Use the endpoints of the file, and what any replica or command has said of them."""
        endpoints = dict(self._file.current.by_name)
        self.metrics.endpoints_usable.set(self._file.broken is None)
        try:
            await self._read(endpoints)
        except DatabaseUnavailable as error:
            if self._problem != str(error):
                log.warning("database_unavailable", problem=str(error))
            self._problem = str(error)
            return
        except Exception as error:
            # The service would end, and after its restart again.
            log.exception("look_failed")
            self._problem = f"the endpoints cannot be read from the database: {type(error).__name__}"
            return
        self._problem = None
        self._registered = endpoints
        if not self._is_following:
            # Not before: what it reads becomes deliveries for the endpoints that are known, and for no others.
            self._is_following = True
            self.follower.start()
        await self.dispatcher.use(endpoints, self._states)
        measured = set(endpoints), self._states, self._waiting
        if measured == self._measured:
            return
        self._measured = measured
        for name, state in self._states.items():
            waiting = self._waiting.get(name, Waiting())
            if name in endpoints:
                self.metrics.state(name, waiting, disabled=state.disabled is not None)
            else:
                self.metrics.removed(name, waiting)

    async def _read(self, endpoints: Mapping[str, Endpoint]) -> None:
        """The states, and what waits: also for endpoints that are no longer in the file."""
        starts = {name: each.entry.start == "present" for name, each in endpoints.items()}
        if starts.keys() <= self._states.keys():
            self._states = await self._threads.run(store.states, self._database)
        else:
            self._states = await self._threads.run(store.register, self._database, starts)
        if time.monotonic() >= self._counts_due:
            began = time.monotonic()
            self._waiting = await self._threads.run(store.waiting, self._database, list(self._states))
            # To count a million rows takes half a second.
            self._counts_due = time.monotonic() + max(_COUNT_S, _COUNT_PAUSES * (time.monotonic() - began))

    async def _add_present(self) -> None:
        """For each endpoint that starts with what is present."""
        entries = PresentEntries(
            self._database, self._registry, servers=self._settings.kafka_bootstrap_servers, kafka=self._kafka
        )
        while True:
            await asyncio.sleep(LOOK_S)
            # Once live notifications come in: those of changes that are read here come after them.
            if self.follower.health().problem is not None:
                continue
            missing = {
                name: each
                for name, each in self._registered.items()
                if (state := self._states.get(name)) is not None and not state.has_present
            }
            if missing:
                try:
                    await asyncio.to_thread(entries.add, missing, self.dispatcher.added)
                except (KafkaException, OperatorError) as error:
                    log.warning("present_entries_interrupted", problem=str(error))
                except Exception:  # the service would end, and after its restart again
                    log.exception("present_entries_failed")

    def purge(self) -> None:
        """Delete what is old."""
        known, states = self._file.current.by_name, store.states(self._database)
        idle = [name for name, state in states.items() if name not in known or state.disabled is not None]
        log.info("old_deliveries_deleted", rows=store.purge(self._database, idle))


def main() -> None:
    does = "Deliver notifications over HTTP"
    run_program("webhooks", run, does=does, needs="WEBHOOKS_ENDPOINTS_FILE=endpoints.toml ")


if __name__ == "__main__":
    main()
