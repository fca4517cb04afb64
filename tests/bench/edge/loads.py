"""Puts load on one server; what it reads counts only if every answer and every record is accounted for."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
from tests.bench.command import NotCounted
from tests.bench.edge.servers import LIBRDKAFKA
from tests.bench.machine import cpu_seconds
from tests.bench.wrk import wrk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.bench.edge.callbacks import Kind
    from tests.bench.edge.events_topic import EventsTopic
    from tests.bench.edge.servers import Server

CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Window:
    """A closed loop over some seconds."""

    per_second: float
    cpu_us: float
    """CPU time of the server's processes for each request."""
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """An open loop at a fixed rate; each latency counts from the moment at which its request was due."""

    rate: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    cpu_us: float
    """CPU time of the server's processes for each request."""


def closed_loop(server: Server, kind: Kind, topic: EventsTopic, pid: int, *, seconds: int) -> Window:
    """Load the server with as many requests as CONNECTIONS connections can send.

    Raises:
        NotCounted: an answer other than 200, or records that are not as many as the answers.
    """
    _wrk(server, kind, seconds=1)  # what the other servers pushed out of the caches comes back
    before = _stored(server, topic)
    cpu_before = cpu_seconds(pid)
    found = _wrk(server, kind, seconds=seconds)
    cpu = cpu_seconds(pid) - cpu_before
    _account(server, kind, found["requests"], _stored(server, topic) - before)
    took = found["microseconds"] / 1e6
    return Window(
        per_second=found["requests"] / took,
        cpu_us=cpu / found["requests"] * 1e6,
        p50_ms=found["p50_us"] / 1000,
        p99_ms=found["p99_us"] / 1000,
    )


def loaded(server: Server, kind: Kind, pid: int, *, seconds: int) -> float:
    """CPU µs per request of a closed loop without a count of records: for warming up."""
    before = cpu_seconds(pid)
    found = _wrk(server, kind, seconds=seconds)
    return (cpu_seconds(pid) - before) / found["requests"] * 1e6


def _wrk(server: Server, kind: Kind, *, seconds: int) -> dict[str, int]:
    if server.name == LIBRDKAFKA:
        url, lines = f"{server.url}/?seconds={seconds}", kind.path.read_bytes()
        return httpx2.post(url, content=lines, timeout=seconds + 30, trust_env=False).raise_for_status().json()
    arguments, who = [str(kind.path), kind.content_type], f"{server.name}, {kind.name}"
    return wrk(server.url + kind.url_path, arguments, who=who, connections=CONNECTIONS, seconds=seconds)


def open_loop(
    server: Server,
    kind: Kind,
    topic: EventsTopic,
    program: Path,
    pid: int,
    *,
    rate: int,
    seconds: int,
) -> Schedule:
    """Send at a fixed rate, even when the server is slow.

    Raises:
        NotCounted: an answer other than 200, or records that are not as many as the answers.
    """
    before = _stored(server, topic)
    arguments = [f"-address=127.0.0.1:{server.port}", f"-path={kind.url_path}", f"-content-type={kind.content_type}"]
    arguments += [f"-bodies={kind.path}", f"-connections={CONNECTIONS}"]
    cpu_before = cpu_seconds(pid)
    found = run_open_loop(program, arguments, rate=rate, seconds=seconds, who=f"{server.name}, {kind.name}")
    cpu = cpu_seconds(pid) - cpu_before
    _account(server, kind, found["requests"], _stored(server, topic) - before, under_way=0)
    return Schedule(
        rate=rate,
        p50_ms=found["p50_us"] / 1000,
        p99_ms=found["p99_us"] / 1000,
        p999_ms=found["p999_us"] / 1000,
        max_ms=found["max_us"] / 1000,
        cpu_us=cpu / found["requests"] * 1e6,
    )


def run_open_loop(program: Path, arguments: Sequence[str], *, rate: int, seconds: int, who: str) -> dict[str, int]:
    """What the program ``openloop`` prints: latencies in microseconds.

    Raises:
        NotCounted: it failed, or an answer was not 200; ``who`` is in the message.
    """
    argv = [str(program), *arguments, f"-rate={rate}", f"-seconds={seconds}"]
    outcome = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=4 * seconds + 30)
    if outcome.returncode != 0:
        raise NotCounted(f"the open loop failed: {outcome.stderr.strip()[-300:]}")
    found: dict[str, int] = json.loads(outcome.stdout)
    if found["ok"] != found["requests"]:
        raise NotCounted(f"{who}: {found['requests'] - found['ok']} answers were not 200")
    return found


def _stored(server: Server, topic: EventsTopic) -> int:
    """The number of records in the server's store: the topic or its spool."""
    if not server.store:
        return 0
    if server.store == "kafka":
        return topic.settled_count()
    exposed = httpx2.get(f"{server.url}/metrics", timeout=10, trust_env=False).text
    depth = next(line for line in exposed.splitlines() if line.startswith("taskbridge_edge_spool_depth "))
    return int(float(depth.split()[1]))


def _account(server: Server, kind: Kind, answered: int, written: int, *, under_way: int = CONNECTIONS) -> None:
    # wrk hangs up at the end: what was under way on its connections is written and not counted.
    expected = range(answered, answered + under_way + 1)
    if server.store and written not in expected:
        raise NotCounted(f"{server.name}, {kind.name}: {answered} answers of 200, but {written} records stored")
