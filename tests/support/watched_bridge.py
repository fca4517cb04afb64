"""A bridge of one recording's own, under a little traffic, and what Prometheus would see of it every 15 seconds."""

from __future__ import annotations

import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import httpx2

from support import http_clients
from support.alerts import Scrapes, samples_of
from support.edge.fakes import SYSTEM_TOKEN, parameters_of
from support.edge.process import OwnStack, RunningEdge, wait_until
from support.streams.processes import Worker
from taskbridge.cli.connection import Connection
from taskbridge.edge.sender import encode_callback, signed
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

INTERVAL_S = 15
_TIMEOUT_S = 10
_NEVER_S = 1e6


class WatchedBridge:
    """Kafka, registry, an edge and a worker, and what else a recording adds.

    Services that exit are restarted, as ``taskbridge up`` does; Kafka and the registry are not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = OwnStack(folder / "stack", comes_back_after_s=_NEVER_S)
        self.servers = self.stack.endpoints.bootstrap_servers
        self.registry_url = self.stack.endpoints.registry_url
        self.connection = Connection(self.servers, self.registry_url, {})
        apply_topics(self.connection.admin(), topics.ALL, partitions=topics.DEFAULT_PARTITIONS)
        self.connection.registry.register(topics.ALL)
        self.edges: list[RunningEdge] = []
        self.workers: list[Worker] = []
        self.scrapes = Scrapes()
        self.began = 0
        self.left_dead: set[RunningEdge | Worker] = set()
        self._at_end = ExitStack()
        self._at_end.callback(self._end)
        self._over = threading.Event()
        self._traffic: list[threading.Thread] = []
        self._codes: dict[Worker, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._at_end.close()

    def _end(self) -> None:
        self._over.set()
        for thread in self._traffic:
            thread.join()
        for edge in self.edges:
            edge.kill_if_running()
        for worker in self.workers:
            worker.kill()
        self.stack.stop()

    def add_edge(self, *, ready: bool = True, **environment: str) -> RunningEdge:
        folder = self.folder / f"edge-{len(self.edges)}"
        folder.mkdir()
        edge = RunningEdge(folder, bootstrap_servers=self.servers, registry_url=self.registry_url, **environment)
        edge.start()
        self.edges.append(edge)
        if ready:
            wait_until(edge.is_whole, 120, what="an edge is ready")
        return edge

    def add_worker(self, code: str | None = None, **environment: str) -> Worker:
        worker = Worker(self.folder, self.connection, **environment)
        if code is not None:
            self._codes[worker] = code
        self._start(worker)
        self.workers.append(worker)
        wait_until(worker.is_ready, 180, what="a worker is ready")
        return worker

    def well(self, *, minutes: float = 2) -> None:
        """Nothing is wrong for so long; then the outage begins."""
        self.watch(minutes=minutes)
        self.began = self.scrapes.count

    def watch(self, *, minutes: float) -> None:
        """Scrape as Prometheus does, for so long."""
        if not self._traffic:
            self._traffic = [threading.Thread(target=self._post)]
            for thread in self._traffic:
                thread.start()
        begun = time.monotonic()
        for number in range(round(minutes * 60 / INTERVAL_S)):
            time.sleep(max(0.0, begun + number * INTERVAL_S - time.monotonic()))
            self._restart_dead()
            self._scrape()

    def post(self, edge: RunningEdge, number: str, *, token: str = SYSTEM_TOKEN, padding: int = 0) -> int | None:
        """One callback; the status of its answer, if there is one."""
        parameters = {
            **parameters_of("complete", instance_id=f"I-{number}"),
            "note": random.randbytes(padding // 2).hex(),
        }
        encoded = encode_callback(signed(parameters, system_token=token), "json")
        with suppress(httpx2.HTTPError):
            return edge.post("/yida/tasks/complete", encoded).status_code
        return None

    def _scrape(self) -> None:
        targets = [(each, "taskbridge-edge", f"edge-{at}:8400") for at, each in enumerate(self.edges, 1)]
        targets += [(each, "taskbridge-streams", f"worker-{at}:8500") for at, each in enumerate(self.workers, 1)]
        with ThreadPoolExecutor(len(targets)) as pool:
            answers = pool.map(_metrics, [each.port for each, _, _ in targets])
        samples: dict[str, str] = {}
        for (_, job, instance), answer in zip(targets, answers, strict=True):
            samples |= samples_of(answer, job=job, instance=instance)
        self.scrapes.add(samples)

    def _restart_dead(self) -> None:
        for each in (*self.edges, *self.workers):
            if each not in self.left_dead and (each.process is None or each.process.poll() is not None):
                self._start(each)

    def _start(self, service: RunningEdge | Worker) -> None:
        if isinstance(service, Worker) and (code := self._codes.get(service)):
            service.start(code)
        else:
            service.start()

    def _post(self) -> None:
        for number in itertools.count():
            if self._over.wait(2):
                return
            for edge in [*self.edges]:
                self.post(edge, f"{number}")


def _metrics(port: int) -> str | None:
    with suppress(httpx2.HTTPError):
        answer = http_clients.get(f"http://127.0.0.1:{port}/metrics", timeout=_TIMEOUT_S)
        return answer.text if answer.status_code == 200 else None
    return None
