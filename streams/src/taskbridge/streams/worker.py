"""One worker: put together once Kafka and the registry answer, and run until it is told to stop or cannot go on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog
from confluent_kafka import KafkaException

from taskbridge.runtime.kafka import admin_client, consumer_config, read_kafka_config
from taskbridge.runtime.process import collect_garbage_rarely
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.registry import Registry
from taskbridge.streams.assembly import put_together
from taskbridge.streams.contract.live_version import AnotherVersion, LiveVersion
from taskbridge.streams.contract.start import Contract, notification_bytes, until_connected
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.monitoring.watchdog import TimesStuck
from taskbridge.streams.positions.offsets import Offsets
from taskbridge.streams.topology import remove_other_versions

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import faust

    from taskbridge.streams.assembly import Parts, Surroundings

log = structlog.get_logger(__name__)

_STOP_S = 8.0
_CRASH_POLL_S = 0.2
_VERSION_POLL_S = 1.0


class WorkerFailed(OperatorError):
    """The worker stopped by itself; the log before it says why."""


async def work(surroundings: Surroundings, *, partitions: int, stop: asyncio.Event) -> None:
    """Be a worker until ``stop`` is set. ``partitions``: of the events, where their topic is not there yet.

    Raises:
        AnotherVersion: of the instances is live; a worker of that one should be started at once.
        WorkerFailed: processing cannot go on.
    """
    settings = surroundings.settings
    servers, properties = settings.kafka_bootstrap_servers, read_kafka_config(settings.kafka_config_file)
    offsets = Offsets(consumer_config(servers, APP_ID, properties))
    live_version = LiveVersion(servers, properties, offsets)
    ids_path = settings.data_dir / "schema-ids.json"
    registry = Registry(settings.schema_registry_url, ids_path=ids_path, properties=properties)
    contract = Contract(
        admin_client(servers, properties),
        registry,
        partitions,
        live_version,
        offsets,
        task_center=settings.task_center,
    )
    try:
        prepared = await until_connected(contract, surroundings.health, stop)
        if prepared is not None:
            most = await asyncio.to_thread(notification_bytes, offsets)
            admit = partial(contract.check, prepared)
            parts = put_together(
                surroundings, prepared, registry, offsets, properties, admit=admit, most_notification_bytes=most
            )
            await asyncio.to_thread(remove_other_versions, parts.app, version=prepared.version)
            log.info(
                "streams_starting",
                partitions=prepared.partitions,
                version=prepared.version,
                data_dir=str(settings.data_dir),
            )
            another = _until_another_version(live_version, prepared.version)
            await _run(parts, surroundings, another=another, stop=stop)
    finally:
        registry.close()
        log.info("streams_stopped")


async def _run(
    parts: Parts, surroundings: Surroundings, *, another: Coroutine[Any, Any, None], stop: asyncio.Event
) -> None:
    app, center, health = parts.app, surroundings.center, surroundings.health
    collect_garbage_rarely()
    # Faust's start returns when the tables are recovered: told to stop, the worker does not wait for that.
    starting = asyncio.create_task(app.start())
    watching = asyncio.create_task(parts.progress.watch())
    letting_go = asyncio.create_task(_or_crash(app, parts.retention.keep()))
    telling = asyncio.create_task(_or_crash(app, parts.telling.go_on()))
    keeping = asyncio.create_task(center.watch())
    switching = asyncio.create_task(another)
    try:
        while not stop.is_set() and not app.crashed:
            for essential in (starting, switching):
                if essential.done():
                    await essential
            if watching.done():
                TimesStuck(surroundings.settings.data_dir).add()
                log.error("worker_stalled", problem=str(watching.exception()), **health.readiness())
                # As a crash: then nobody waits for the chunk that does not end.
                await app.crash(cast("BaseException", watching.exception()))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), _CRASH_POLL_S)
        _raise_if_crashed(app)
    finally:
        # First: their clients look for another worker while this one finishes.
        center.stop()
        for task in (starting, watching, letting_go, telling, keeping, switching):
            task.cancel()
        await stop_app(app)
        await parts.group_commit.close()


async def _or_crash(app: faust.App, upkeep: Coroutine[Any, Any, None]) -> None:
    """What the worker cannot do without: its error is the worker's."""
    try:
        await upkeep
    except Exception as error:
        log.exception("upkeep_failed")
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


async def stop_app(app: faust.App, *, within_s: float = _STOP_S) -> None:
    """Bounded: whatever is not finished is not acknowledged either, and comes again."""
    # Not cancelled when it takes too long: a service of Faust's then goes on to its next part, and each may wait for
    # Kafka for a minute.
    stopping = asyncio.create_task(app.stop())
    done, _ = await asyncio.wait([stopping], timeout=within_s)
    for each in done:
        each.result()
