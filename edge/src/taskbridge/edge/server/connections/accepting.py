"""Accepts connections: no more than there is room for, and to the last one when the listening socket ends with us.

asyncio's own server accepts all that wait, and the gate closes what does not fit: after a restart that would be senders
whose requests are there and were not read yet.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.edge.server.protocol import EdgeProtocol

_FULL_S = 0.01
_FAILED_S = 0.5

_log = structlog.stdlib.get_logger(__name__)


class AcceptingLoop(uvloop.Loop):
    """The loop that uvicorn runs on; a server on a given socket is a Listener. This one's sockets end with us."""

    sockets_outlive_us = False
    accepted_in_a_row = 64
    """Before those that are there are looked after again."""

    def __init__(self) -> None:
        super().__init__()
        self._arriving: set[asyncio.Task[None]] = set()

    async def create_server(self, protocol_factory: Any, *arguments: Any, sock: Any = None, **options: Any) -> Any:
        if sock is None:
            return await super().create_server(protocol_factory, *arguments, **options)
        listener = Listener(
            self,
            protocol_factory,
            sock,
            self._arriving,
            outlives_us=self.sockets_outlive_us,
            in_a_row=self.accepted_in_a_row,
        )
        listener.start()
        return listener


class HeldSocketsLoop(AcceptingLoop):
    """Its sockets stay open when we end: who still waits at them waits for the next process."""

    sockets_outlive_us = True


class SharingLoop(AcceptingLoop):
    """One of several workers: who connects at once is spread over all, and does not go to the first that looks."""

    accepted_in_a_row = 1


class SharingHeldSocketsLoop(HeldSocketsLoop):
    """One of several workers on such sockets."""

    accepted_in_a_row = 1


class Listener(asyncio.AbstractServer):
    """One listening socket, which other processes may listen on too."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[], EdgeProtocol],
        sock: socket.socket,
        arriving: set[asyncio.Task[None]],
        *,
        outlives_us: bool,
        in_a_row: int,
    ) -> None:
        """``arriving`` are the connections that are accepted and not admitted yet, of all the loop's listeners."""
        self._loop = loop
        self._make = make
        self._sock = sock
        self._next = make()
        """The protocol of the connection that comes next: it is there already, for it knows whether there is room."""
        self._arriving = arriving
        self._outlives_us = outlives_us
        self._in_a_row = in_a_row
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
        if not self._outlives_us:
            while self._accept_one():
                pass

    async def wait_closed(self) -> None:
        while self._arriving:
            await asyncio.wait(self._arriving)

    def _accept(self) -> None:
        for _ in range(self._in_a_row):
            if not self._next.room(len(self._arriving)):
                self._pause(_FULL_S)
                return
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """False when nobody waits, or nobody can be accepted."""
        try:
            connection, _ = self._sock.accept()
        except BlockingIOError:
            return False
        except ConnectionAbortedError:
            return True
        except OSError as error:  # no more files may be opened, say
            _log.error("accept_failed", problem=str(error))
            if not self._closed:
                self._pause(_FAILED_S)
            return False
        connection.setblocking(False)  # noqa: FBT003 - socket's own signature
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        protocol, self._next = self._next, self._make()
        task = self._loop.create_task(self._connect(connection, protocol))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)
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
