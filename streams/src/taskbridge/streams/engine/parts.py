"""A Faust app's parts, those that are ours among them, with their types: nobody else knows where Faust keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    import faust
    from faust.types import TP

    from taskbridge.streams.engine.table_manager import Tables
    from taskbridge.streams.engine.transport import ChunkConsumer


def consumer_of(app: faust.App) -> ChunkConsumer:
    """The consumer of an app that was built by ``streams.engine.app``."""
    return cast("ChunkConsumer", app.consumer)


def tables_of(app: faust.App) -> Tables:
    """The manager of its tables."""
    return cast("Tables", app.tables)


def partitions_by_worker(app: faust.App) -> Mapping[str, Mapping[str, Collection[int]]]:
    """Of each worker's URL, and of each changelog topic, the active partitions that the group's leader gave it."""
    return cast("Any", app.assignor).tables_metadata()


def on_assigned(app: faust.App, call: Callable[[set[TP]], Awaitable[None]]) -> None:
    """Have ``call`` awaited at each rebalance with what is assigned to this worker then."""

    async def assigned(_app: faust.App, partitions: set[TP], **_: Any) -> None:
        await call(partitions)

    cast("Any", app.on_partitions_assigned).connect(assigned)


def declare_table(app: faust.App, name: str, *, partitions: int) -> Any:
    """A table of bytes by keys of bytes, kept by the store of the app's settings."""
    return cast("Any", app).Table(
        name,
        key_type=bytes,
        value_type=bytes,
        partitions=partitions,
        # The driver's defaults take gigabytes over a dozen partitions.
        options={
            "driver": "rocksdict",
            "block_cache_size": 16 << 20,
            "write_buffer_size": 8 << 20,
            "max_open_files": 128,
        },
    )


async def poll(app: faust.App) -> None:
    """Have the consumer polled, where that has stopped: the last step but two of Faust's own recovery."""
    await cast("Any", app)._fetcher.maybe_start()  # noqa: SLF001
