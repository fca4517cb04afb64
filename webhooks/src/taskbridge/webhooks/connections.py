"""Connections by which a bad receiver delays itself alone."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    import ssl

    from taskbridge.runtime.guard import Guard

MOST_INFORMATIONAL = 16
"""Answers of status 1xx before the answer to a request."""
_PART_BYTES = 4096
"""Parsed at once: a connection that is closed for its answers has cost no more than it."""

_Addresses = list[tuple[Any, ...]]


class Connector(aiohttp.TCPConnector):
    """The connections to one host."""

    def __init__(self, guard: Guard, *, tls: ssl.SSLContext, most: int) -> None:
        super().__init__(
            limit=most,
            resolver=_Resolver(),
            socket_factory=guard.socket_to,
            ssl=tls,
            # Each new connection resolves the name again.
            use_dns_cache=False,
            keepalive_timeout=30,
        )
        self._factory = partial(_Protocol, loop=self._loop)


class _Resolver(AbstractResolver):
    """Resolves the name in a thread of its own, once for all that wait: a name that hangs delays itself alone.

    Not in threads of a pool, which other names would wait for, and a process at its end.
    """

    def __init__(self) -> None:
        self._found: Future[_Addresses] | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError if the name is unknown."""
        if self._found is None or self._found.done():
            found = Future[_Addresses]()
            # Running: one attempt that is cancelled does not end it for the others.
            found.set_running_or_notify_cancel()
            arguments = found, host, port, family
            threading.Thread(target=_resolve, args=arguments, name=f"resolve {host}", daemon=True).start()
            # Not before the thread runs: if the system has none left, the next attempt would wait for ever.
            self._found = found
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=its_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for its_family, _, protocol, _, address in await asyncio.wrap_future(self._found)
        ]

    async def close(self) -> None:
        """A thread that still waits is left to its end."""


def _resolve(found: Future[_Addresses], host: str, port: int, family: int) -> None:
    try:
        found.set_result(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG))
    except Exception as error:  # noqa: BLE001 - also UnicodeError: those who wait get it
        found.set_exception(error)


class _Protocol(ResponseHandler):
    """Closes a connection that sends informational answers without end: reading them would starve other endpoints."""

    _informational = 0

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data) or 1, _PART_BYTES):
            super().data_received(data[at : at + _PART_BYTES])
            if self._informational > MOST_INFORMATIONAL:
                if self.transport is not None:
                    self.transport.abort()
                self._buffer.clear()
                problem = f"it sent more than {MOST_INFORMATIONAL} informational answers (1xx)"
                self.set_exception(aiohttp.ClientConnectionError(problem))
                return

    def feed_data(self, data: Any, size: int = 0) -> None:
        is_informational = 100 <= data[0].code < 200  # noqa: PLR2004 - the class of the status
        self._informational = self._informational + 1 if is_informational else 0
        super().feed_data(data, size)
