"""Who may hold a connection: bounds their number, and lets idle ones give way to new ones when there is no room."""

from __future__ import annotations

import time
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import structlog

from taskbridge.edge.server.rejection_log import RejectionLog
from taskbridge.edge.server.sources import Sources, site_of
from taskbridge.runtime.process import allow_open_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.edge.settings import EdgeSettings

GATE = "gate"
"""Under this name the lifespan hands the gate to the protocol."""

FULL = "too-many-connections"
ADDRESS_FULL = "too-many-connections-of-one-address"
GAVE_WAY = "gave-way"

OWN_FILES = 128
"""Files and sockets that a process needs beside its connections."""

_FRESH_S = 0.25
"""Who has kept us waiting no longer than this may have sent a request that is not read yet, and does not give way."""
_LOOKED_AT = 64
"""Connections at a time, in search of one that gives way."""

_log = structlog.stdlib.get_logger(__name__)


class Connection(Protocol):
    """What the gate needs of a connection."""

    def give_way(self) -> None:
        """Close at once."""
        ...

    def has_unread(self) -> bool:
        """Something was received that we have not looked at yet."""
        ...


def with_open_files(settings: EdgeSettings) -> EdgeSettings:
    """The settings with no more connections than this process may open, once it may open as many as it can.

    Where they run out, nothing is accepted, and the spool cannot open its files either.
    """
    wanted = settings.max_connections + OWN_FILES
    allowed = allow_open_files(wanted)
    if allowed == wanted:
        return settings
    fewer = max(1, allowed - OWN_FILES)
    _log.warning("connection_limit_lowered", open_files_allowed=allowed, connections=fewer)
    return settings.model_copy(update={"max_connections": fewer})


class Gate:
    """The connections of one process."""

    def __init__(
        self,
        settings: EdgeSettings,
        sources: Sources,
        *,
        count: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``count`` is told the reason of each refusal."""
        self.settings = settings
        self._sources = sources
        self._count = count
        self._clock = clock
        self._lines = RejectionLog()
        self._sites: dict[Connection, str] = {}
        self._per_site: Counter[str] = Counter()
        self._waiting: dict[Connection, float] = {}
        """Since when, the longest first."""

    @property
    def open(self) -> int:
        return len(self._sites)

    def room(self, arriving: int) -> bool:
        """Whether one more than the ``arriving`` can stay; else it had better wait in the kernel's queue."""
        if self.open + arriving < self.settings.max_connections:
            return True
        return not arriving and self._idle() is not None

    def admit(self, connection: Connection, peer: str) -> str | None:
        """None when the connection may stay, else why not.

        Where there is no room, that connection gives way whose sender has kept us waiting longest: connections that
        somebody opens and leaves idle keep nobody out.
        """
        site = "" if self._sources.trusts(peer) else site_of(peer)
        bound = self.settings.max_connections_per_address
        if site and bound and self._per_site[site] >= bound:
            return self.refuse(ADDRESS_FULL, peer)
        if self.open >= self.settings.max_connections:
            longest = self._idle()
            if longest is None:
                return self.refuse(FULL, peer)
            self.refuse(GAVE_WAY, peer)
            self.leave(longest)
            longest.give_way()
        self._sites[connection] = site
        self._per_site[site] += 1
        self._waiting[connection] = self._clock()
        return None

    def waits(self, connection: Connection) -> None:
        """Its sender has to act next."""
        if connection in self._sites:
            self._waiting.setdefault(connection, self._clock())

    def works(self, connection: Connection) -> None:
        """We have to act next: it does not give way."""
        self._waiting.pop(connection, None)

    def leave(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)
        site = self._sites.pop(connection, None)
        if site is not None:
            self._per_site[site] -= 1
            if not self._per_site[site]:
                del self._per_site[site]

    def refuse(self, reason: str, peer: str) -> str:
        """Count it, and say it if not too much is being said."""
        self._count(reason)
        if (left_out := self._lines.admit(reason, peer)) is not None:
            _log.warning("connection_refused", reason=reason, peer=peer, left_out=left_out)
        return reason

    def _idle(self) -> Connection | None:
        """Who has kept us waiting longest, and long enough; when we are busy it may be us who keep them waiting."""
        for longest, since in list(islice(self._waiting.items(), _LOOKED_AT)):
            if self._clock() - since <= _FRESH_S:
                return None
            if not longest.has_unread():
                return longest
            del self._waiting[longest]
            self._waiting[longest] = self._clock()
        return None
