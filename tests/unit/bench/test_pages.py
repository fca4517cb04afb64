"""The pages of the benchmarks say whether a target is met, missed or within the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from tests.bench.capacity.report import Window as Taken
from tests.bench.capacity.report import write_report as write_capacity
from tests.bench.center.callbacks import AT_REST, Times
from tests.bench.center.installations import SQLITE, CaughtUp
from tests.bench.center.queries import KINDS
from tests.bench.center.queries import Latency as QueryLatency
from tests.bench.center.report import Found
from tests.bench.center.report import write_report as write_center
from tests.bench.edge.callbacks import Kind
from tests.bench.edge.comparisons import Results as EdgeResults
from tests.bench.edge.comparisons import watched as watched_of_edge
from tests.bench.edge.loads import Schedule
from tests.bench.edge.loads import Window as Load
from tests.bench.edge.report import write_report as write_edge
from tests.bench.edge.servers import EDGE, GO, SPRING, Server
from tests.bench.machine import before
from tests.bench.rounds import Rounds, Warmed
from tests.bench.streams.comparisons import LATENCY, Results, watched
from tests.bench.streams.contenders import KAFKA_STREAMS, KAFKA_STREAMS_EXACTLY_ONCE, TASKBRIDGE
from tests.bench.streams.latency import Latency
from tests.bench.streams.report import write_report as write_streams
from tests.bench.streams.throughput import Window

if TYPE_CHECKING:
    from pathlib import Path

NOTHING = cast("Any", None)
ENDED = Rounds(3, 9, 10, 5, done=3, ended="3 rounds: all is known.")


def test_the_edges(tmp_path: Path) -> None:
    kind = Kind("create", "form", [b"body"], b"forged", tmp_path)
    servers = [Server(name=name, description=f"what {name} is", port=1, spec=NOTHING) for name in (EDGE, SPRING, GO)]
    results = EdgeResults()
    for name, cpu, p99 in ((EDGE, 50.0, 3.0), (SPRING, 70.0, 2.0), (GO, 40.0, 1.0)):
        results.windows[name, kind.name] = [Load(1000, cpu + each, 1.0, p99) for each in range(3)]
        results.schedules[name, kind.name, 1000] = [
            Schedule(1000, 1.0, p99 + each / 100, 4.0, 5.0, cpu) for each in range(3)
        ]
    results.warmed[SPRING, kind.name] = Warmed(24, 0.03)
    page = write_edge(
        tmp_path,
        results,
        servers=servers,
        kinds=[kind],
        left_out={"bare-asgi": "because it is missing"},
        rounds=ENDED,
        command="the command",
        earlier=before(),
    ).read_text()
    assert "| CPU/request: edge over spring-boot | 0.72 (0.71-0.73), met | at most 1 |" in page
    assert "| p99, closed loop: edge over go | 3.00 (3.00-3.00), missed | at most 1.5 |" in page
    assert "| p99 at 1,000/s: edge over go | 2.98 (2.93-3.03), missed | at most 1.5 |" in page
    assert "| p99 at 1,000/s: edge over spring-boot | 1.50 (1.49-1.50) |  |" in page
    assert "spring-boot, create: warmed up for 24 s, until 3 windows in a row were within 5%." in page
    assert "3 rounds: all is known." in page
    watched = watched_of_edge(results, [kind.name])
    titles = ["CPU/request: edge over spring-boot", "p99, closed loop: edge over go", "p99 at 1,000/s: edge over go"]
    assert list(watched) == [f"{title}, create" for title in titles]


def test_the_streams(tmp_path: Path) -> None:
    results = Results()
    results.latencies = {
        TASKBRIDGE: [Latency(50, 100, 120), Latency(60, 140, 150)],
        KAFKA_STREAMS_EXACTLY_ONCE: [Latency(65, 120, 150), Latency(66, 121, 150)],
    }
    results.windows = {
        TASKBRIDGE: [Window(3000, 2800 + each, 400, 5, 10, 10) for each in range(3)],
        KAFKA_STREAMS: [Window(2500, 1400, 700, 5, 10, 10)] * 3,
    }
    ended = {"throughput": ENDED.ended, "latency": ENDED.ended}
    page = write_streams(
        tmp_path / "streams.md",
        results,
        contenders=[],
        left_out={},
        job=["The job."],
        ended=ended,
        command="the command",
        earlier=before(),
    ).read_text()
    assert "| kafka-streams | events per CPU second | 2.00 (2.00-2.00), met | at least 1.2 |" in page
    assert "| kafka-streams-exactly-once | p99 | ≈ 0.98 (0.12-7.90), within the noise | at most 1 |" in page
    assert list(watched(results.latencies, LATENCY)) == [
        "p50 over kafka-streams-exactly-once",
        "p99 over kafka-streams-exactly-once",
    ]


def test_the_center(tmp_path: Path) -> None:
    caught_up = CaughtUp(1000, 0.5, 0.25, 0.0, 90.0, 12.0)
    page, search = KINDS[0].title, KINDS[2].title
    found = Found(filled={SQLITE: caught_up}, entries=5000, backlog={SQLITE: caught_up}, tasks=10_000)
    found.latencies = {(SQLITE, kind.title): [QueryLatency(1, 5, 2), QueryLatency(1, 6, 2)] for kind in KINDS}
    found.latencies[SQLITE, page] = [QueryLatency(3, 30, 2), QueryLatency(3, 31, 2)]
    found.streams = {SQLITE: ["A fact."]}
    times = [Times([3.0] * 4, [9.0, 12.0, 13.0, 20.0]), Times([3.0] * 4, [9.0, 12.0, 13.0, 21.0])]
    found.callbacks, found.ended = {SQLITE: {AT_REST: times}}, [ENDED.ended]
    text = write_center(tmp_path / "center.md", found, command="the command", earlier=before()).read_text()
    assert "| filling: states/s | 2,000 |" in text
    assert "| filling: states per CPU second of the server | - |" in text
    assert f"| {page} | 3.0 (3.0-3.0) / 30.5 (30.0-31.0); 2.00 (2.00-2.00) | at most 20: SQLite missed |" in text
    assert f"| {search} | 1.0 (1.0-1.0) / 5.5 (5.0-6.0); 2.00 (2.00-2.00) | at most 150: SQLite met |" in text
    assert "| SQLite, at rest | 4 | 3.0 (3.0-3.0) | 9.0 (9.0-9.0) | 13.0 (13.0-13.0) | 20.5 (20.0-21.0) |" in text
    assert "at most 12 ms at rest: SQLite 13.0 (13.0-13.0) ms, missed." in text
    assert "- A fact." in text
    assert ENDED.ended in text


def test_the_capacity_is_the_highest_rate_whose_slowest_path_holds(tmp_path: Path) -> None:
    windows = [
        Taken(500, (3.0, 20.0), (30.0, 200.0), (30.0, 299.0), {"edge": 0.1, "Kafka": 0.5}),
        Taken(1000, (3.0, 20.0), (30.0, 100.0), (30.0, 301.0), {"edge": 0.2, "Kafka": 0.7}),
    ]
    page = write_capacity(tmp_path, windows, "about", "It ended.", command="c", earlier=before()).read_text()
    assert "**500 callbacks a second**" in page
    assert "| 1,000 | 3 / 20 | 30 / 100 | 30 / 301 | 0.20 | 0.70 |" in page
