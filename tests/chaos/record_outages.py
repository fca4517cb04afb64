"""Records real outages, as Prometheus would see them, for the tests of our alert rules.

    PYTHONPATH=tests uv run python tests/chaos/record_outages.py --at-once 6
    PYTHONPATH=tests uv run python tests/chaos/record_outages.py kafka-is-killed

Each gets a Kafka, a registry, an edge and a worker of its own, some 1 GiB of memory, and takes as long as its alert
does to fire: 4 to 20 minutes. Needs root (a small disk) and strace. It goes to ``tests/vectors/outages``.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from support.alerts import Recording
from support.edge.process import wait_until
from support.edge.spool import fill, small_disk
from support.kafka.stack import artifacts
from support.watched_bridge import INTERVAL_S, WatchedBridge
from taskbridge.runtime.kafka import producer_config
from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.rebuild.operation import delete_topics

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from support.edge.process import RunningEdge

OUTAGES: dict[str, Callable[[WatchedBridge], None]] = {}


def outage(provoke: Callable[[WatchedBridge], None]) -> Callable[[WatchedBridge], None]:
    OUTAGES[provoke.__name__.replace("_", "-")] = provoke
    return provoke


@outage
def an_edge_is_killed(bridge: WatchedBridge) -> None:
    """One of two edges is killed, and is not restarted."""
    gone, _ = bridge.add_edge(), bridge.add_edge()
    bridge.add_worker()
    bridge.well()
    bridge.left_dead.add(gone)
    gone.kill()
    bridge.watch(minutes=3)


@outage
def kafka_is_killed(bridge: WatchedBridge) -> None:
    """Kafka is killed, and does not come back for 17 minutes."""
    _usual(bridge)
    bridge.stack.signal("kafka", signal.SIGKILL)
    bridge.watch(minutes=17)


@outage
def kafka_is_slow(bridge: WatchedBridge) -> None:
    """Kafka pauses for three seconds of every four; the edge waits for it for ten."""
    bridge.add_edge(EDGE_KAFKA_TIMEOUT_MS="10000")
    bridge.add_worker()
    bridge.well()
    over = threading.Event()

    def pause() -> None:
        while not over.is_set():
            bridge.stack.signal("kafka", signal.SIGSTOP)
            time.sleep(3)
            bridge.stack.signal("kafka", signal.SIGCONT)
            time.sleep(1)

    with _in_background(pause, over):
        bridge.watch(minutes=17)


@outage
def the_spool_fills_up(bridge: WatchedBridge) -> None:
    """Kafka is killed, and a spool of 32 MiB fills to three quarters, stays there, and then fills up."""
    edge = bridge.add_edge(EDGE_SPOOL_MAX_BYTES=str(32 << 20))
    bridge.add_worker()
    bridge.well()
    bridge.stack.signal("kafka", signal.SIGKILL)
    _post_until(bridge, edge, lambda _: (edge.metric("taskbridge_edge_spool_bytes") or 0) > 0.75 * (32 << 20))
    bridge.watch(minutes=3)
    _post_until(bridge, edge, lambda status: status == 503)
    bridge.watch(minutes=2)


@outage
def the_disk_is_full(bridge: WatchedBridge) -> None:
    """Another program fills the spool's disk, and then Kafka is killed."""
    disk = bridge.folder / "disk"
    with small_disk(disk, megabytes=64):
        edge = bridge.add_edge(EDGE_DATA_DIR=str(disk))
        bridge.add_worker()
        bridge.well()
        fill(disk)
        bridge.stack.signal("kafka", signal.SIGKILL)
        bridge.watch(minutes=4)
        edge.kill()


@outage
def the_disk_fails(bridge: WatchedBridge) -> None:
    """Kafka is killed, and fsync fails on the spool's disk."""
    edge = bridge.add_edge()
    bridge.add_worker()
    bridge.well()
    bridge.stack.signal("kafka", signal.SIGKILL)
    assert edge.process is not None
    inject = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"]
    argv = ["strace", "-f", "-qq", "-o", os.devnull, *inject, "-p", str(edge.process.pid)]
    strace = subprocess.Popen(argv)
    try:
        bridge.watch(minutes=4)
    finally:
        strace.terminate()
        strace.wait()


