"""The bridge's services and the servers they are compared with, as processes of a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import httpx2
from tests.bench.command import NotCounted
from tests.bench.toolchains import CHECKOUT

from taskbridge.local.bridge import CONSUMERS_NICENESS
from taskbridge.local.child import Child
from taskbridge.local.host import LOOPBACK, free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack
    from pathlib import Path

    from tests.bench.streams.setup import Setup

_READY_S = 600.0
_OK = 200
_FOREIGN = ("EDGE_", "STREAMS_", "CENTER_", "WEBHOOKS_", "TASKBRIDGE_")


def start_service(
    stack: ExitStack,
    module: str,
    *arguments: str,
    folder: Path,
    settings: Mapping[str, str] | None = None,
    checkout: Path = CHECKOUT,
) -> int:
    """The id of a process that runs until the stack is left. It gets these settings, and none of the caller's.

    ``checkout`` may be another one, with an environment of its own.
    """
    argv, env = _command(module, *arguments, settings=settings, checkout=checkout)
    log_path = folder / f"{'-'.join([module, *arguments])}.log"
    # As `taskbridge up` runs them.
    niceness = CONSUMERS_NICENESS if module == "taskbridge.cli" and "edge" not in arguments else 0
    child = Child(argv, env=env, cwd=checkout, log_path=log_path, orphan_signal=signal.SIGKILL, niceness=niceness)
    stack.callback(child.end, signal.SIGTERM, timeout_s=20)
    return child.pid


class Bridge(NamedTuple):
    """An edge and a worker that are ready."""

    edge: str
    streams: str
    """Their URLs."""
    pids: Mapping[str, int]
    """By their names, ``edge`` and ``streams``."""
    settings: Mapping[str, str]


def start_bridge(stack: ExitStack, setup: Setup, credentials: Path, *, checkout: Path = CHECKOUT) -> Bridge:
    """An edge and a worker on the Kafka of a run, until the stack is left."""
    ports = dict(zip(("edge", "streams"), free_ports(2), strict=True))
    settings = {"EDGE_CREDENTIALS_FILE": str(credentials)}
    for name, port in ports.items():
        prefix = name.upper()
        settings |= {
            f"{prefix}_PORT": str(port),
            f"{prefix}_KAFKA_BOOTSTRAP_SERVERS": setup.bootstrap_servers,
            f"{prefix}_SCHEMA_REGISTRY_URL": setup.registry_url,
            f"{prefix}_DATA_DIR": str(setup.folder / name),
        }
    urls, pids = {name: f"http://{LOOPBACK}:{port}" for name, port in ports.items()}, dict[str, int]()
    for name, url in urls.items():
        pids[name] = start_service(
            stack, "taskbridge.cli", name, settings=settings, folder=setup.folder, checkout=checkout
        )
        wait_until(lambda url=url: answers(f"{url}/readyz"), f"{url} is ready")
    return Bridge(**urls, pids=pids, settings=settings)


def run_service(module: str, *arguments: str, settings: Mapping[str, str], checkout: Path = CHECKOUT) -> None:
    """Runs it to its end; the same environment.

    Raises:
        NotCounted: it fails.
    """
    argv, env = _command(module, *arguments, settings=settings, checkout=checkout)
    done = subprocess.run(argv, env=env, cwd=checkout, check=False, capture_output=True, text=True)
    if done.returncode:
        raise NotCounted(f"{' '.join(arguments)}: exit code {done.returncode}: {done.stderr}")


def _command(
    module: str, *arguments: str, settings: Mapping[str, str] | None, checkout: Path
) -> tuple[list[str], dict[str, str]]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)} | dict(settings or {})
    python = sys.executable if checkout == CHECKOUT else str(checkout / ".venv" / "bin" / "python")
    if checkout != CHECKOUT:
        env.pop("PYTHONPATH", None)
    return [python, "-m", module, *arguments], env


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Blocks.

    Raises:
        NotCounted: it does not happen.
    """
    deadline = time.monotonic() + _READY_S
    while not condition():
        if time.monotonic() > deadline:
            raise NotCounted(f"did not happen within {_READY_S:.0f} s: {what}")
        time.sleep(0.2)


def answers(url: str) -> bool:
    """Whether it answers 200 now."""
    try:
        return httpx2.get(url, timeout=5, trust_env=False).status_code == _OK
    except httpx2.HTTPError:
        return False
