"""The composition root of the streams service."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog

from schemas import topics
from schemas.codec import task_notification_codec, task_state_codec
from schemas.errors import ConfigurationError, OperatorError
from schemas.registry import Registry
from service.garbage import collect_garbage_rarely
from service.kafka import admin_client, consumer_config, producer_config, read_kafka_config
from service.logs import configure_logs
from service.settings import load_settings, partitions_setting
from service.topic_admin import apply_topics
from streams.agents import TaskAgent
from streams.changelog_topic import INBOX_CHANGELOG, INSTANCES_CHANGELOG
from streams.folding_choice import choose_folding
from streams.http import Server, build_http, listen
from streams.metrics import Metrics
from streams.offsets import Offsets
from streams.pages.portals import let_portals_in
from streams.pages.routes import pages_router
from streams.progress import Ends, Progress
from streams.retention import Retention
from streams.rounds import Rounds, claimed
from streams.settings import StreamsSettings
from streams.takeover import Takeover
from streams.task_center import TaskCenter
from streams.topology import APP_ID, Worker, build_faust_app, instances_table, task_events_topic
from streams.watchdog import LoopGuard, Watchdog

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    import faust
    from confluent_kafka.admin import AdminClient

    from streams.recovery import Tables
    from streams.transport import ChunkConsumer

log = structlog.get_logger(__name__)

_CONTRACT = (topics.TASK_EVENTS, topics.TASK_STATES, topics.TASK_NOTIFICATIONS, topics.TASK_EVENTS_DLQ)
_RETRY_MAX_S = 10.0
_STOP_S = 20.0
_CRASH_POLL_S = 0.2


def run(environment: Mapping[str, str] = os.environ) -> None:
    """Run the service until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: before anything is started.
        WorkerFailed: processing cannot go on; a supervisor should start the service again.
    """
    settings = load_settings(StreamsSettings, environment)
    center = TaskCenter(settings)
    configure_logs(settings.log_format, settings.log_level)
    logging.getLogger().addHandler(center.operations.errors)
    asyncio.run(_serve(settings, partitions_setting(environment), center))


class WorkerFailed(OperatorError):
    """The worker stopped by itself; the log before it says why."""


@dataclass(slots=True)
class _Health:
    """What readiness is told of: the steps of the start, then the worker itself."""

    connected: bool = False
    faust_app: faust.App | None = None
    progress: Progress | None = None
    core: str | None = None
    problems: list[str] = field(default_factory=list[str])

    def readiness(self) -> dict[str, Any]:
        app = self.faust_app
        tables = app is not None and app.tables.actives_ready and not app.rebalancing and not app.should_stop
        return {
            "ready": self.connected and tables,
            "kafka_and_registry": "connected" if self.connected else "waiting",
            "tables": "live" if tables else "recovering",
            "core": self.core,
            "problems": self.problems,
            **({} if self.progress is None else self.progress.details()),
        }


async def _serve(settings: StreamsSettings, partitions: int, center: TaskCenter) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    health, metrics = _Health(), Metrics()
    http = build_http(
        health.readiness,
        metrics,
        routers=center.routers if settings.task_center else (),
        only_hosts=center.only_hosts,
    )
    if settings.task_center:
        http.include_router(pages_router())
    let_portals_in(http, settings.allowed_origins)
    server = Server(http)
    serving = asyncio.create_task(server.serve([listen(settings.host, settings.port)]))
    try:
        await _work(settings, partitions=partitions, center=center, health=health, metrics=metrics, stop=stop)
    finally:
        server.should_exit = True
        await serving
        await center.close()


async def _work(
    settings: StreamsSettings,
    *,
    partitions: int,
    center: TaskCenter,
    health: _Health,
    metrics: Metrics,
    stop: asyncio.Event,
) -> None:
    properties = read_kafka_config(settings.kafka_config_file)
    servers = settings.kafka_bootstrap_servers
    registry = Registry(settings.schema_registry_url, ids_path=settings.data_dir / "schema-ids.json")
    contract = _Contract(admin_client(servers, properties), registry, partitions, _changelogs(settings))
    found = await _until_connected(contract, health, stop)
    if found is None:
        return
    worker = Worker(
        data_dir=settings.data_dir,
        url=settings.url,
        standbys=settings.standbys,
        session_timeout_s=settings.session_timeout_s,
        restore_buffer_bytes=settings.restore_buffer_bytes,
    )
    app = build_faust_app(servers, worker=worker, partitions=found, kafka_properties=properties)
    offsets = Offsets(consumer_config(servers, APP_ID, properties))
    rounds = _rounds(app, offsets, producer_config(servers, properties))
    store, changelog = instances_table(app, partitions=found)
    folding = choose_folding(registry, live_instances=settings.live_instances)
    health.core = folding.core
    agent = TaskAgent(
        app,
        store=store,
        changelog=changelog,
        folding=folding,
        rounds=rounds,
        notifications=task_notification_codec(registry),
        notification_bytes=await asyncio.to_thread(_notification_bytes, offsets),
        metrics=metrics,
    )
    app.agent(task_events_topic(app), name="tasks")(agent.run)
    if settings.task_center:
        center.open(
            app,
            partitions=found,
            instances=store,
            changelog=changelog,
            live=lambda: _actives(app, changelog),
            rounds=rounds,
            offsets=offsets,
            consumer=consumer_config(servers, APP_ID, properties),
            registry=registry,
            metrics=metrics,
        )
    health.faust_app = app
    collect_garbage_rarely()
    retention = Retention(
        agent, store, task_state_codec(registry), actives=lambda: _actives(app, changelog), days=settings.retention_days
    )
    health.progress = Progress(
        app,
        ends=Ends(offsets),
        inbox_ends=Ends(offsets, topics.TASK_NOTIFICATIONS.name) if settings.task_center else None,
        metrics=metrics,
        watchdog=Watchdog(settings.watchdog_s),
        guard=LoopGuard(settings.watchdog_s),
    )
    center.operations.follow(health.progress, lambda: bool(health.readiness()["ready"]))
    # Faust's start returns when the tables are recovered: told to stop, the worker does not wait for that.
    starting = asyncio.create_task(app.start())
    watching = asyncio.create_task(health.progress.watch())
    letting_go = asyncio.create_task(_or_crash(app, retention.keep()))
    keeping = asyncio.create_task(center.watch())
    try:
        log.info("starting", partitions=found, data_dir=str(settings.data_dir))
        while not stop.is_set() and not app.crashed:
            if starting.done():
                await starting
            if watching.done():
                metrics.stuck()
                log.error("stopping: the worker stands still", problem=str(watching.exception()), **health.readiness())
                # As a crash: then nobody waits for the chunk that does not end.
                await app.crash(cast("BaseException", watching.exception()))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), _CRASH_POLL_S)
        if app.crashed:
            raise WorkerFailed(f"the worker crashed: {app.crash_reason}") from app.crash_reason
    finally:
        # First: their clients look for another worker while this one finishes.
        center.stop()
        await _end(app, starting, watching, letting_go, keeping)
        await rounds.close()
        registry.close()
        log.info("stopped")


def _changelogs(settings: StreamsSettings) -> list[topics.Topic]:
    return [INSTANCES_CHANGELOG, INBOX_CHANGELOG] if settings.task_center else [INSTANCES_CHANGELOG]


async def _end(app: faust.App, *tasks: asyncio.Task[Any]) -> None:
    """Bounded: whatever is not finished is not acknowledged either, and comes again."""
    for task in tasks:
        task.cancel()
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(app.stop(), _STOP_S)


def _notification_bytes(offsets: Offsets) -> int:
    """What the broker really takes, or nearly always does; never more than an inbox can keep of one."""
    with suppress(TimeoutError):
        found = offsets.largest_record(topics.TASK_NOTIFICATIONS.name)
        if found is not None:
            return min(found, topics.USUAL_MESSAGE_BYTES)
    return topics.USUAL_MESSAGE_BYTES


def _actives(app: faust.App, changelog: str) -> frozenset[int]:
    """The partitions whose instances this worker changes now; none while they are being sorted out."""
    tables = cast("Tables", app.tables)
    if app.rebalancing or not tables.actives_ready or changelog not in tables.recovery.wanted:
        return frozenset()
    return tables.recovery.wanted[changelog].actives


async def _or_crash(app: faust.App, work: Coroutine[Any, Any, None]) -> None:
    """What the worker cannot do without: its error is the worker's."""
    try:
        await work
    except Exception as error:
        log.exception("stopping: upkeep failed")
        await app.crash(error)


