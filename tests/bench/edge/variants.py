"""What fans of a peer may set otherwise than ``servers`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.edge import servers
from tests.bench.edge.servers import GO, SPRING, VARIED
from tests.bench.variants import Column, Variant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.edge.comparisons import Results
    from tests.bench.edge.servers import Server, Setup

_PLATFORM = "-Dspring.threads.virtual.enabled=false"


def _pool(threads: int) -> tuple[str, ...]:
    return _PLATFORM, f"-Dserver.tomcat.threads.max={threads}", f"-Dserver.tomcat.threads.min-spare={threads}"


def _linger(ms: int) -> tuple[str, ...]:
    return (f"-Dspring.kafka.producer.properties.linger.ms={ms}",)


VARIANTS_OF: dict[str, dict[str, Variant]] = {
    SPRING: {
        "pool-200": Variant(about="platform threads, Tomcat's own pool of 200", flags=(_PLATFORM,)),
        "pool-64": Variant(about="platform threads, as many as connections", flags=_pool(64)),
        "pool-16": Variant(about="platform threads, fewer than connections", flags=_pool(16)),
        "one-carrier": Variant(
            about="virtual threads on one platform thread", flags=("-Djdk.virtualThreadScheduler.parallelism=1",)
        ),
        "asynchronous": Variant(
            about="platform threads that do not wait: the answer is a CompletableFuture",
            flags=(*_pool(16), "-Dspring.profiles.active=asynchronous"),
        ),
        "jetty": Variant(about="Jetty for Tomcat, virtual threads", build=("-Dserver=jetty",)),
        "webflux": Variant(
            about="WebFlux on Netty, nothing waits",
            flags=(_PLATFORM, "-Dspring.profiles.active=webflux"),
            build=("-Dweb=webflux", "-Dserver=reactor-netty"),
        ),
        "g1": Variant(about="G1", flags=("-XX:-UseParallelGC", "-XX:+UseG1GC")),
        "serial": Variant(about="the serial collector", flags=("-XX:-UseParallelGC", "-XX:+UseSerialGC")),
        "heap-1g": Variant(about="a heap of 1 GiB", flags=("-Xms1g", "-Xmx1g")),
        "young": Variant(about="three quarters of the heap for the young generation", flags=("-Xmn384m",)),
        "compact-headers": Variant(about="object headers of 8 bytes", flags=("-XX:+UseCompactObjectHeaders",)),
        "linger-0": Variant(about="a record leaves at once", flags=_linger(0)),
        "linger-5": Variant(about="Kafka's own default since 4.0", flags=_linger(5)),
    },
    GO: {
        "gogc-100": Variant(about="Go's own default, no limit", env={"GOGC": "100", "GOMEMLIMIT": "off"}),
        "gogc-400": Variant(about="a heap of five times what lives", env={"GOGC": "400", "GOMEMLIMIT": "off"}),
        "memory-1g": Variant(about="1 GiB before it collects", env={"GOMEMLIMIT": "1GiB"}),
        "one-thread": Variant(about="GOMAXPROCS=1", env={"GOMAXPROCS": "1"}),
        "linger-0": Variant(about="Produce with a promise, ProducerLinger(0)", env={"PEER_LINGER": "0s"}),
        "linger-2": Variant(about="Produce with a promise, ProducerLinger(2ms)", env={"PEER_LINGER": "2ms"}),
        "pool": Variant(about="bodies, hashed texts and values in buffers of a sync.Pool", env={"PEER_POOL": "true"}),
        "net-http": Variant(about="net/http for valyala/fasthttp", env={"PEER_SERVER": "net/http"}),
        "amd64-v3": Variant(about="compiled for AVX2 and BMI", build=("GOAMD64=v3",)),
    },
}


def prepare(name: str, setup: Setup) -> Server:
    """As ``servers.prepare``, and of a name with a plus that variant."""
    peer, _, variant = name.partition("+")
    if variant:
        return VARIED[peer](setup, name, VARIANTS_OF[peer][variant])
    return servers.prepare(name, setup)


def columns(results: Results, kinds: Sequence[str]) -> list[Column]:
    """Of each kind CPU time and requests a second of the closed loop, and the p99 of each open one."""
    found: list[Column] = []
    for kind in kinds:
        closed = {name: windows for (name, each), windows in results.windows.items() if each == kind}
        cpu = {name: [each.cpu_us for each in windows] for name, windows in closed.items()}
        rate = {name: [each.per_second for each in windows] for name, windows in closed.items()}
        found += [
            Column(title=f"{kind}: CPU µs", values=cpu, digits=1),
            Column(title=f"{kind}: requests/s", values=rate, most_is_best=True),
        ]
        for load_rate in sorted({rate for _, each, rate in results.schedules if each == kind}):
            p99: Mapping[str, list[float]] = {
                name: [each.p99_ms for each in schedules]
                for (name, of, rate), schedules in results.schedules.items()
                if (of, rate) == (kind, load_rate)
            }
            found.append(Column(title=f"{kind}: p99 ms at {load_rate:,}/s", values=p99, digits=1))
    return found
