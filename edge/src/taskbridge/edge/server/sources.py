"""Where a request comes from: the address that no sender can forge, and whether callbacks may come from there."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from taskbridge.edge.errors import Unverified

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Scope

    from taskbridge.edge.settings import Networks

Address = IPv4Address | IPv6Address

UNKNOWN = ""
"""The address of a sender that a trusted proxy did not name."""

_SITE_BITS = 64


def parse_address(text: str) -> Address | None:
    """The address, an IPv4-mapped one as IPv4, or None. A port is left out: some proxies write one."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def site_of(address: str) -> str:
    """What counts as one sender: an IPv4 address, or an IPv6 network of 64 bits, which is what one customer gets."""
    parsed = parse_address(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed), _SITE_BITS), strict=False))
    return address if parsed is None else str(parsed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Which senders may report, and which proxies are believed about them."""

    networks: Networks = ()
    trusted_proxies: Networks = ()

    def trusts(self, peer: str) -> bool:
        """Whether the peer of a connection is one of our proxies."""
        return _within(parse_address(peer), self.trusted_proxies)

    def address(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """The sender's address: the peer's, or, when that is a trusted proxy, what the outermost of ours saw.

        ``forwarded_for`` are the X-Forwarded-For headers in their order. Every proxy appends whom it was called by, so
        from the right each entry was written by a proxy of ours until one is no proxy of ours: that is the sender, and
        whatever stands left of it the sender may have made up.
        """
        sender = parse_address(peer)
        if sender is None:
            return peer
        hops = [hop for header in forwarded_for for hop in header.split(",")] if self.trusted_proxies else []
        for hop in reversed(hops):
            if not _within(sender, self.trusted_proxies):
                break
            sender = parse_address(hop)
            if sender is None:
                return UNKNOWN
        return str(sender)

    def sender(self, peer: str, forwarded_for: str | None) -> str:
        """As ``name_sender`` finds it, of a request with at most one such header."""
        if not self.trusted_proxies and ":" not in peer:
            return peer
        return self.address(peer, () if forwarded_for is None else (forwarded_for,))

    def check(self, address: str) -> None:
        """Prove that callbacks are taken from there; from everywhere when no networks are given.

        Raises:
            Unverified: they are not.
        """
        if self.networks and not _within(parse_address(address), self.networks):
            raise Unverified("source-network")

    def name_sender(self, scope: Scope) -> None:
        """From here on ``scope["client"]`` is the sender, and not the proxy in front of the edge."""
        peer, port = scope.get("client") or ("", 0)
        if not peer or (not self.trusted_proxies and ":" not in peer):
            return
        forwarded_for = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        address = self.address(peer, forwarded_for)
        scope["client"] = (address, port if address == peer else 0)


def _within(address: Address | None, networks: Networks) -> bool:
    return address is not None and any(address in network for network in networks)
