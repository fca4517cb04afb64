"""Which addresses may be called: a webhook must not reach what only this network can reach.

The check is made on the addresses that a name has resolved to, and these addresses are used for the connection: there
is no second resolution that could change its mind. https://owasp.org/www-community/attacks/Server_Side_Request_Forgery
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from taskbridge.runtime.settings import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(OperatorError):
    """The address is not on the internet, and no setting allows it."""


def _real(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return inner or address
    return address


class Guard:
    """Refuses addresses that are not public, unless they are in an allowed network."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = allowed

    def check(self, host: str, address: str) -> None:
        """Raises AddressRefused."""
        found = _real(ipaddress.ip_address(address.partition("%")[0]))
        if any(found in each for each in self._allowed):
            return
        if not found.is_global or found.is_multicast:
            shown = address if host == address else f"{host} is {address}, which"
            raise AddressRefused(f"{shown} is not a public address; WEBHOOKS_ALLOWED_NETWORKS can allow it")


class GuardedResolver(AbstractResolver):
    """Resolves names for connections; one refused address refuses the name."""

    def __init__(self, guard: Guard, resolver: AbstractResolver | None = None) -> None:
        self._guard = guard
        self._resolver = resolver or ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily | int = 0) -> list[ResolveResult]:  # type: ignore[override]
        """Raises AddressRefused, or OSError if the name is unknown."""
        found = await self._resolver.resolve(host, port, family)  # pyright: ignore[reportArgumentType]
        for each in found:
            self._guard.check(host, each["host"])
        return found

    async def close(self) -> None:
        await self._resolver.close()
