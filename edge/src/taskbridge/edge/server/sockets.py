"""The sockets that the edge listens on, and the event loops that accept from them.

A socket that outlives the process keeps connections in the kernel's queue while the process restarts:
see docs/adr/0037-the-listening-socket-outlives-the-process.md.

asyncio's own server accepts every connection, and the gate would close those without room. After a restart these would
be senders whose requests have arrived and were not read. So no more connections are accepted than there is room for.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from taskbridge.runtime.process import try_lock
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from pathlib import Path

    from taskbridge.edge.server.protocol import EdgeProtocol

BACKLOG = 65_535
"""How many connections may wait; the kernel limits it to net.core.somaxconn."""
OPERATOR = "operator"
"""Name of a passed socket (LISTEN_FDNAMES) that is for operators; any other is for callbacks."""

_FIRST_PASSED = 3
_IN_A_ROW = 64
"""So many connections are accepted before the loop turns to those that are open."""
_FULL_S = 0.01
_FAILED_S = 0.5

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sockets:
    callbacks: list[socket.socket] = field(default_factory=list[socket.socket])
    operator: list[socket.socket] = field(default_factory=list[socket.socket])


def passed_sockets(environment: MutableMapping[str, str]) -> Sockets:
    """The listening sockets that systemd, or a supervisor like it, passed to this process; removes ``LISTEN_*``.

    Raises ConfigurationError if a passed descriptor is no listening TCP socket.
    """
    process = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    found = Sockets()
    if process != str(os.getpid()):  # they were meant for a parent of ours
        return found
    for number in range(int(count) if count.isdecimal() else 0):
        sock = _passed(_FIRST_PASSED + number)
        is_operators = number < len(names) and names[number] == OPERATOR
        (found.operator if is_operators else found.callbacks).append(sock)
    return found


def _passed(descriptor: int) -> socket.socket:
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
    """Sockets that listen on every address of ``host``; an empty host is every address of the machine.

    With several ``queues``, that many per address: the kernel spreads connections over them, and together they hold as
    many times more. No other process listens there when this returns.

    Raises ConfigurationError if the address cannot be used.
    """
    if queues > 1:  # with SO_REUSEPORT the port would be shared with any process that requests the same
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


def listen_with_peers(host: str, port: int, *, data_dir: Path) -> list[socket.socket]:
    """As ``listen``, also where another edge of this data folder listens: a new one may start before the old one ends.

    For any other process the port is in use. Connections are spread over both edges; the old one accepts and answers
    what still waits for it when it closes.

    Raises ConfigurationError if the address cannot be used.
    """
    try:
        lock = os.open(data_dir / f"listening-{port}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"data folder {data_dir}: {error.strerror}") from error
    if try_lock(lock):
        # Another program of this user could listen there.
        for sock in _bound(host, port, reuse_port=False):
            sock.close()
    fcntl.flock(lock, fcntl.LOCK_SH)  # until the process ends, however it does
    return listen(host, port, reuse_port=True)


class AcceptingLoop(uvloop.Loop):
    """The loop that uvicorn runs on. Each server on a given socket is a Listener."""

    def __init__(self, *, are_held: bool = False) -> None:
        """``are_held``: the sockets outlive us, and connections that still wait there wait for the next process."""
        super().__init__()
        self.are_held = are_held
        self.arriving: set[asyncio.Task[None]] = set()
        """The accepted connections that are not admitted yet."""

    async def create_server(self, protocol_factory: Any, *arguments: Any, sock: Any = None, **options: Any) -> Any:
        if sock is None:
            return await super().create_server(protocol_factory, *arguments, **options)
        listener = Listener(self, protocol_factory, sock)
        listener.start()
        return listener


class Listener(asyncio.AbstractServer):
    """One listening socket, which other processes may listen on too."""

    def __init__(self, loop: AcceptingLoop, make: Callable[[], EdgeProtocol], sock: socket.socket) -> None:
        self._loop = loop
        self._make = make
        self._sock = sock
        self._next = make()
        """The protocol of the next connection: it exists already, because it knows whether there is room."""
        self._resume: asyncio.TimerHandle | None = None
        self._closed = False

    def start(self) -> None:
        self._sock.setblocking(False)  # noqa: FBT003 - socket's own signature
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def is_serving(self) -> bool:
        return not self._closed

    def close(self) -> None:
        """Accept no more, except what waits at a socket that ends with this process: it would be reset."""
        if self._closed:
            return
        self._closed = True
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._sock.fileno())
        if not self._loop.are_held:
            while self._accept_one():
                pass

    async def wait_closed(self) -> None:
        while self._loop.arriving:
            await asyncio.wait(self._loop.arriving)

    def _accept(self) -> None:
        for _ in range(_IN_A_ROW):
            if not self._next.room(len(self._loop.arriving)):
                self._pause(_FULL_S)
                return
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """False if no connection waits, or none can be accepted."""
        try:
            connection, _ = self._sock.accept()
        except BlockingIOError:
            return False
        except ConnectionAbortedError:
            return True
        except OSError as error:  # for example, no more files may be opened
            _log.error("accept_failed", problem=str(error))
            if not self._closed:
                self._pause(_FAILED_S)
            return False
        connection.setblocking(False)  # noqa: FBT003 - socket's own signature
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        protocol, self._next = self._next, self._make()
        task = self._loop.create_task(self._connect(connection, protocol))
        self._loop.arriving.add(task)
        task.add_done_callback(self._loop.arriving.discard)
        return True

    async def _connect(self, connection: socket.socket, protocol: EdgeProtocol) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError:  # its sender is gone
            connection.close()
            return
        if self._closed:
            protocol.shutdown()

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._resume = self._loop.call_later(seconds, self.start)
