"""The sockets that the edge listens on: given to it by whoever outlives it, else its own.

Who connects while the process is restarted waits in the kernel's queue of a socket that stays open:
see docs/adr/0037-the-listening-socket-outlives-the-process.md.
"""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taskbridge.runtime.locks import try_lock
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path

BACKLOG = 65_535
"""How many may wait; the kernel makes no more than net.core.somaxconn of it."""
OPERATOR = "operator"
"""What a given socket is called (LISTEN_FDNAMES) that is for operators; any other takes callbacks."""

_FIRST_GIVEN = 3


@dataclass(frozen=True, slots=True)
class Sockets:
    callbacks: list[socket.socket] = field(default_factory=list[socket.socket])
    operator: list[socket.socket] = field(default_factory=list[socket.socket])


def given_sockets(environment: MutableMapping[str, str]) -> Sockets:
    """The listening sockets that were handed to this process as systemd does it; ``LISTEN_*`` is taken out.

    Raises:
        ConfigurationError: what was handed over is no listening TCP socket.
    """
    process = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    found = Sockets()
    if process != str(os.getpid()):  # they were meant for a parent of ours
        return found
    for number in range(int(count) if count.isdecimal() else 0):
        sock = _given(_FIRST_GIVEN + number)
        is_operators = number < len(names) and names[number] == OPERATOR
        (found.operator if is_operators else found.callbacks).append(sock)
    return found


def _given(descriptor: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
        listens = sock.type is socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigurationError(f"LISTEN_FDS: descriptor {descriptor}: {error.strerror}") from error
    if not listens or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise ConfigurationError(f"LISTEN_FDS: descriptor {descriptor} is not a listening TCP socket")
    sock.set_inheritable(False)
    return sock


def listen(host: str, port: int, *, reuse_port: bool = False, queues: int = 1) -> list[socket.socket]:
    """Sockets that listen on every address of ``host``; no host is every address of the machine.

    With several ``queues`` so many on each address, among which the kernel spreads who connects: together they hold
    as many times more that wait. Nobody else listens there when it is done.

    Raises:
        ConfigurationError: it cannot be listened there.
    """
    if queues > 1:  # with SO_REUSEPORT the port would be shared with whoever asked for the same
        for sock in _bound(host, port, reuse_port=False):
            sock.close()
    shared = reuse_port or queues > 1
    sockets = [sock for _ in range(queues) for sock in _bound(host, port, reuse_port=shared)]
    for sock in sockets:
        sock.listen(BACKLOG)
    return sockets


def _bound(host: str, port: int, *, reuse_port: bool) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sockets.append(sock := socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
    except (OSError, UnicodeError) as error:
        for sock in sockets:
            sock.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot listen on {host}:{port}: {reason}") from error
    return sockets


def listen_beside_fellows(host: str, port: int, *, data_dir: Path) -> list[socket.socket]:
    """As ``listen``, also where another edge of this data folder listens: a new one may start before the old one ends.

    To anybody else the port is in use. Connections are spread over both; what still waits for the old one when it
    closes is accepted and answered by it.

    Raises:
        ConfigurationError: it cannot be listened there.
    """
    try:
        lock = os.open(data_dir / f"listening-{port}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"data folder {data_dir}: {error.strerror}") from error
    if try_lock(lock):
        # A stranger of this user could be there.
        for sock in _bound(host, port, reuse_port=False):
            sock.close()
    fcntl.flock(lock, fcntl.LOCK_SH)  # until the process ends, however it does
    return listen(host, port, reuse_port=True)
