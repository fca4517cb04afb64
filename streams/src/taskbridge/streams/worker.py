"""One worker: built once Kafka and the registry answer, run until it is stopped or fails."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import structlog
from confluent_kafka import KafkaException

from taskbridge.runtime.kafka import admin_client, consumer_config, producer_config, read_kafka_config
from taskbridge.runtime.process import collect_garbage_rarely
from taskbridge.schemas import topics
from taskbridge.schemas.codec import task_notification_codec, task_state_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.registry import Registry
from taskbridge.streams.contract.live_version import AnotherVersion, LiveVersion
from taskbridge.streams.contract.start import Contract, Prepared, notification_bytes, until_connected
from taskbridge.streams.engine.app import APP_ID, build_faust_app, chunks_of, consumer_of, tables_of
from taskbridge.streams.fold.native import choose_core
from taskbridge.streams.instances.pending_notifications import PendingInstances
from taskbridge.streams.instances.task_agent import TaskAgent
from taskbridge.streams.instances.upkeep import Upkeep
from taskbridge.streams.monitoring.progress import Health, Progress
from taskbridge.streams.monitoring.watchdog import LoopGuard, Stuck, TimesStuck, Watchdog
from taskbridge.streams.table_versions import reader_config
from taskbridge.streams.tables.recovery import Recovery
from taskbridge.streams.tables.store import instances_table, remove_other_versions
from taskbridge.streams.transactions.group_commit import GroupCommit, fence
from taskbridge.streams.transactions.offsets import Offsets
from taskbridge.streams.transactions.takeover import Takeover

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    import faust

    from taskbridge.runtime.otel import Tracing
    from taskbridge.streams.monitoring.metrics import Metrics
    from taskbridge.streams.settings import StreamsSettings

log = structlog.get_logger(__name__)

WATCHDOG_S = 120.0
"""A worker that makes no progress for this long exits, so that its supervisor restarts it."""
_STOP_S = 8.0
_CRASH_POLL_S = 0.2
_VERSION_POLL_S = 1.0
_RESTORE_BUFFER_BYTES = 64 << 20


class Service(NamedTuple):
    settings: StreamsSettings
    health: Health
    metrics: Metrics
    tracing: Tracing | None = None


class Worker(NamedTuple):
    app: faust.App
    group_commit: GroupCommit
    upkeep: Upkeep
    progress: Progress


def build_worker(
    service: Service,
    prepared: Prepared,
    registry: Registry,
    offsets: Offsets,
    kafka_properties: Mapping[str, str],
    *,
    admit: Callable[[], None],
    most_notification_bytes: int,
) -> Worker:
    settings, health, metrics, tracing = service
    partitions, version = prepared.partitions, prepared.version
    app = build_faust_app(settings, partitions=partitions, kafka_properties=kafka_properties)
    consumer = consumer_config(settings.kafka_bootstrap_servers, APP_ID, kafka_properties)
    producing = producer_config(settings.kafka_bootstrap_servers, kafka_properties)
    name = app.conf.consumer_group_instance_id
    group_commit = GroupCommit(
        producing, name=name, membership=lambda: consumer_of(app).membership, source_topic=prepared.source_topic
    )
    takeover = Takeover(
        offsets,
        group_commit,
        group=APP_ID,
        topic=topics.TASK_EVENTS.name,
        claim=partial(fence, producing),
        note=lambda reason: metrics.positions_lost.labels(reason).inc(),
    )
    store, changelog = instances_table(app, partitions=partitions, version=version)
    recovery = Recovery(
        app,
        store,
        changelog,
        reader_config(consumer, buffer_bytes=_RESTORE_BUFFER_BYTES),
        takeover,
        # Checked again once the group has this worker as a member: a switch begins when it has none.
        admit=admit,
        on_emptied=metrics.stores_emptied.inc,
    )
    tables_of(app).use_recovery(recovery)
    states, notifications = task_state_codec(registry), task_notification_codec(registry)
    core = choose_core(registry, form_fields=settings.form_fields)
    pending = PendingInstances(states, notifications)
    agent = TaskAgent(
        app,
        store=store,
        changelog=changelog,
        partitions=partitions,
        core=core,
        group_commit=group_commit,
        pending=pending,
        notification_bytes=most_notification_bytes,
        metrics=metrics,
        tracing=tracing,
    )
    app.agent(chunks_of(app, topics.TASK_EVENTS), name="tasks")(agent.run)
    metrics.partitions.set(partitions)
    progress = Progress(
        app,
        recovery,
        offsets=offsets,
        metrics=metrics,
        watchdog=Watchdog(WATCHDOG_S),
        guard=LoopGuard(WATCHDOG_S, TimesStuck(settings.data_dir)),
    )
    health.follow(progress, core=core.name)
    actives = partial(_actives, app, recovery)
    upkeep = Upkeep(agent, actives, days=settings.retention_days)
    return Worker(app, group_commit, upkeep, progress)


def _actives(app: faust.App, recovery: Recovery) -> frozenset[int]:
    if app.rebalancing or not app.tables.actives_ready or recovery.assignment is None:
        return frozenset()
    return recovery.assignment.actives


async def work(service: Service, *, partitions: int, stop: asyncio.Event) -> None:
    """Run a worker until ``stop`` is set. ``partitions``: number of partitions of the events, if the topic is missing.

    Raises:
        AnotherVersion: another version of the instances is live; a worker for that one should be started at once.
        OperatorError: processing cannot continue.
    """
    settings = service.settings
    servers, properties = settings.kafka_bootstrap_servers, read_kafka_config(settings.kafka_config_file)
    offsets = Offsets(consumer_config(servers, APP_ID, properties))
    live_version = LiveVersion(servers, properties, offsets)
    ids_path = settings.data_dir / "schema-ids.json"
    registry = Registry(settings.schema_registry_url, ids_path=ids_path, properties=properties)
    contract = Contract(admin_client(servers, properties), registry, partitions, live_version, offsets)
    try:
        prepared = await until_connected(contract, service.health, stop)
        if prepared is not None:
            most = await asyncio.to_thread(notification_bytes, offsets)
            admit = partial(contract.check, prepared)
            worker = build_worker(
                service, prepared, registry, offsets, properties, admit=admit, most_notification_bytes=most
            )
            await asyncio.to_thread(remove_other_versions, worker.app, version=prepared.version)
            log.info(
                "streams_starting",
                partitions=prepared.partitions,
                version=prepared.version,
                data_dir=str(settings.data_dir),
            )
            another = _until_another_version(live_version, prepared.version)
            await _run(worker, service, another=another, stop=stop)
    finally:
        registry.close()
        log.info("streams_stopped")


async def _run(worker: Worker, service: Service, *, another: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    app = worker.app
    collect_garbage_rarely()
    # Faust's start returns once the tables are restored: a worker that is stopped does not wait for that.
    essential = [asyncio.create_task(each) for each in (app.start(), another)]
    background = [
        asyncio.create_task(each)
        for each in (worker.progress.watch(), worker.upkeep.delete_expired(), worker.upkeep.publish())
    ]
    try:
        while not stop.is_set() and not app.crashed:
            for each in essential:
                if each.done():
                    await each
            for error in [each.exception() for each in background if each.done()]:
                if isinstance(error, Stuck):
                    TimesStuck(service.settings.data_dir).add()
                    log.error("worker_stalled", problem=str(error), **service.health.readiness())
                else:
                    log.error("upkeep_failed", exc_info=error)
                # As a crash: then nothing waits for the chunk that does not end.
                await app.crash(cast("BaseException", error))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), _CRASH_POLL_S)
        _raise_if_crashed(app)
    finally:
        for task in (*essential, *background):
            task.cancel()
        await stop_app(app)
        await worker.group_commit.close()


async def _until_another_version(live_version: LiveVersion, version: int) -> None:
    """Never returns; raises AnotherVersion when this one is not live any more, or will not be in a moment."""
    while True:
        await asyncio.sleep(_VERSION_POLL_S)
        # Without Kafka, this worker can do no harm.
        with suppress(KafkaException, TimeoutError):
            await asyncio.to_thread(live_version.check, version)


def _raise_if_crashed(app: faust.App) -> None:
    if isinstance(app.crash_reason, AnotherVersion):
        raise app.crash_reason
    if app.crashed:
        raise OperatorError(f"the worker crashed: {app.crash_reason}") from app.crash_reason


async def stop_app(app: faust.App, *, within_s: float = _STOP_S) -> None:
    """Stop the app within a time limit. What is not finished is not acknowledged either, and is read again."""
    # Not cancelled after the limit: a service of Faust's would then stop its next part, and each may wait for Kafka for
    # a minute.
    stopping = asyncio.create_task(app.stop())
    done, _ = await asyncio.wait([stopping], timeout=within_s)
    for each in done:
        each.result()
