from __future__ import annotations

import os
import random
import socket
from collections import deque
from typing import TYPE_CHECKING

from taskbridge.local.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LOOPBACK = "127.0.0.1"
_CONNECT_S = 1.0


# Below the range from which the kernel takes the near ends of outgoing connections: in it, a client that tries to reach
# a service which is just restarting can be given the very port, connect to itself, and keep the service from it.
_CANDIDATES = range(20_000, 32_000)
_HELD = 64
_held: deque[int] = deque()
"""Open sockets that reserve assigned ports until their service listens; the oldest are closed."""


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on, and that no other call returns."""
    return free_ports(1)[0]


def free_ports(count: int, *, excluding: Collection[int] = ()) -> list[int]:
    """Return ``count`` different ports of the loopback interface that nothing listens on.

    No other call in any process returns them until this process ends or has requested many more: so a service may
    listen later.
    """
    found: list[int] = []
    for port in random.sample(_CANDIDATES, len(_CANDIDATES)):
        if port not in excluding and _hold(port):
            found.append(port)
            if len(found) == count:
                return found
    raise StackError(
        f"no {count} ports between {_CANDIDATES.start} and {_CANDIDATES.stop} are free: stop a program that uses them"
    )


def is_listened_on(port: int) -> bool:
    """Whether a program accepts connections on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(_CONNECT_S)
        return probe.connect_ex((LOOPBACK, port)) == 0


def check_distinct(ports: Mapping[str, int]) -> None:
    """Make sure that no port is chosen twice; ``ports`` are by their options.

    Raises:
        StackError: two services could not both listen; or one would answer for the other.
    """
    first: dict[int, str] = {}
    for flag, port in ports.items():
        if (other := first.setdefault(port, flag)) != flag:
            raise StackError(f"{other} and {flag} are both {port}: choose different ports")


def check_free(port: int, flag: str) -> None:
    """Make sure that a service can listen on ``port`` of the loopback interface.

    Raises:
        StackError: it cannot; the message names the port and the option ``flag``.
    """
    if problem := _bind_problem(port):
        raise StackError(
            f"port {port} cannot be used ({problem}): stop the program that uses it, or choose another with {flag}"
        )


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


def _bind_problem(port: int) -> str | None:
    with socket.socket() as probe:
        # As services do, so that lingering connections of the last run do not count as "in use".
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except (OSError, OverflowError) as error:
            return getattr(error, "strerror", None) or str(error)
    return None