@outage
def a_spooled_record_is_refused(bridge: WatchedBridge) -> None:
    """Kafka is frozen while a large callback comes, and refuses a record of that size when it resumes."""
    edge = _usual(bridge)
    _set(bridge, TASK_EVENTS.name, "max.message.bytes", "100000")
    bridge.stack.signal("kafka", signal.SIGSTOP)
    wait_until(lambda: edge.metric("taskbridge_edge_spool_depth"), what="the edge spools")
    assert bridge.post(edge, "large", padding=200_000) == 200
    bridge.stack.signal("kafka", signal.SIGCONT)
    bridge.watch(minutes=3)


@outage
def a_token_was_rotated(bridge: WatchedBridge) -> None:
    """Yida signs with a token that the edge does not know."""
    edge = _usual(bridge)
    over = threading.Event()

    def sign_wrongly() -> None:
        number = 0
        while not over.wait(2):
            number += 1
            bridge.post(edge, f"rotated-{number}", token="ANOTHER" * 6)

    with _in_background(sign_wrongly, over):
        bridge.watch(minutes=4)


@outage
def an_edge_starts_without_a_registry(bridge: WatchedBridge) -> None:
    """The registry is killed, and an edge with an empty data folder is started."""
    _usual(bridge)
    bridge.stack.signal("registry", signal.SIGKILL)
    bridge.add_edge(ready=False)
    bridge.watch(minutes=4)


@outage
def the_credentials_are_broken(bridge: WatchedBridge) -> None:
    """An operator saves a credentials file that is not TOML."""
    edge = _usual(bridge)
    edge.credentials.write_text("[[apps]\n")
    bridge.watch(minutes=3)


@outage
def an_edge_knows_no_app(bridge: WatchedBridge) -> None:
    """An edge is started with a credentials file that has no app."""
    _usual(bridge)
    empty = bridge.folder / "empty.toml"
    empty.write_text("")
    bridge.add_edge(ready=False, EDGE_CREDENTIALS_FILE=str(empty))
    bridge.watch(minutes=3)


@outage
def the_connector_has_a_wrong_path(bridge: WatchedBridge) -> None:
    """An administrator misspells an action in Yida's connector."""
    from support.http_clients import post  # noqa: PLC0415

    edge = _usual(bridge)
    post(f"{edge.url}/yida/tasks/completed", json={"appType": "APP"})
    bridge.watch(minutes=2)


@outage
def connections_are_held(bridge: WatchedBridge) -> None:
    """A client holds all connections of an edge, and opens more."""
    edge = bridge.add_edge(EDGE_MAX_CONNECTIONS="20")
    bridge.add_worker()
    bridge.well()
    over = threading.Event()
    held: list[socket.socket] = []

    def hold() -> None:
        while not over.wait(0.5):
            held.append(socket.create_connection(("127.0.0.1", edge.port), timeout=5))

    with _in_background(hold, over):
        bridge.watch(minutes=12)
    for each in held:
        each.close()


@outage
def one_of_two_workers_is_killed(bridge: WatchedBridge) -> None:
    """The other worker takes over its partitions."""
    bridge.add_edge()
    gone, _ = bridge.add_worker(), bridge.add_worker()
    bridge.well()
    bridge.left_dead.add(gone)
    gone.kill()
    bridge.watch(minutes=4)


@outage
def all_workers_are_killed(bridge: WatchedBridge) -> None:
    """Both workers are killed, and are not restarted."""
    bridge.add_edge()
    workers = [bridge.add_worker(), bridge.add_worker()]
    bridge.well()
    bridge.left_dead.update(workers)
    for worker in workers:
        worker.kill()
    bridge.watch(minutes=8)


@outage
def the_only_worker_is_frozen(bridge: WatchedBridge) -> None:
    """Its machine swaps, or its container is paused."""
    _usual(bridge)
    bridge.workers[0].signal(signal.SIGSTOP)
    bridge.watch(minutes=8)


_HELD = """
import asyncio, os
from {module} import {agent}
original = {agent}.{method}
async def held(self, *arguments):
    while os.path.exists({path!r}):
        await asyncio.sleep(0.1)
    return await original(self, *arguments)
{agent}.{method} = held
from taskbridge.streams.app import main
main()
"""


