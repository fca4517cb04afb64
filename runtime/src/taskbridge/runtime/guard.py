"""Which addresses may be called: an address that somebody else chose must not lead into this network.

The address of each connection is checked when its socket is made: a host can be written in many ways that become an
address later.
https://owasp.org/www-community/attacks/Server_Side_Request_Forgery
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Of our own: ``is_global`` changes with the release of Python. From the registries of special-purpose addresses,
# https://www.iana.org/assignments/iana-ipv4-special-registry and …-ipv6-special-registry.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by carriers, and metadata of Alibaba Cloud
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's own, in each of its networks
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",  # metadata of Oracle Cloud
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "2001::/23",  # Teredo, benchmarks and other assignments of the IETF
            "2001:db8::/32",
            "2002::/16",  # 6to4: IPv4 addresses
            "3fff::/20",
        ),
    )
)
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All other addresses of IPv6 are local, multicast, reserved, or IPv4 addresses in other clothes."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(OSError):
    """The address is not on the internet, and no setting allows it: no connection is made to it.

    As an OSError it is one of the failures of a host with several addresses, of which others may be called.
    """


def _real(address: Address) -> Address:
    """The IPv4 address that the system or its network calls in place of this one, if it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address
    return address


class Guard:
    def __init__(self, allowed: Sequence[Network] = (), *, setting: str = "WEBHOOKS_ALLOWED_NETWORKS") -> None:
        """``setting`` is the name of the one that allows networks, for people."""
        self._allowed, self._setting = allowed, setting

    def check(self, address: str) -> None:
        """Raises AddressRefused."""
        found = _real(ipaddress.ip_address(address.partition("%")[0]))
        if any(found in each for each in self._allowed):
            return
        is_public = found.version == 4 or found in _GLOBAL_UNICAST  # noqa: PLR2004 - the version of IP
        if not is_public or any(found in each for each in _NOT_PUBLIC):
            raise AddressRefused(f"{address} is not a public address; {self._setting} can allow it")

    def socket_to(self, address: tuple[Any, ...]) -> socket.socket:
        """For an entry of ``getaddrinfo``, a socket that may connect to it. Raises AddressRefused."""
        family, kind, protocol, _, (host, *_) = address
        self.check(host)
        return socket.socket(family, kind, protocol)
