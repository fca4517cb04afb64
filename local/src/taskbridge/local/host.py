"""The machine: free ports and disk space, with errors of one readable line."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

from taskbridge.cli.terminal import Heartbeat, Progress
from taskbridge.runtime.process import try_lock
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping
    from pathlib import Path

LOOPBACK = "127.0.0.1"

# Below the kernel's range for outgoing connections. A port of that range could be given to a client that connects to a
# restarting service: the client would connect to itself, and the service could not listen.
_CANDIDATES = range(20_000, 32_000)
_HELD = 64
_held: deque[int] = deque()
"""Open sockets that reserve assigned ports until their service listens; the oldest are closed."""
_MB = 1_000_000


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int, *, excluding: Collection[int] = ()) -> list[int]:
    """Return ``count`` different ports of the loopback interface that nothing listens on.

    No other call in any process returns them until this process ends or has requested many more, so a service may
    listen later.
    """
    found: list[int] = []
    for port in random.sample(_CANDIDATES, len(_CANDIDATES)):
        if port not in excluding and _hold(port):
            found.append(port)
            if len(found) == count:
                return found
    raise ConfigurationError(
        f"no {count} ports between {_CANDIDATES.start} and {_CANDIDATES.stop} are free: stop a program that uses them"
    )


def check_distinct(ports: Mapping[str, int]) -> None:
    """Check that no port is given twice; ``ports`` are by their options.

    Raises ConfigurationError if two services would share a port.
    """
    first: dict[int, str] = {}
    for flag, port in ports.items():
        if (other := first.setdefault(port, flag)) != flag:
            raise ConfigurationError(f"{other} and {flag} are both {port}: choose different ports")


def check_free(port: int, flag: str) -> None:
    """Check that a service can listen on ``port`` of the loopback interface.

    Raises ConfigurationError if it cannot; the message names the port and the option ``flag``.
    """
    with socket.socket() as probe:
        # As services do, so that lingering connections of the last run do not count as "in use".
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except (OSError, OverflowError) as error:
            problem = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"port {port} cannot be used ({problem}): stop the program that uses it, or choose another with {flag}"
            ) from error


def _hold(port: int) -> bool:
    """Bind the port if it is free, in a way that still lets a service listen on it."""
    held = socket.socket()
    try:
        held.bind((LOOPBACK, port))
    except OSError:
        held.close()
        return False
    # Set after bind: a service that sets it too can still listen on the port.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Detached: the end of the process closes it.
    _held.append(held.detach())
    if len(_held) > _HELD:
        os.close(_held.popleft())
    return True


def require_space(folder: Path, *, needed_mb: int, remedy: str) -> None:
    """Create ``folder`` if it is missing, and check that its disk has space.

    Raises ConfigurationError if it cannot be created, or has too little space; ``remedy`` ends the message.
    """
    with readable_os_errors(folder, remedy=remedy):
        folder.mkdir(parents=True, exist_ok=True)
        free_mb = shutil.disk_usage(folder).free // _MB
    if free_mb < needed_mb:
        raise ConfigurationError(f"{folder} needs {needed_mb} MB of disk space, but has {free_mb} MB: {remedy}")


def write_new(path: Path, text: str) -> bool:
    """Create a file that only its owner can read. False if the path exists: then nothing is written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
        file.write(text)
    return True


@contextlib.contextmanager
def readable_os_errors(folder: Path, *, remedy: str) -> Generator[None]:
    """Turn every OSError of the block into one line that names the folder, the reason and the remedy."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigurationError(f"cannot write to {error.filename or folder} ({reason}): {remedy}") from error


@contextlib.contextmanager
def locked(lock_path: Path, *, progress: Progress, waiting_for: str) -> Generator[None]:
    """Hold the lock of ``lock_path`` during the block, after waiting while another process holds it."""
    heartbeat = Heartbeat(progress)
    with lock_path.open("a") as lock:
        while not try_lock(lock.fileno()):
            heartbeat.beat(waiting_for)
            time.sleep(0.1)
        yield
