"""The composition root of the task center: settings, signals, the HTTP side, the followers and the database."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import false

from taskbridge.center.access.access import build_access
from taskbridge.center.access.audit import Audit, Logged, purge, verify
from taskbridge.center.access.delegations import Delegations
from taskbridge.center.access.oidc import provider_of
from taskbridge.center.access.sessions import Sessions, end_sessions_of
from taskbridge.center.actions.agents import Agents
from taskbridge.center.actions.day_calls import DayCalls
from taskbridge.center.actions.dispatcher import ActionDispatcher
from taskbridge.center.actions.store import Actions
from taskbridge.center.actions.systems import Received, systems_of
from taskbridge.center.api.actions import actions_router
from taskbridge.center.api.audit import audit_router
from taskbridge.center.api.comments import CommentReader, comments_router
from taskbridge.center.api.current_form import NewestForms
from taskbridge.center.api.delegations import delegations_router
from taskbridge.center.api.events import HoldsStreams, events_router
from taskbridge.center.api.leavers import leavers_router
from taskbridge.center.api.marks import MarksStore
from taskbridge.center.api.personal import personal_router
from taskbridge.center.api.push import push_router
from taskbridge.center.api.queries import Queries
from taskbridge.center.api.routes import lists_router
from taskbridge.center.api.start import StartLists, start_router
from taskbridge.center.api.talk import Talk
from taskbridge.center.api.waiting import waiting_router
from taskbridge.center.erasure import Erasure
from taskbridge.center.filling import Filling
from taskbridge.center.follow.lists import Forms, People, States
from taskbridge.center.follow.records import DeadLetters, Events, Quarantine
from taskbridge.center.live.hub import Hub
from taskbridge.center.metrics import PREFIX, Metrics
from taskbridge.center.migrations import FOLDER
from taskbridge.center.moving import copy_own
from taskbridge.center.operations.reporting import OperationsReporter
from taskbridge.center.operations.routes import operations_router
from taskbridge.center.reminders.channels import NotSent
from taskbridge.center.reminders.devices import Devices
from taskbridge.center.reminders.file import Reminders, RemindersFile
from taskbridge.center.reminders.reminding import Reminding
from taskbridge.center.server import build_http
from taskbridge.center.settings import settings_class
from taskbridge.center.tables import FOLLOWED, Person
from taskbridge.center.web.routes import let_portals_in, pages_router
from taskbridge.center.web.sign_in import sign_in_router
from taskbridge.runtime import migrations
from taskbridge.runtime.access import own_hosts
from taskbridge.runtime.database import Database, DatabaseDamaged, Threads, database_of, purge_hourly
from taskbridge.runtime.follow import positions
from taskbridge.runtime.follow.follower import Follower
from taskbridge.runtime.follow.metrics import FollowerCollector
from taskbridge.runtime.kafka import read_kafka_config
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.operation import serve_until_stopped
from taskbridge.runtime.process import allow_open_files, switch_threads_sooner
from taskbridge.runtime.refusals import NotNow
from taskbridge.runtime.settings import load_settings, run_program
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence

    from fastapi import FastAPI

    from taskbridge.center.assistants.parts import Assistants
    from taskbridge.center.reminders.due import DueRules
    from taskbridge.center.reminders.messages import Notice
    from taskbridge.center.settings import CenterSettings
    from taskbridge.runtime.settings import ReloadedFile

_FOLLOWERS = {"lists": (States, People, Forms), "records": (Events, Quarantine, DeadLetters)}
"""Lists do not wait for histories."""
_SQLITE_THREADS, _POSTGRESQL_THREADS = (5, 1), (9, 5)
"""For queries, and for what writes: of 5, a caller has 2. SQLite has one writer at a time."""
_ANSWER_S = 10.0
"""A database that is frozen must not hold clients: a proxy in front would give up later without a reason."""
_END_S = 8.0
"""For open requests, and for threads that wait for Kafka or the database."""
_NO_REMINDERS = Reminders()
_OWN_FILES = 1024
"""Connections to Kafka and the database, and clients that are not event streams."""

log = structlog.get_logger(__name__)


def run(environment: Mapping[str, str] = os.environ) -> None:
    """Run the task center until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: before anything is started; also if another process uses the data folder.
        OperatorError: the database cannot be used.
    """
    switch_threads_sooner()
    settings = load_settings(settings_class(), environment)
    with database_of("center", settings) as database:
        configure_logs(settings.log_format, settings.log_level)
        migrations.check_revision(database, FOLDER, service="center")
        if database.is_sqlite:
            positions.note_boot(database)
        asyncio.run(Center(settings, database).serve())


def migrate(environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """Bring the tables to this release; returns the revisions ``from`` and ``to``."""
    with database_of("center", load_settings(settings_class(), environment)) as database:
        before, after = migrations.migrate(database, FOLDER)
    return {"from": before, "to": after}


def verify_audit(environment: Mapping[str, str] = os.environ, *, logged: Logged | None = None) -> dict[str, int | None]:
    """Check the chain of the audit trail; returns the number of ``entries``, and the first that is ``broken``.

    ``logged`` is an entry that it must have. Raises ConfigurationError if that was deleted as too old.
    """
    with database_of("center", _settings_in_use(environment), alone=False) as database:
        entries, broken = verify(database, logged)
    return {"entries": entries, "broken": broken}


def copy_from(
    folder: Path, environment: Mapping[str, str] = os.environ, *, report: Callable[[str], None]
) -> dict[str, Any]:
    """Copy what people entered from the SQLite database in ``folder`` to the empty PostgreSQL of the settings.

    Returns the ``rows`` by table, and what ``verify_audit`` says of the copy. Raises ConfigurationError.
    """
    settings = load_settings(settings_class(), environment)
    if settings.database_url is None:
        raise ConfigurationError("CENTER_DATABASE_URL must name the database to copy to: set it as for the service")
    if not (folder / "center.db").is_file():
        raise ConfigurationError(f"{folder} has no database center.db: give the CENTER_DATA_DIR of the stopped service")
    before = settings.model_copy(update={"database_url": None, "data_dir": folder})
    with database_of("center", before) as source, database_of("center", settings) as target:
        for each in (source, target):
            migrations.check_revision(each, FOLDER, service="center")
        rows = copy_own(source, target, report)
    return {"rows": rows, **verify_audit(environment)}


def end_sessions(person: Person, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """End all sessions of a person, while the service may run; returns how many ``ended``.

    If any did, ``entry`` and ``sha256`` are the number and the hash of the entry in the audit trail.
    """
    with _database_in_use(environment) as database:
        ended, entry = end_sessions_of(database, person)
    return {"ended": ended} | ({} if entry is None else {"entry": entry.seq, "sha256": entry.sha256})


@contextmanager
def erasure(environment: Mapping[str, str] = os.environ) -> Generator[Erasure]:
    """What erases people. The service may run meanwhile, also on SQLite. Raises ConfigurationError."""
    with _database_in_use(environment) as database:
        yield Erasure(database)


@contextmanager
def _database_in_use(environment: Mapping[str, str]) -> Generator[Database]:
    """The database of the settings, next to a service that uses it. Raises ConfigurationError if there is none."""
    with database_of("center", _settings_in_use(environment), alone=False) as database:
        migrations.check_revision(database, FOLDER, service="center")
        yield database


def _settings_in_use(environment: Mapping[str, str]) -> CenterSettings:
    """The settings of a center that has run: a command that reads or repairs its database must not create one."""
    settings = load_settings(settings_class(), environment)
    if settings.database_url is None and not (settings.data_dir / "center.db").is_file():
        raise ConfigurationError(
            f"CENTER_DATA_DIR={settings.data_dir} has no database: set it, or CENTER_DATABASE_URL, as for the service;"
            " for a stopped 'taskbridge up', set TASKBRIDGE_DATA_DIR"
        )
    return settings


def rebuild(environment: Mapping[str, str] = os.environ) -> dict[str, int]:
    """Drop what follows the topics, so that it is read again; returns the number of rows dropped by table.

    Replicas on PostgreSQL may run meanwhile. A damaged SQLite file is set aside. Raises ConfigurationError if there is
    no database.
    """
    with database_of("center", _settings_in_use(environment)) as database:
        try:
            return _drop(database)
        except DatabaseDamaged:
            database.close()
            _set_aside(Path(database.engine.url.database or ""))
            return _drop(database)


def _drop(database: Database) -> dict[str, int]:
    if database.is_sqlite:
        migrations.migrate(database, FOLDER)
    return positions.rebuild(database, FOLLOWED)


def _set_aside(path: Path) -> None:
    suffix = f"damaged-{time.strftime('%Y%m%dT%H%M%S')}"
    for each in path.parent.glob(f"{path.name}*"):
        if ".damaged-" not in each.name:
            each.rename(f"{each}.{suffix}")
    log.warning("database_set_aside", path=f"{path}.{suffix}")


class Center:
    def __init__(self, settings: CenterSettings, database: Database) -> None:
        """Raise ConfigurationError if the settings of access, the addresses or a file are wrong."""
        self._settings, self._database = settings, database
        readers, writers = _SQLITE_THREADS if database.is_sqlite else _POSTGRESQL_THREADS
        self._threads = Threads(readers, writers=writers, answer_s=_ANSWER_S)
        self.filling = Filling(database, self._threads)
        path = settings.reminders_file
        self.reminders_file = reminders = None if path is None else RemindersFile(path)
        complete = self.filling.complete
        all_people = self.filling.all_people
        self._start_lists, self._day_calls = StartLists(database), DayCalls(database)
        self.systems = systems_of(settings)
        self.systems.count_by(partial(self._threads.write, self._day_calls.use))
        self._queries = Queries(
            database,
            self._due_rules,
            complete=complete,
            all_people=all_people,
            opens_files=lambda corp, source, app: self.systems.file_opener(corp, source, app) is not None,
            reads_forms=lambda corp, source, app: self.systems.form_reader(corp, source, app) is not None,
        )
        self._forms = NewestForms(self.systems.form_reader)
        self._marks = MarksStore(database, complete)
        self.hub = Hub(database, most=_most_streams(settings.event_streams), due_rules=self._due_rules)
        self._sessions: Sessions | None = None
        self._provider = provider_of(settings, self._users_of)
        if self._provider is not None:
            idle_s, longest_s = settings.session_idle_minutes * 60, settings.session_hours * 3600
            self._sessions = Sessions(database, self._threads, idle_s=idle_s, longest_s=longest_s, ended=self.hub.check)
        self.audit = Audit(database, self._threads)
        self.access = build_access(settings, self._users_of, self._sessions, self.audit)
        self.metrics = Metrics()
        self._actions = Actions(database, complete)
        self.dispatcher = ActionDispatcher(
            self._actions,
            self._threads,
            self.systems,
            ended=lambda status: self.metrics.actions.labels(status).inc(),
        )
        self._reading = CommentReader(lambda result: self.metrics.comment_reads.labels(result).inc())
        self._assistants = self._build_assistants() if settings.mcp else None
        kafka = read_kafka_config(settings.kafka_config_file)
        ids_path = settings.data_dir / "schema-ids.json"
        self._registry = Registry(settings.schema_registry_url, ids_path=ids_path, properties=kafka)
        self.followers = [
            Follower(
                database,
                name,
                [topic(database, self._registry) for topic in topics],
                service="center",
                servers=settings.kafka_bootstrap_servers,
                kafka=kafka,
                on_change=self.hub.changed,
            )
            for name, topics in _FOLLOWERS.items()
        ]
        self._devices = Devices(database, (lambda _now: false()) if self._sessions is None else self._sessions.lives)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reminding: Reminding | None = None
        if reminders is not None:
            filling = self.filling
            self._reminding = Reminding(
                database,
                reminders,
                self.metrics.reminders,
                lambda: filling.is_complete() and filling.people_complete,
                complete=complete,
                url=settings.public_url,
                devices=self._devices,
                notify=self._notify,
            )
        self.operations = OperationsReporter(
            settings, database, self._threads, self.readiness, streams=lambda: self.hub.count
        )
        self.metrics.filled.set_function(lambda: self.filling.ratio)
        self.metrics.registry.register(FollowerCollector(PREFIX, lambda: [each.health() for each in self.followers]))
        self.metrics.registry.register(self.hub)
        if (tokens := self.access.tokens) is not None:
            self.metrics.tokens_usable.set_function(lambda: tokens.broken is None)
        if reminders is not None:
            self.metrics.reminders_usable.set_function(lambda: reminders.broken is None)

    async def serve(self) -> None:
        """Follow the topics and answer, until a signal comes."""
        logging.getLogger().addHandler(self.operations.errors)
        await serve_until_stopped(
            HoldsStreams(let_portals_in(self.http(), self._settings.allowed_origins)),
            service="center",
            address=(self._settings.host, self._settings.port),
            end_s=_END_S,
            start=self._start,
            stopping=self.hub.stop,
            close=self._close,
        )

    async def _start(self) -> list[Coroutine[Any, Any, None]]:
        self._loop = asyncio.get_running_loop()
        await self.filling.look()
        for each in self.followers:
            each.start()
        files = [each.watch() for each in self._files()]
        sessions = [] if self._sessions is None else [self._sessions.watch()]
        reminding = [] if self._reminding is None else [self._reminding.run()]
        days = self._settings.audit_days
        purges = lambda: purge(self._database, days=days), self._marks.purge, self._actions.purge
        purges += self._day_calls.purge, self._start_lists.purge
        assistants = self._assistants
        purging = [purge_hourly(each) for each in (*purges, *(() if assistants is None else assistants.purges))]
        serving = [] if assistants is None else [assistants.run()]
        running = [self.filling.watch(), self.hub.run(), self.operations.run(), self.dispatcher.run()]
        return [*running, *serving, *purging, *files, *sessions, *reminding]

    async def _close(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(each.stop) for each in self.followers))
        await self.operations.close()
        await self.dispatcher.close()
        self._registry.close()
        self._threads.close()

    def _build_assistants(self) -> Assistants:
        """Raises ConfigurationError if their library is not installed."""
        try:
            from taskbridge.center.assistants.parts import Assistants  # noqa: PLC0415 - of an extra
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"CENTER_MCP=on: install taskbridge-center[mcp] ({error})") from error
        return Assistants(
            self._settings,
            self._database,
            self._threads,
            self.access,
            provider=self._provider,
            queries=self._queries,
            store=self._actions,
            systems=self.systems,
            reading=self._reading,
            forms=self._forms,
            complete=self.filling.complete,
            wake=self.dispatcher.wake,
        )

    def http(self) -> FastAPI:
        """The application; nothing is connected for it."""
        routers = [
            # Before the route of an instance, whose id may have slashes.
            comments_router(
                self.access,
                self._queries,
                Talk(self._database, self.systems, self.filling.complete),
                self._threads,
                systems=self.systems,
                wake=self.dispatcher.wake,
                reading=self._reading,
            ),
            lists_router(
                self.access,
                self._queries,
                self._threads,
                apps_of=lambda person: self._reminders().apps_of(person),
                file_opener=self.systems.file_opener,
                forms=self._forms,
                has_forms=lambda corp_id: bool(self.systems.starts(corp_id)),
            ),
            start_router(self.access, self._queries, self._threads, self._start_lists, starts_of=self.systems.starts),
            actions_router(
                self.access,
                self._actions,
                self._queries.people,
                self._threads,
                systems=self.systems,
                wake=self.dispatcher.wake,
            ),
            leavers_router(self.access, self._actions, self._threads, systems=self.systems, wake=self.dispatcher.wake),
            personal_router(self.access, self._marks, self._database, self._threads),
            push_router(self.access, self._devices, self._threads, self._reminders),
            waiting_router(self._database, self._threads, self.access, self.filling.complete, self._reminders),
            events_router(self.hub, self.access),
            operations_router(self.operations, self.access),
            delegations_router(
                self.access,
                Delegations(self._database, self.filling.complete),
                self._queries,
                self._threads,
                agents=self.systems.agents,
                at_yida=Agents(self._database, self.systems),
                wake=self.dispatcher.wake,
            ),
            audit_router(self.audit, self.access, self._database, self._threads),
            pages_router(),
        ]
        if self._assistants is not None:
            # Before the route of an instance as well.
            routers[:0] = self._assistants.routers
        if self._provider is not None and self._sessions is not None:
            routers.append(sign_in_router(self._provider, self._sessions, self.access))
        only_hosts = own_hosts(self._settings.host) if self.access.is_open else None
        return build_http(self.readiness, self.metrics, routers=routers, only_hosts=only_hosts)

    async def readiness(self) -> dict[str, Any]:
        health = [each.health() for each in self.followers]
        problems = [self.filling.problem, self.filling.idle, *(each.problem for each in health)]
        problems += [each.problem for each in self._files()]
        return {
            "ready": self.filling.problem is None and self.filling.is_complete(),
            **self.filling.details(),
            "kafka": "connected" if all(each.problem is None for each in health) else "waiting",
            "lag": {each.group: each.lag for each in health},
            "problems": list(dict.fromkeys(each for each in problems if each is not None)),
        }

    def _files(self) -> list[ReloadedFile[Any]]:
        rules = None if self._assistants is None else self._assistants.rules
        found = self.access.tokens, *self.systems.files, self.reminders_file, rules
        return [each for each in found if each is not None]

    def _reminders(self) -> Reminders:
        return _NO_REMINDERS if self.reminders_file is None else self.reminders_file.current

    def _notify(self, notice: Notice) -> None:
        """For the thread that sends reminders: the connections are the event loop's. Raises NotSent."""
        assert self._loop is not None
        answer = asyncio.run_coroutine_threadsafe(self.systems.notify(notice), self._loop).result()
        if answer.received is not Received.ACCEPTED:
            raise NotSent(answer.detail or answer.received.value, is_final=answer.received is Received.UNCLEAR)

    def _due_rules(self) -> DueRules:
        return self._reminders().due

    async def _users_of(self, corp_id: str, kind: str | None, value: str) -> Sequence[str]:
        users = await self._threads.run(self._queries.users_of, corp_id, kind, value)
        if not users:  # perhaps because they were dropped since the last look
            await self.filling.look()
        # In this order: a person who is not read yet may have the id too.
        if not self.filling.people_complete:
            raise NotNow("the signed-in person is unknown while not all people are read: see /readyz")
        return users


def _most_streams(requested: int) -> int:
    """So many event streams, as far as the process may open files for them."""
    most = max(1, allow_open_files(requested + _OWN_FILES) - _OWN_FILES)
    if most < requested:
        log.warning("event_stream_limit_lowered", streams=most)
    return min(most, requested)


def main() -> None:
    run_program("center", run, does="Run the task center")


if __name__ == "__main__":
    main()