@outage
def a_worker_stalls(bridge: WatchedBridge) -> None:
    """A worker answers, but its chunks never end; the watchdog ends it, and the next worker stalls, too."""
    bridge.add_edge()
    path = bridge.folder / "held"
    module = "taskbridge.streams.instances.task_agent"
    bridge.add_worker(_HELD.format(module=module, agent="TaskAgent", method="_end", path=str(path)))
    bridge.well()
    path.touch()
    bridge.watch(minutes=10)


@outage
def workers_keep_joining_and_leaving(bridge: WatchedBridge) -> None:
    """One of two is stopped and started again every 45 seconds."""
    bridge.add_edge()
    bridge.add_worker()
    other = bridge.add_worker()
    bridge.well(minutes=4)
    bridge.left_dead.add(other)
    for _ in range(9):
        other.end(signal.SIGTERM)
        bridge.watch(minutes=0.25)
        other.start()
        bridge.watch(minutes=0.5)


@outage
def a_record_cannot_be_read(bridge: WatchedBridge) -> None:
    """Another program writes something else to the events."""
    _usual(bridge)
    config: dict[str, Any] = producer_config(bridge.servers)
    producer = Producer(config)
    producer.produce(TASK_EVENTS.name, key=b"I-1", value=b"no event")
    assert producer.flush(30) == 0
    bridge.watch(minutes=3)


@outage
def the_events_are_recreated(bridge: WatchedBridge) -> None:
    """An operator deletes the events topic while no worker runs."""
    _usual(bridge)
    worker = bridge.workers[0]
    worker.end(signal.SIGTERM)
    delete_topics(bridge.connection.admin(), [TASK_EVENTS.name])
    bridge.watch(minutes=5)


@outage
def a_store_is_damaged(bridge: WatchedBridge) -> None:
    """Bytes of a store change while its worker does not run."""
    _usual(bridge)
    worker = bridge.workers[0]
    worker.end(signal.SIGTERM)
    for each in worker.data_dir.rglob("*.sst"):
        each.write_bytes(b"\0" * each.stat().st_size)
    bridge.watch(minutes=4)


def _usual(bridge: WatchedBridge) -> RunningEdge:
    """Start one edge and one worker, and wait until both are well."""
    edge = bridge.add_edge()
    bridge.add_worker()
    bridge.well()
    return edge


def _set(bridge: WatchedBridge, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin: Any = bridge.connection.admin()
    for each in admin.incremental_alter_configs([resource]).values():
        each.result(30)


def _post_until(bridge: WatchedBridge, edge: RunningEdge, enough: Callable[[int | None], bool]) -> None:
    for number in range(1000):
        if enough(bridge.post(edge, f"large-{number}", padding=300_000)):
            return
    raise AssertionError(f"{edge.log_path} took a thousand")


@contextmanager
def _in_background(work: Callable[[], None], over: threading.Event) -> Generator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def record(name: str) -> str:
    provoke = OUTAGES[name]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"outage-{name}-")))
        try:
            bridge = stack.enter_context(WatchedBridge(folder))
            provoke(bridge)
        except Exception:  # noqa: BLE001 - the others go on
            return f"{name}: NOT RECORDED\n{traceback.format_exc()}"
        Recording(
            what=provoke.__doc__ or "",
            recorded=datetime.now(UTC).date().isoformat(),
            interval_s=INTERVAL_S,
            begins=bridge.began,
            scrapes=bridge.scrapes.count,
            series=bridge.scrapes.notation(),
        ).save(name)
    return f"{name}: {bridge.scrapes.count} scrapes"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of these, all by default: {', '.join(OUTAGES)}")
    parser.add_argument("--at-once", type=int, default=4)
    options = parser.parse_args()
    if unknown := {*options.names} - {*OUTAGES}:
        parser.error(f"not among the outages: {', '.join(sorted(unknown))}")
    artifacts()
    outcomes: list[str] = []
    with ThreadPoolExecutor(options.at_once) as pool:
        for outcome in pool.map(record, options.names or OUTAGES):
            print(outcome, flush=True)  # noqa: T201 - its output
            outcomes.append(outcome)
    return int(any("NOT RECORDED" in each for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
