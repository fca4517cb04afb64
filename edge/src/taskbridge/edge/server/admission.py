"""Admits senders: by address, by the number of connections, and to the log by the number of lines.

No sender can forge its address. Where there is no room for a new connection, the one that has been idle longest is
closed. Log lines about refusals are limited per minute, so that a flood does not fill the disk.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import structlog

from taskbridge.edge.errors import Unverified
from taskbridge.runtime.process import allow_open_files
from taskbridge.runtime.rates import Bucket, PerSource, consume_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskbridge.edge.settings import EdgeSettings, Networks

GATE = "gate"
"""Key of the lifespan state under which the protocol finds the gate."""

FULL = "too-many-connections"
GAVE_WAY = "gave-way"

OWN_FILES = 128
"""Files and sockets that a process needs in addition to its connections."""

LINES_PER_MINUTE = 30
"""Of one reason from one sender."""
ALL_LINES_PER_MINUTE = 600

UNKNOWN = ""
"""The address of a sender that a trusted proxy did not name."""

_FRESH_S = 0.25
"""A connection that has been idle no longer than this may hold a request that is not read yet: it is not closed."""
_EXAMINED = 64
"""Connections per search for one to close."""
_SITE_BITS = 64
_MINUTE_S = 60

_log = structlog.stdlib.get_logger(__name__)

Address = IPv4Address | IPv6Address


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
class Senders:
    """The networks that may send callbacks, and the proxies that are trusted to name a sender."""

    networks: Networks = ()
    trusted_proxies: Networks = ()

    def address(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """The sender's address: the peer's, or, if that is a trusted proxy, what the outermost of ours saw.

        ``forwarded_for`` are the X-Forwarded-For headers in their order. Each proxy appends the address that called it.
        So, from the right, each entry was written by a proxy of ours until one names no proxy of ours: that is the
        sender. The sender may have made up all entries to the left of it.
        """
        if not self.trusted_proxies and ":" not in peer:
            return peer
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

    def check(self, address: str) -> None:
        """Check that callbacks are accepted from this address; from any address if no networks are given.

        Raises Unverified if they are not.
        """
        if self.networks and not _within(parse_address(address), self.networks):
            raise Unverified("source-network")


def _within(address: Address | None, networks: Networks) -> bool:
    return address is not None and any(address in network for network in networks)


class RejectionLog:
    """Admits a limited number of log lines per minute, and counts what it leaves out. The metrics count everything."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = self._bucket(ALL_LINES_PER_MINUTE)
        self._lines = PerSource(lambda: self._bucket(LINES_PER_MINUTE))
        self._left_out = 0

    def admit(self, reason: str, remote_address: str) -> int | None:
        """Return how many lines of any kind were left out before this one, or None to leave this one out."""
        lines = self._lines.of((reason, site_of(remote_address)))
        if not consume_all([(lines, 1), (self._all, 1)], now=self._clock()):
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        return left_out

    def _bucket(self, lines: int) -> Bucket:
        return Bucket(lines, full_after_s=_MINUTE_S, now=self._clock())


class Connection(Protocol):
    """What the gate needs of a connection."""

    def give_way(self) -> None:
        """Close at once."""
        ...

    def has_unread(self) -> bool:
        """Whether input arrived that was not read yet."""
        ...


def with_open_files(settings: EdgeSettings) -> EdgeSettings:
    """The settings with no more connections than this process may open, once it may open as many as it can.

    Without free descriptors no connection is accepted, and the spool cannot open its files either.
    """
    needed = settings.max_connections + OWN_FILES
    allowed = allow_open_files(needed)
    if allowed == needed:
        return settings
    fewer = max(1, allowed - OWN_FILES)
    _log.warning("connection_limit_lowered", open_files_allowed=allowed, connections=fewer)
    return settings.model_copy(update={"max_connections": fewer})


class Gate:
    """The connections of one process."""

    def __init__(
        self,
        settings: EdgeSettings,
        *,
        count: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``count`` is called with the reason of each refusal."""
        self.settings = settings
        self._count = count
        self._clock = clock
        self._lines = RejectionLog()
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, float] = {}
        """Idle connections and since when, the longest first."""

    @property
    def open(self) -> int:
        return len(self._open)

    def room(self, arriving: int) -> bool:
        """Whether one connection more than the ``arriving`` can stay; if not, leave it in the kernel's queue."""
        if self.open + arriving < self.settings.max_connections:
            return True
        return not arriving and self._idle() is not None

    def admit(self, connection: Connection, peer: str) -> str | None:
        """Return None if the connection may stay, else the reason.

        Without room, the connection that has been idle longest is closed: connections that are opened and left idle
        keep nobody out.
        """
        if self.open >= self.settings.max_connections:
            longest = self._idle()
            if longest is None:
                return self.refuse(FULL, peer)
            self.refuse(GAVE_WAY, peer)
            self.leave(longest)
            longest.give_way()
        self._open.add(connection)
        self._waiting[connection] = self._clock()
        return None

    def waits(self, connection: Connection) -> None:
        """The connection is idle: its sender acts next."""
        if connection in self._open:
            self._waiting.setdefault(connection, self._clock())

    def works(self, connection: Connection) -> None:
        """The edge acts next: the connection is not closed for another one."""
        self._waiting.pop(connection, None)

    def leave(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)
        self._open.discard(connection)

    def refuse(self, reason: str, peer: str) -> str:
        """Count a refusal, and log it within the limit of lines."""
        self._count(reason)
        if (left_out := self._lines.admit(reason, peer)) is not None:
            _log.warning("connection_refused", reason=reason, peer=peer, left_out=left_out)
        return reason

    def _idle(self) -> Connection | None:
        """The connection that has been idle longest, and long enough. A busy edge may have left its input unread."""
        for longest, since in list(islice(self._waiting.items(), _EXAMINED)):
            if self._clock() - since <= _FRESH_S:
                return None
            if not longest.has_unread():
                return longest
            del self._waiting[longest]
            self._waiting[longest] = self._clock()
        return None
