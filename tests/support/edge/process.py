"""The edge as a real process that tests may kill, and a Kafka and registry of their own that they may kill too."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx2

from support import http_clients
from support.edge.fakes import SOURCE_SECRET, SYSTEM_TOKEN, write_credentials
from support.forked import Forked, show_log
from support.kafka.stack import KafkaWithSharedRegistry
from taskbridge.local.artifacts import cache_folder
from taskbridge.local.child import tethered
from taskbridge.local.host import free_port, free_ports
from taskbridge.local.stack import JvmStack
from taskbridge.local.supervisor import Backoff, Phase, Supervisor

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from taskbridge.edge.sender import EncodedCallback
    from taskbridge.local.supervisor import ServiceEvent


Found = TypeVar("Found")
LOAD_FAST = "import gc; gc.set_threshold(50_000, 20, 100)"
"""The same first statement as the program ``taskbridge``."""
_LOADED = [sys.executable, "-c", f"{LOAD_FAST}; from taskbridge.edge.app import run; run()"]


def wait_until(condition: Callable[[], Found], timeout_s: float = 60, *, what: str = "it") -> Found:
    """The first true value of ``condition``."""
    deadline = (began := time.monotonic()) + timeout_s
    while not (found := condition()):
        now = time.monotonic()
        assert now < deadline, f"did not happen within {timeout_s} s: {what}"
        # A slow condition, such as one on all records of a topic, leaves the cores to the services.
        time.sleep(max(0.05, 2 * (now - began)))
        began = time.monotonic()
    return found


class OwnStack:
    """Kafka of a test's own, and a registry unless one is given. A killed process is restarted."""

    def __init__(self, folder: Path, *, registry_url: str | None = None) -> None:
        self.events: list[ServiceEvent] = []
        self._folder, self._given = folder, registry_url
        self._ports = free_ports(2)
        self.start()

    def start(self) -> None:
        """Start on the same ports and folder, also after ``stop``."""
        self._supervisor = Supervisor(on_event=self.events.append, backoff=Backoff(first_s=1.0))
        kafka_port, registry_port = self._ports
        if self._given is None:
            self._stack = JvmStack(
                data_dir=self._folder,
                kafka_port=kafka_port,
                registry_port=registry_port,
                cache=cache_folder(os.environ),
                supervisor=self._supervisor,
                progress=print,
            )
        else:
            self._stack = KafkaWithSharedRegistry(self._given, self._folder, self._supervisor, port=kafka_port)
        self.endpoints = self._stack.start()

    def signal(self, name: str, signum: signal.Signals) -> None:
        pid = self._supervisor.pid(name)
        if pid is not None:
            os.kill(pid, signum)

    def wait_until_back(self, name: str) -> None:
        def is_ready() -> bool:
            phases = [each.phase for each in self.events if each.service == name]
            return phases[-1] is Phase.READY

        wait_until(is_ready, 120, what=f"{name} is back")

    def stop(self) -> None:
        with contextlib.suppress(KeyError):  # they are stopped already
            for name in ("kafka", "registry"):
                self.signal(name, signal.SIGCONT)
        self._stack.stop()


class RunningEdge:
    """The edge on a port and a data folder of its own, which stay the same over its restarts.

    As a context it is not started, but killed at the end, and a failed test shows its log.
    """

    def __init__(self, folder: Path, *, bootstrap_servers: str, registry_url: str, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data_dir = folder / "edge"
        self.log_path = folder / "edge.log"
        self.credentials = folder / "credentials.toml"
        write_credentials(self.credentials, SYSTEM_TOKEN, secrets=(SOURCE_SECRET,))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
        self.argv = [*_LOADED]
        self.environment = {
            **inherited,
            "EDGE_PORT": str(self.port),
            "EDGE_KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "EDGE_SCHEMA_REGISTRY_URL": registry_url,
            "EDGE_CREDENTIALS_FILE": str(self.credentials),
            "EDGE_DATA_DIR": str(self.data_dir),
            "EDGE_LOG_FORMAT": "json",
            "EDGE_LOG_LEVEL": "WARNING",
            **environment,
        }
        self.sockets: Sequence[socket.socket] = ()
        """What listens already, and is handed over at each start."""
        self.process: subprocess.Popen[bytes] | Forked | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_if_running()

    def start(self, *prefix: str) -> None:
        """Start it, behind another program if one is given; a session of its own lets a test kill all of it at once.

        It ends with the tests, also when those are killed.
        """
        if not (prefix or self.sockets) and self.argv == _LOADED:
            self.process = Forked(_LOADED[-1], environment=self.environment, log=self.log_path)
            return
        given = [each.fileno() for each in self.sockets]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                tethered([*prefix, *self.argv], orphan_signal=signal.SIGTERM, descriptors=given),
                pass_fds=given,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL to every process of it, as when the machine's memory runs out."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_if_running(self) -> None:
        """For a test's end, in any state; a failed test shows the end of the log."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        show_log(self.log_path)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def log(self) -> list[dict[str, Any]]:
        """The lines of all its starts."""
        return [json.loads(line) for line in self.log_path.read_text("utf-8").splitlines()]

    def post(self, path: str, sent: EncodedCallback, **headers: str) -> httpx2.Response:
        return http_clients.post(self.url + path, content=sent.body, headers={**sent.headers, **headers})

    def get(self, path: str) -> httpx2.Response | None:
        with contextlib.suppress(httpx2.HTTPError):
            return http_clients.get(self.url + path, timeout=5)
        return None

    def is_ready(self, path: str = "/readyz") -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text()[-3000:]
        answer = self.get(path)
        return answer is not None and answer.status_code == 200

    def is_whole(self) -> bool:
        """Ready, and not only because there is a spool."""
        answer = self.get("/readyz")
        return answer is not None and answer.status_code == 200 and not answer.json()["degraded"]

    def metric(self, name: str) -> float | None:
        answer = self.get("/metrics")
        lines = answer.text.splitlines() if answer is not None else []
        return next((float(line.split()[-1]) for line in lines if line.split()[0] == name), None)

    def has_drained(self) -> bool:
        return self.metric("taskbridge_edge_spool_depth") == 0
