"""Several workers of the streams service that share the partitions, and events that keep coming while they are hurt."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx2

import plain_http
from forked import Forked
from running_edge import LOAD_FAST
from stream_lives import lives, produce
from taskbridge.local.ports import free_port

if TYPE_CHECKING:
    import signal
    from pathlib import Path

    from taskbridge.cli.connection import Connection


_SHOWN_CHARACTERS = 100_000
_CODE = f"{LOAD_FAST}; from taskbridge.streams.app import main; main()"


class Worker:
    """One worker with a data directory and a port that stay the same over its restarts."""

    def __init__(self, folder: Path, connection: Connection, **environment: str) -> None:
        self.port = free_port()
        self.log_path = folder / f"worker-{self.port}.log"
        self.data_dir = folder / f"worker-{self.port}"
        self._environment = {
            **os.environ,
            "STREAMS_KAFKA_BOOTSTRAP_SERVERS": connection.bootstrap_servers,
            "STREAMS_SCHEMA_REGISTRY_URL": connection.registry_url,
            "STREAMS_DATA_DIR": str(self.data_dir),
            "STREAMS_PORT": str(self.port),
            **environment,
        }
        self.python = sys.executable
        """Whose environment has the program: by default this one."""
        self.process: subprocess.Popen[bytes] | Forked | None = None

    def start(self, code: str = _CODE) -> None:
        """Start it; with other code, one that was changed for a test."""
        if code == _CODE and self.python == sys.executable:
            self.process = Forked(code, environment=self._environment, log=self.log_path)
            return
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen([self.python, "-c", code], env=self._environment, stderr=log)

    def signal(self, signum: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(signum)

    def end(self, signum: signal.Signals, *, within_s: float = 60) -> int:
        self.signal(signum)
        return self.exit_code(within_s)

    def exit_code(self, timeout_s: float = 60) -> int:
        """How it ended, when it does."""
        assert self.process is not None
        code = self.process.wait(timeout_s)
        self.process = None
        return code

    def readiness(self, *, timeout_s: float = 2) -> dict[str, Any]:
        """What ``/readyz`` tells; empty where nobody answers."""
        with contextlib.suppress(httpx2.HTTPError):
            return plain_http.get(f"http://127.0.0.1:{self.port}/readyz", timeout=timeout_s).json()
        return {}

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text()[-3000:]
        return self.readiness().get("ready", False)

    def metrics(self) -> dict[str, float]:
        """Every series by its name and labels, as Prometheus reads them."""
        with contextlib.suppress(httpx2.HTTPError):
            text = plain_http.get(f"http://127.0.0.1:{self.port}/metrics", timeout=5).text
            lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
            return {name: float(value) for name, value in lines}
        return {}

    def kill_if_running(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def show_log(self) -> None:
        """At a test's end: pytest keeps what is printed with a failure, and drops it otherwise."""
        show_log(self.log_path)


def show_log(path: Path) -> None:
    if path.exists():
        print(f"{path.name}:\n{path.read_text()[-_SHOWN_CHARACTERS:]}")  # noqa: T201 - that is what it is for


class Load:
    """A thread that writes the lives of new instances, a few at a time, until it is stopped."""

    def __init__(self, connection: Connection, seed: int) -> None:
        self._connection = connection
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._stop.is_set():
            produce(self._connection, lives(10, seed=self._chance.randrange(1 << 30)))
            time.sleep(0.1)
