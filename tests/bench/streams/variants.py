"""What fans of Kafka Streams may set otherwise than ``contenders`` does, and the figures that are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.variants import Column, Variant

if TYPE_CHECKING:
    from tests.bench.streams.comparisons import Results


def _settings(**given: object) -> dict[str, str]:
    """Settings of ``StreamsConfig``, after the peer's own; two underscores mean a dot."""
    return {"PEER_SETTINGS": "\n".join(f"{name.replace('__', '.')}={value}" for name, value in given.items())}


def _commits(ms: int) -> Variant:
    return Variant(about=f"commits every {ms} ms", env=_settings(commit__interval__ms=ms))


VARIANTS = {
    "threads-2": Variant(about="two threads, of six partitions each", env=_settings(num__stream__threads=2)),
    "g1": Variant(about="G1", flags=("-XX:-UseParallelGC", "-XX:+UseG1GC")),
    "zgc": Variant(about="ZGC", flags=("-XX:-UseParallelGC", "-XX:+UseZGC")),
    "serial": Variant(about="the serial collector", flags=("-XX:-UseParallelGC", "-XX:+UseSerialGC")),
    "heap-2g": Variant(about="a heap of 2 GiB", flags=("-Xms2g", "-Xmx2g")),
    "compact-headers": Variant(about="object headers of 8 bytes", flags=("-XX:+UseCompactObjectHeaders",)),
    "cache": Variant(about="the record cache, 64 MiB", env={"PEER_CACHE_BYTES": str(64 << 20)}),
    "lz4": Variant(about="records are compressed", env=_settings(producer__compression__type="lz4")),
    "linger-0": Variant(about="linger 0", env=_settings(producer__linger__ms=0)),
    "linger-5": Variant(about="linger 5 ms, Kafka's own default", env=_settings(producer__linger__ms=5)),
    "batch-1m": Variant(
        about="batches of 1 MiB", env=_settings(producer__batch__size=1 << 20, producer__max__request__size=4 << 20)
    ),
    "memory": Variant(about="the store in memory, with its changelog", env={"PEER_STORE": "memory"}),
    "rocksdb": Variant(
        about="RocksDB with memtables of 64 MiB",
        env=_settings(rocksdb__config__setter="taskbridge.bench.LargeMemory"),
    ),
    "poll-500": Variant(
        about="polls of 500 records, Kafka's own default", env=_settings(consumer__max__poll__records=500)
    ),
    "commit-5000": _commits(5000),
    "commit-50": _commits(50),
    "commit-25": _commits(25),
    "commit-10": _commits(10),
}


def throughput(results: Results) -> list[Column]:
    found = results.windows.items()
    return [
        Column(
            title="events per CPU second",
            values={name: [each.per_cpu_second for each in windows] for name, windows in found},
            most_is_best=True,
        ),
        Column(
            title="events/s",
            values={name: [each.per_second for each in windows] for name, windows in found},
            most_is_best=True,
        ),
    ]


def latency(results: Results) -> list[Column]:
    found = results.latencies.items()
    return [
        Column(title="p50 ms", values={name: [each.p50_ms for each in times] for name, times in found}, digits=1),
        Column(title="p99 ms", values={name: [each.p99_ms for each in times] for name, times in found}, digits=1),
    ]
