"""Every callback that was answered 200 is on the topic, whole, after processes are killed or frozen and disks filled.

What the disk holds leaves it in order per instance. While the disk has no room, newer events go directly to Kafka.

TASKBRIDGE_CHAOS_SEEDS=1,2,3 runs more schedules, TASKBRIDGE_CHAOS_SECONDS=600 longer ones. The disk that fills up is a
tmpfs where the tests run as root; elsewhere the spool's limit on bytes replaces it.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from support.edge.fakes import SYSTEM_TOKEN, parameters_of
from support.edge.process import OwnStack, RunningEdge, wait_until
from support.edge.spool import can_mount, fill, small_disk
from support.streams.lives import read_topic
from taskbridge.cli.connection import Connection
from taskbridge.edge.sender import encode_callback, signed
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from taskbridge.local.jvm import Endpoints
    from taskbridge.schemas.events import TaskEvent

pytestmark = [pytest.mark.integration, pytest.mark.disasters]

SECONDS = float(os.environ.get("TASKBRIDGE_CHAOS_SECONDS", "15"))
SEEDS = [int(seed) for seed in os.environ.get("TASKBRIDGE_CHAOS_SEEDS", "1").split(",")]
KAFKA_TIMEOUT_S = 0.5
SENDERS = 12
INSTANCES_EACH = 4
PERIOD_S = 0.2
HEALING_PERIOD_S = 2 * PERIOD_S
SPOOL_MB = 24
DISK_MB = SPOOL_MB + 26  # with the file of remembered signatures, which is allocated at the start


@dataclass
class Answered:
    """What the senders were promised: by instance, in the order of the answers."""

    by_instance: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    spooled: set[str] = field(default_factory=set[str])
    parameters: dict[str, Mapping[str, str]] = field(default_factory=dict[str, "Mapping[str, str]"])
    outcomes: Counter[str] = field(default_factory=Counter[str])


class Senders:
    """Threads that each send one callback after the other at a steady rate, also after errors."""

    def __init__(self, url: str) -> None:
        self.answered = Answered()
        self._url = url
        self._period_s = PERIOD_S
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send_all, args=(number,)) for number in range(SENDERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def until_kafka_has_them(self) -> None:
        """Return once callbacks go directly to Kafka, as none does while the spool empties; send fewer until then.

        One record of an instance leaves the spool at a time: a slow machine might accept callbacks at the same rate.
        """
        before = self.answered.outcomes["kafka"]
        self._period_s = HEALING_PERIOD_S
        wait_until(lambda: self.answered.outcomes["kafka"] > before + SENDERS, 180, what="an answer of 'kafka'")
        self._period_s = PERIOD_S

    def _send_all(self, sender: int) -> None:
        # Sixty a second: httpx2 would need five times the CPU for each, and the edge runs on the same cores.
        client = http.client.HTTPConnection(urlsplit(self._url).netloc, timeout=15)
        due = time.monotonic()
        for number in itertools.count():
            if self._stop.is_set():
                break
            instance_id = f"inst-{sender}-{number % INSTANCES_EACH}"
            plain = parameters_of("complete", instance_id=instance_id, task_id=f"task-{sender}-{number}")
            plain["comment"] = "x" * (3000 if number % 7 == 0 else 100)
            parameters = signed(plain, system_token=SYSTEM_TOKEN)
            self._send(client, instance_id, parameters)
            due = max(due + self._period_s, time.monotonic() - PERIOD_S)
            time.sleep(max(0.0, due - time.monotonic()))
        client.close()

    def _send(self, client: http.client.HTTPConnection, instance_id: str, parameters: Mapping[str, str]) -> None:
        encoded = encode_callback(parameters, "json")
        try:
            client.request("POST", "/yida/tasks/complete", encoded.body, dict(encoded.headers))
            answer = client.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            client.close()  # the next request opens a connection
            self.answered.outcomes[type(error).__name__] += 1
            time.sleep(0.1)
            return
        if answer.status == 200:
            body = json.loads(content)
            self.answered.by_instance[instance_id].append(body["eventId"])
            self.answered.parameters[body["eventId"]] = parameters
            self.answered.outcomes[body["durability"]] += 1
            if body["durability"] == "spool":
                self.answered.spooled.add(body["eventId"])
        else:
            self.answered.outcomes[str(answer.status)] += 1


class Chaos:
    """Seeded misfortunes, one at a time; each heals before the next."""

    def __init__(self, seed: int, edge: RunningEdge, stack: OwnStack, senders: Senders) -> None:
        self.log: list[str] = []
        self._random = random.Random(seed)
        self._edge = edge
        self._stack = stack
        self._senders = senders

    def run(self, seconds: float) -> None:
        kinds: list[Callable[[], None]] = [
            self.kill_edge,
            self.kill_broker,
            self.freeze_broker,
            self.kill_registry,
            self.fill_disk,
            self.kill_edge_while_broker_is_frozen,
            self.kill_edge_while_broker_is_down,
            self.kill_both_while_records_are_on_their_way,
        ]
        self._senders.until_kafka_has_them()
        deadline = time.monotonic() + seconds
        for kind in self._schedule(kinds):
            if len(self.log) >= len(kinds) and time.monotonic() > deadline:
                break
            self.log.append(kind.__name__)
            kind()
            self._senders.until_kafka_has_them()
            self._pause(0.2, 0.8)
        for name in ("kafka", "registry"):
            self._stack.wait_until_back(name)

    def _schedule(self, kinds: list[Callable[[], None]]) -> Iterator[Callable[[], None]]:
        """Each of them once, in a seeded order, and again."""
        while True:
            yield from self._random.sample(kinds, len(kinds))

    def kill_edge(self) -> None:
        self._edge.kill()
        self._edge.start()
        wait_until(self._edge.is_ready)

    def kill_broker(self) -> None:
        self._stack.signal("kafka", signal.SIGKILL)
        time.sleep(0.5)
        self._stack.wait_until_back("kafka")

    def freeze_broker(self) -> None:
        self._stack.signal("kafka", signal.SIGSTOP)
        self._pause(2 * KAFKA_TIMEOUT_S, 8 * KAFKA_TIMEOUT_S)
        self._stack.signal("kafka", signal.SIGCONT)

    def kill_edge_while_broker_is_frozen(self) -> None:
        self._stack.signal("kafka", signal.SIGSTOP)
        self._pause(2 * KAFKA_TIMEOUT_S, 4 * KAFKA_TIMEOUT_S)
        self.kill_edge()
        self._stack.signal("kafka", signal.SIGCONT)

    def kill_edge_while_broker_is_down(self) -> None:
        # Records that only the producer had are gone then: only the spool can have them.
        self._stack.signal("kafka", signal.SIGKILL)
        self._pause(1.2 * KAFKA_TIMEOUT_S, 2 * KAFKA_TIMEOUT_S)
        self.kill_edge()
        self._stack.wait_until_back("kafka")

    def kill_both_while_records_are_on_their_way(self) -> None:
        # A frozen broker's socket still accepts records, and the broker has them when it thaws. Killed while frozen, it
        # never has them: a record that counted as stored without an acknowledgement is lost.
        self._stack.signal("kafka", signal.SIGSTOP)
        self._pause(1.5 * KAFKA_TIMEOUT_S, 3 * KAFKA_TIMEOUT_S)
        self._edge.kill()
        self._stack.signal("kafka", signal.SIGKILL)
        self._edge.start()
        wait_until(self._edge.is_ready)
        self._stack.wait_until_back("kafka")

    def kill_registry(self) -> None:
        self._stack.signal("registry", signal.SIGKILL)

    def fill_disk(self) -> None:
        if not can_mount():
            return
        self._stack.signal("kafka", signal.SIGSTOP)
        ballast = fill(self._edge.data_dir)
        self._pause(2 * KAFKA_TIMEOUT_S, 5 * KAFKA_TIMEOUT_S)
        ballast.unlink()
        self._stack.signal("kafka", signal.SIGCONT)
        wait_until(self._edge.is_ready, what="room again")

    def _pause(self, least_s: float, most_s: float) -> None:
        time.sleep(self._random.uniform(least_s, most_s))


def read_events(endpoints: Endpoints) -> dict[str, list[TaskEvent]]:
    """Every event of the topic, by instance, in the order of its partition."""
    found: dict[str, list[TaskEvent]] = defaultdict(list)
    with contextlib.closing(Connection(endpoints.bootstrap_servers, endpoints.registry_url, {})) as connection:
        codec = task_event_codec(connection.registry)
        for message in read_topic(connection, TASK_EVENTS.name):
            event = codec.decode(message.value())
            assert message.key() == event.instance_id.encode()
            assert dict(message.headers() or [])["ce_id"] == event.event_id.encode()  # type: ignore[arg-type]
            found[event.instance_id].append(event)
    return found


def verdict(answered: Answered, topic: Mapping[str, list[TaskEvent]]) -> dict[str, Any]:
    """Records that are lost, changed or out of order."""
    lost, changed, disordered = list[str](), list[str](), list[str]()
    for instance_id, promised in answered.by_instance.items():
        first: dict[str, int] = {}
        for at, event in enumerate(topic.get(instance_id, [])):
            first.setdefault(event.event_id, at)
            if event.event_id in answered.parameters:
                same = event.raw_parameters == answered.parameters[event.event_id]
                changed += [] if same else [event.event_id]
        lost += [each for each in promised if each not in first]
        # A late record may be on Kafka twice; the records that the disk held then are there in order.
        there = iter([event.event_id for event in topic.get(instance_id, [])])
        if not all(each in there for each in promised if each in first and each in answered.spooled):
            disordered.append(instance_id)
    events = [event.event_id for each in topic.values() for event in each]
    duplicates = len(events) - len(set(events))
    return {"lost": lost, "changed": changed, "disordered": disordered, "duplicates": duplicates}


def print_metrics(edge: RunningEdge) -> None:
    """What the edge logs about its path to Kafka, for finding out why a run failed."""
    answer = edge.get("/metrics")
    lines = answer.text.splitlines() if answer is not None else []
    metrics = [each for each in lines if each.startswith(("taskbridge_edge_spool_", "taskbridge_edge_kafka_"))]
    sys.stderr.write(
        "\n".join([*(each for each in metrics if "_bucket" not in each), edge.log_path.read_text()[-5000:]])
    )


@pytest.mark.timeout(SECONDS + 900)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_that_was_answered_is_lost(tmp_path: Path, seed: int) -> None:
    with contextlib.ExitStack() as ending:
        stack = OwnStack(tmp_path / "stack")
        ending.callback(stack.stop)
        edge = RunningEdge(
            tmp_path,
            bootstrap_servers=stack.endpoints.bootstrap_servers,
            registry_url=stack.endpoints.registry_url,
            EDGE_KAFKA_TIMEOUT_MS=str(int(KAFKA_TIMEOUT_S * 1000)),
            EDGE_SPOOL_MAX_BYTES=str((SPOOL_MB if can_mount() else 1) << 20),
        )
        if can_mount():
            ending.enter_context(small_disk(edge.data_dir, megabytes=DISK_MB))
        edge.start()
        ending.callback(edge.kill)
        wait_until(edge.is_whole, what="the edge is ready")
        senders = Senders(edge.url)
        senders.start()
        chaos = Chaos(seed, edge, stack, senders)
        try:
            chaos.run(SECONDS)
        finally:
            senders.stop()
            sys.stderr.write(f"\n[chaos] seed {seed}: {' '.join(chaos.log)}\n")
            sys.stderr.write(f"[chaos] answers: {dict(senders.answered.outcomes)}\n")
        ending.callback(print_metrics, edge)
        wait_until(edge.has_drained, 180, what="the spool is empty")
        found = verdict(senders.answered, read_events(stack.endpoints))
        sys.stderr.write(f"[chaos] {dict(found, lost=len(found['lost']))}\n")
        assert (found["lost"], found["changed"]) == ([], [])
        assert found["disordered"] == []
        assert {"kafka", "spool"} <= set(senders.answered.outcomes), "the schedule reached only one of the two"
        assert len(senders.answered.parameters) > 20 * SECONDS
        assert edge.metric("taskbridge_edge_spool_set_aside_records") == 0
        assert list((edge.data_dir / "spool").glob("*damaged*")) == []
        assert edge.stop() == 0
