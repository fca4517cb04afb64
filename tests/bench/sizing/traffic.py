"""The cost of callbacks at a steady rate: bytes on topics and in the spool, CPU time and memory of the services."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx2
from tests.bench.command import NotCounted
from tests.bench.machine import cpu_seconds, resident_mb
from tests.bench.services import answers, start_bridge, start_service, wait_until
from tests.bench.sizing.holding import topics_bytes
from tests.bench.streams.workload import APP_TYPE, CORP_ID, workload

from taskbridge.cli.callbacks import Sender
from taskbridge.local.host import LOOPBACK, free_port
from taskbridge.schemas import topics
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.table_versions import instances_changelog

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from tests.bench.streams.setup import Setup

    from taskbridge.schemas.events import TaskEvent

TOPICS = (
    topics.TASK_EVENTS.name,
    topics.TASK_STATES.name,
    topics.TASK_NOTIFICATIONS.name,
    instances_changelog(1).name,
)
EDGE, STREAMS, KAFKA = "edge", "streams", "Kafka"

_TOKEN = "BENCHTOKEN0123456789ABCDEF012345"
_PATHS = {"CREATED": "create", "COMPLETED": "complete", "CANCELLED": "cancel", "DELETED": "delete", "COPIED": "cc"}
_PUBLISHED = "taskbridge_streams_notifications_total"
_CLIENTS = 32
_WARM_UP = 200
_SPOOLED = 2000


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one rate."""

    target_rate: int
    callbacks: int
    seconds: float
    topic_bytes: Mapping[str, float]
    notifications: float
    cpu_s: Mapping[str, float]
    """From the first callback until all of it is published."""
    memory_mb: Mapping[str, float]

    @property
    def rate(self) -> float:
        return self.callbacks / self.seconds


def measure_traffic(setup: Setup, kafka_pid: int, rates: Mapping[int, int]) -> tuple[list[Traffic], float]:
    """For each rate as many callbacks; and how many bytes a callback takes in the spool.

    Raises:
        NotCounted: one is refused.
    """
    setup.create_topics()
    credentials = setup.folder / "credentials.toml"
    credentials.write_text(f'[[apps]]\napp_type = "{APP_TYPE}"\ncorp_id = "{CORP_ID}"\nsystem_tokens = ["{_TOKEN}"]\n')
    total = sum(rates.values()) + _WARM_UP + 2 * _SPOOLED
    events = (event for _, event in workload(total + total // 5))
    with ExitStack() as stack:
        bridge = start_bridge(stack, setup, credentials)
        edge, streams, pids = bridge.edge, bridge.streams, {**bridge.pids, KAFKA: kafka_pid}
        _post(edge, events, _WARM_UP, rate=_WARM_UP)
        _until_published(setup)
        found: list[Traffic] = []
        for rate, count in rates.items():
            setup.progress(f"{count:,} callbacks, {rate:,} a second")
            before = _Totals.now(setup, streams, pids)
            seconds = _post(edge, events, count, rate=rate)
            _until_published(setup)
            after = _Totals.now(setup, streams, pids)
            found.append(
                Traffic(
                    rate,
                    count,
                    seconds,
                    _grown(before.topic_bytes, after.topic_bytes),
                    after.notifications - before.notifications,
                    _grown(before.cpu_s, after.cpu_s),
                    {name: resident_mb(pid) for name, pid in pids.items()},
                )
            )
    # The same edge again, which knows the schemas' ids, and no Kafka where it looks for it.
    settings = {**bridge.settings, "EDGE_KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{free_port()}"}
    with ExitStack() as stack:
        start_service(stack, "taskbridge.cli", "edge", settings=settings, folder=setup.folder)
        wait_until(lambda: answers(f"{edge}/healthz"), f"{edge} lives")
        _post(edge, events, _SPOOLED, rate=_SPOOLED)
        before = _spool_bytes(edge)
        _post(edge, events, _SPOOLED, rate=_SPOOLED)
        return found, (_spool_bytes(edge) - before) / _SPOOLED


class _Totals(NamedTuple):
    topic_bytes: Mapping[str, float]
    notifications: float
    cpu_s: Mapping[str, float]

    @classmethod
    def now(cls, setup: Setup, streams: str, pids: Mapping[str, int]) -> Self:
        cpu_s = {name: cpu_seconds(pid) for name, pid in pids.items()}
        return cls(topics_bytes(setup, TOPICS), _metric(streams, _PUBLISHED), cpu_s)


def _grown(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in after.items()}


def _post(edge: str, events: Iterator[TaskEvent], count: int, *, rate: int) -> float:
    """Post so many, no faster than that; returns how long it took."""
    mine = [next(events) for _ in range(count)]
    turns, refused = iter(enumerate(mine)), list[Any]()
    lock = threading.Lock()
    began = time.monotonic()

    def post() -> None:
        with Sender(edge) as sender:
            while not refused:
                with lock:
                    at, event = next(turns, (0, None))
                if event is None:
                    return
                time.sleep(max(0.0, began + at / rate - time.monotonic()))
                parameters = {name: text for name, text in event.raw_parameters.items() if name != "sign"}
                answer = sender.post(_PATHS[event.action.value], parameters, system_token=_TOKEN, encoding="form")
                if not answer.accepted:
                    refused.append(answer)

    threads = [threading.Thread(target=post) for _ in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if refused:
        raise NotCounted(f"the edge answered {refused[0].status}: {json.dumps(refused[0].body)}")
    return time.monotonic() - began


def _until_published(setup: Setup) -> None:
    """Until the worker has folded all events: it commits them with what it published."""
    kafka, partitions, topic = setup.kafka, setup.partitions, topics.TASK_EVENTS.name
    wait_until(lambda: kafka.ends(topic, partitions) == kafka.committed(APP_ID, topic, partitions), "events are folded")


def _spool_bytes(edge: str) -> float:
    return _metric(edge, "taskbridge_edge_spool_bytes")


def _metric(service: str, name: str) -> float:
    """The sum of its series."""
    text = httpx2.get(f"{service}/metrics", timeout=10, trust_env=False).text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return sum(float(value) for _, value in lines)
