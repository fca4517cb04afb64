"""The reference job on Faust as it is: record by record, its own table, its own producer and acks."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

import faust
from tests.bench.streams.peers.given import Given

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_POLL_S = 0.02


def build(given: Given) -> faust.App:
    settings: dict[str, Any] = {
        "broker": f"kafka://{given.bootstrap_servers}",
        "broker_max_poll_records": 1000,
        "consumer_auto_offset_reset": "earliest",
        "datadir": given.state_dir,
        "producer_acks": -1,
        "producer_linger_ms": given.linger_ms,
        "producer_max_batch_size": 256 << 10,
        "producer_partitioner": None,
        "store": "rocksdb://",
        "topic_disable_leader": True,
        "topic_partitions": given.partitions,
        "topic_replication_factor": 1,
        "web_enabled": False,
    }
    app = faust.App(given.group, **settings)
    untyped = cast("Any", app)
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    events, states, notifications = (
        untyped.topic(name, **raw) for name in (given.events_topic, given.states_topic, given.notifications_topic)
    )
    instances = untyped.Table(
        "instances",
        key_type=bytes,
        value_type=bytes,
        partitions=given.partitions,
        options={
            "driver": "rocksdict",
            "block_cache_size": 16 << 20,
            "write_buffer_size": 8 << 20,
            "max_open_files": 128,
        },
    )
    job = given.job

    @untyped.agent(events)
    async def fold(stream: AsyncIterator[Any]) -> None:  # pyright: ignore[reportUnusedFunction]
        async for event in cast("Any", stream).events():
            key, value = event.key, event.value
            instances[key], published, notified = job.step(instances.get(key), value)
            await states.send(key=key, value=published)
            for each in notified:
                await notifications.send(key=each.key, value=each.value, headers=each.headers)

    @untyped.task
    async def report_ready() -> None:  # pyright: ignore[reportUnusedFunction]
        while not app.tables.actives_ready or app.rebalancing:  # noqa: ASYNC110 - Faust has no event for it
            await asyncio.sleep(_POLL_S)
        given.report_ready()

    return app


def main() -> None:
    # Faust and its client spend a fifth of the CPU on log records of unused levels.
    logging.basicConfig(level=logging.WARNING)
    worker = faust.Worker(build(Given.read()), loglevel="WARNING", quiet=True)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
