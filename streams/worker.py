"""One worker: put together once Kafka and the registry answer, and run until it is told to stop or cannot go on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import structlog
from confluent_kafka import KafkaException

from schemas import topics
from schemas.codec import task_notification_codec, task_state_codec
from schemas.errors import OperatorError
from schemas.registry import Registry
from service.garbage import collect_garbage_rarely
from service.kafka import admin_client, bulk_producer_config, consumer_config, read_kafka_config
from streams.agents import TaskAgent
from streams.commit.rounds import Rounds, claimed
from streams.commit.takeover import Takeover
from streams.contract import Contract, notification_bytes, until_connected
from streams.fold.folding_choice import choose_folding
from streams.live_version import AnotherVersion, LiveVersion
from streams.progress import Ends, Progress
from streams.retention import Retention
from streams.tables.offsets import Offsets
from streams.topology import (
    APP_ID,
    Worker,
    build_faust_app,
    instances_table,
    remove_other_versions,
    task_events_topic,
)
from streams.watchdog import LoopGuard, Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    import faust

    from streams.commit.transport import ChunkConsumer
    from streams.contract import Prepared
    from streams.health import Health
    from streams.metrics import Metrics
    from streams.settings import StreamsSettings
    from streams.tables.recovery import Tables
    from streams.task_center import TaskCenter

log = structlog.get_logger(__name__)

_STOP_S = 20.0
_CRASH_POLL_S = 0.2
_VERSION_POLL_S = 1.0


class WorkerFailed(OperatorError):
    """The worker stopped by itself; the log before it says why."""


class Surroundings(NamedTuple):
    """What there is before the worker, and outlives it."""

    settings: StreamsSettings
    center: TaskCenter
    health: Health
    metrics: Metrics


class _Kafka(NamedTuple):
    """How the worker reaches it, and what it asks of it."""

    servers: str
    properties: Mapping[str, str]
    offsets: Offsets
    live_version: LiveVersion


class _Parts(NamedTuple):
    """Of a worker that is put together."""

    app: faust.App
    rounds: Rounds
    retention: Retention
    progress: Progress


async def work(surroundings: Surroundings, *, partitions: int, stop: asyncio.Event) -> None:
    """Be a worker until ``stop`` is set. ``partitions``: of the events, where their topic is not there yet.

    Raises:
        AnotherVersion: of the instances is live; a worker of that one should be started at once.
        WorkerFailed: processing cannot go on.
    """
    settings = surroundings.settings
    servers, properties = settings.kafka_bootstrap_servers, read_kafka_config(settings.kafka_config_file)
    offsets = Offsets(consumer_config(servers, APP_ID, properties))
    kafka = _Kafka(servers, properties, offsets, LiveVersion(servers, properties, offsets))
    registry = Registry(settings.schema_registry_url, ids_path=settings.data_dir / "schema-ids.json")
    contract = Contract(
        admin_client(servers, properties),
        registry,
        partitions,
        kafka.live_version,
        offsets,
        task_center=settings.task_center,
    )
    try:
        prepared = await until_connected(contract, surroundings.health, stop)
        if prepared is not None:
            most = await asyncio.to_thread(notification_bytes, offsets)
            admit = partial(contract.check, prepared)
            parts = _put_together(surroundings, kafka, registry, prepared, admit=admit, most_notification_bytes=most)
            await asyncio.to_thread(remove_other_versions, parts.app, version=prepared.version)
            log.info(
                "starting", partitions=prepared.partitions, version=prepared.version, data_dir=str(settings.data_dir)
            )
            another = _until_another_version(kafka.live_version, prepared.version)
            await _run(parts, surroundings, another=another, stop=stop)
    finally:
        registry.close()
        log.info("stopped")


def _put_together(
    surroundings: Surroundings,
    kafka: _Kafka,
    registry: Registry,
    prepared: Prepared,
    *,
    admit: Callable[[], None],
    most_notification_bytes: int,
) -> _Parts:
    settings, center, health, metrics = surroundings
    partitions, version = prepared.partitions, prepared.version
    worker = Worker(
        data_dir=settings.data_dir,
        url=settings.url,
        standbys=settings.standbys,
        session_timeout_s=settings.session_timeout_s,
        restore_buffer_bytes=settings.restore_buffer_bytes,
    )
    app = build_faust_app(kafka.servers, worker=worker, partitions=partitions, kafka_properties=kafka.properties)
    rounds = _rounds(app, kafka.offsets, bulk_producer_config(kafka.servers, kafka.properties), prepared, metrics)
    # Asked again, once the group has this worker as a member: a switch begins when it has none.
    cast("Tables", app.tables).admit = admit
    store, changelog = instances_table(app, partitions=partitions, version=version)
    folding = choose_folding(registry, live_instances=settings.live_instances)
    agent = TaskAgent(
        app,
        store=store,
        changelog=changelog,
        partitions=partitions,
        folding=folding,
        rounds=rounds,
        notifications=task_notification_codec(registry),
        notification_bytes=most_notification_bytes,
        metrics=metrics,
    )
    app.agent(task_events_topic(app), name="tasks")(agent.run)
    actives = partial(_actives, app, changelog)
    if settings.task_center:
        center.open(
            app,
            partitions=partitions,
            instances=store,
            changelog=changelog,
            live=actives,
            rounds=rounds,
            offsets=kafka.offsets,
            consumer=consumer_config(kafka.servers, APP_ID, kafka.properties),
            registry=registry,
            metrics=metrics,
        )
    progress = Progress(
        app,
        changelog=changelog,
        ends=Ends(kafka.offsets),
        inbox_ends=Ends(kafka.offsets, topics.TASK_NOTIFICATIONS.name) if settings.task_center else None,
        metrics=metrics,
        watchdog=Watchdog(settings.watchdog_s),
        guard=LoopGuard(settings.watchdog_s),
    )
    health.faust_app, health.core, health.progress = app, folding.core, progress
    center.operations.follow(progress, lambda: health.is_ready)
    retention = Retention(agent, store, task_state_codec(registry), actives=actives, days=settings.retention_days)
    return _Parts(app, rounds, retention, progress)


def _rounds(
    app: faust.App, offsets: Offsets, producing: Mapping[str, object], prepared: Prepared, metrics: Metrics
) -> Rounds:
    """What writes for this worker, and what makes sure at a takeover that nobody else does any more."""
    producing = {**producing, "linger.ms": 0}
    name = app.conf.consumer_group_instance_id
    rounds = Rounds(
        producing,
        group=APP_ID,
        name=name,
        membership=lambda: cast("ChunkConsumer", app.consumer).membership,
        grounds=prepared.grounds,
    )
    tables = cast("Tables", app.tables)
    tables.takeover = Takeover(
        offsets, rounds, group=APP_ID, name=name, claim=partial(claimed, producing), note=metrics.position_lost
    )
    tables.known, tables.on_emptied = prepared.known, metrics.store_emptied
    return rounds


def _actives(app: faust.App, changelog: str) -> frozenset[int]:
    """The partitions whose instances this worker changes now; none while they are being sorted out."""
    tables = cast("Tables", app.tables)
    if app.rebalancing or not tables.actives_ready or changelog not in tables.recovery.wanted:
        return frozenset()
    return tables.recovery.wanted[changelog].actives


async def _run(
    parts: _Parts, surroundings: Surroundings, *, another: Coroutine[Any, Any, None], stop: asyncio.Event
) -> None:
    app, center, health = parts.app, surroundings.center, surroundings.health
    collect_garbage_rarely()
    # Faust's start returns when the tables are recovered: told to stop, the worker does not wait for that.
    starting = asyncio.create_task(app.start())
    watching = asyncio.create_task(parts.progress.watch())
    letting_go = asyncio.create_task(_or_crash(app, parts.retention.keep()))
    keeping = asyncio.create_task(center.watch())
    switching = asyncio.create_task(another)
    try:
        while not stop.is_set() and not app.crashed:
            for essential in (starting, switching):
                if essential.done():
                    await essential
            if watching.done():
                surroundings.metrics.stuck()
                log.error("stopping: the worker stands still", problem=str(watching.exception()), **health.readiness())
                # As a crash: then nobody waits for the chunk that does not end.
                await app.crash(cast("BaseException", watching.exception()))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), _CRASH_POLL_S)
        _raise_if_crashed(app)
    finally:
        # First: their clients look for another worker while this one finishes.
        center.stop()
        await _end(app, starting, watching, letting_go, keeping, switching)
        await parts.rounds.close()


async def _or_crash(app: faust.App, upkeep: Coroutine[Any, Any, None]) -> None:
    """What the worker cannot do without: its error is the worker's."""
    try:
        await upkeep
    except Exception as error:
        log.exception("stopping: upkeep failed")
        await app.crash(error)


async def _until_another_version(live_version: LiveVersion, version: int) -> None:
    """Never returns.

    Raises:
        AnotherVersion: this one is not live any more, or will not be in a moment.
    """
    while True:
        await asyncio.sleep(_VERSION_POLL_S)
        # Without Kafka this worker does nothing that would do harm.
        with suppress(KafkaException, TimeoutError):
            await asyncio.to_thread(live_version.check, version)


def _raise_if_crashed(app: faust.App) -> None:
    if isinstance(app.crash_reason, AnotherVersion):
        raise app.crash_reason
    if app.crashed:
        raise WorkerFailed(f"the worker crashed: {app.crash_reason}") from app.crash_reason


async def _end(app: faust.App, *tasks: asyncio.Task[Any]) -> None:
    """Bounded: whatever is not finished is not acknowledged either, and comes again."""
    for task in tasks:
        task.cancel()
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(app.stop(), _STOP_S)