def _rounds(app: faust.App, offsets: Offsets, producing: Mapping[str, object]) -> Rounds:
    """What writes for this worker, and what makes sure at a takeover that nobody else does any more."""
    producing = {**producing, "linger.ms": 0}
    name = app.conf.consumer_group_instance_id
    rounds = Rounds(
        producing, group=APP_ID, name=name, membership=lambda: cast("ChunkConsumer", app.consumer).membership
    )
    takeover = Takeover(offsets, rounds, group=APP_ID, name=name, claim=partial(claimed, producing))
    cast("Tables", app.tables).takeover = takeover
    return rounds


@dataclass(frozen=True, slots=True)
class _Contract:
    """Brings topics and schemas to the contract."""

    admin: AdminClient
    registry: Registry
    partitions: int
    changelogs: Sequence[topics.Topic]

    def apply(self) -> int:
        """Blocking; returns the number of partitions that the events have."""
        reports = apply_topics(self.admin, _CONTRACT, partitions=self.partitions)
        found = next(report.partitions for report in reports if report.name == topics.TASK_EVENTS.name)
        # With as many partitions as the events, or no state would be where its events are.
        reports += apply_topics(self.admin, self.changelogs, partitions=found)
        if not self.registry.knows(_CONTRACT):
            self.registry.register(_CONTRACT)
        for report in reports:
            for line in report.drift:
                log.warning("a topic differs from the contract", topic=report.name, drift=line)
            if report.unchecked is not None:
                log.warning("a topic could not be checked", topic=report.name, problem=report.unchecked)
        return found


async def _until_connected(contract: _Contract, health: _Health, stop: asyncio.Event) -> int | None:
    """Wait for Kafka and the registry, however long; the number of event partitions, or None when told to stop."""
    delay = 0.5
    while not stop.is_set():
        try:
            found = await asyncio.to_thread(contract.apply)
        except OperatorError as error:
            health.problems = [str(error)]
            log.warning("waiting for Kafka and the registry", problem=str(error))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), delay)
            delay = min(delay * 2, _RETRY_MAX_S)
        else:
            health.connected, health.problems = True, []
            return found
    return None


def main() -> None:
    """For ``python -m streams.app``: one readable line and exit code 1 when it cannot run."""
    try:
        run()
    except (ConfigurationError, OperatorError) as error:
        sys.exit(f"taskbridge streams: {error}")


if __name__ == "__main__":
    main()
