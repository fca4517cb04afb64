"""Reads people's inboxes a page at a time. What a query costs depends on the page, not on what the person has.

Reads block the worker's loop, so each is bounded: a page, or a slice of a search. A search gives the loop back between
its slices, and ends after so many lines with a cursor for the rest, even if it has found nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from faust.types import TP

from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.api.refusals import NotNow
from taskbridge.streams.inbox import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.schemas.events import View
    from taskbridge.streams.engine.transport import Position
    from taskbridge.streams.tables.store import Store

LOOKED_AT_MAX = 10_000
"""Lines that one search looks at."""
_SLICE = 500
APPS_LOOKED_AT = 500
"""The newest lines of each view in which somebody's apps are looked for."""
_LATER_S = 2.0


class Page(NamedTuple):
    """A part of a view."""

    values: list[bytes]
    """Of each line, as it is stored."""
    next_place: bytes | None
    """Behind which the next page begins; None at the end."""


class App(NamedTuple):
    """What somebody's lines belong to."""

    app_type: str
    process_name: str | None
    source: str


class Wholeness:
    """Inboxes that are being rebuilt are not used for answers until they hold all republished notifications."""

    def __init__(self, positions: Callable[[], Mapping[TP, Position]], told: Mapping[int, int]) -> None:
        """``positions``: how far each partition is applied. ``told``: how far it must be; others are complete."""
        self._positions = positions
        self._missing = {partition: end for partition, end in told.items() if end > 0}

    def check(self, partition: int) -> None:
        """Return if the partition's inboxes are whole. Once they are, they stay so.

        Raises:
            NotNow: they are not yet.
        """
        if partition not in self._missing:
            return
        at = self._positions().get(TP(TASK_NOTIFICATIONS.name, partition))
        if at is None or at.offset < self._missing[partition]:
            raise NotNow("these lists are being rebuilt", retry_after_s=_LATER_S)
        del self._missing[partition]


class Inboxes:
    """The inboxes of this worker's partitions.

    Every method raises:
        PartitionNotHeld: the partition went to another worker meanwhile.
        NotNow: its inboxes are being rebuilt.
    """

    def __init__(self, store: Store, wholeness: Wholeness) -> None:
        self._store = store
        self._wholeness = wholeness

    def counts(self, partition: int, user: bytes) -> layout.ViewCounts:
        """How many lines each view has, in the order of ``VIEWS``."""
        self._wholeness.check(partition)
        return layout.read_counts(self._store.read(partition, layout.counts_key(user)))

    def page(self, partition: int, user: bytes, view: View, *, limit: int, after: bytes | None = None) -> Page:
        """The next ``limit`` lines of a view, newest first."""
        wanted = limit + 1
        if after is None:
            # Known to be all: then nothing is looked for behind the last one, where there may be much that went.
            wanted = min(wanted, self.counts(partition, user)[layout.VIEWS.index(view)])
        prefix = layout.entries_prefix(user, view)
        found = self._slice(partition, prefix, after, wanted)
        values = [value for _, value in found[:limit]]
        return Page(values, found[limit - 1][0][len(prefix) :] if len(found) > limit else None)

    async def search(
        self,
        partition: int,
        user: bytes,
        view: View,
        matches: Callable[[layout.Item], bool],
        *,
        limit: int,
        after: bytes | None = None,
    ) -> Page:
        """The next lines that match, newest first: up to ``limit`` of them, among the view's next LOOKED_AT_MAX."""
        if after is None and not self.counts(partition, user)[layout.VIEWS.index(view)]:
            return Page([], None)
        values: list[bytes] = []
        prefix, place = layout.entries_prefix(user, view), after
        for _ in range(LOOKED_AT_MAX // _SLICE):
            found = self._slice(partition, prefix, place, _SLICE)
            for at, (key, value) in enumerate(found, 1):
                if matches(layout.read_item(value)):
                    values.append(value)
                    if len(values) == limit:
                        is_end = at == len(found) < _SLICE
                        return Page(values, None if is_end else key[len(prefix) :])
            if len(found) < _SLICE:
                return Page(values, None)
            place = found[-1][0][len(prefix) :]
            await asyncio.sleep(0)
        return Page(values, place)

    async def apps(self, partition: int, user: bytes) -> list[App]:
        """Each app of the APPS_LOOKED_AT newest lines of every view, once for each of its processes.

        Without a process' name only where no line of the app has one.
        """
        names: dict[tuple[str, str], set[str]] = {}
        for view, count in zip(layout.VIEWS, self.counts(partition, user), strict=True):
            prefix = layout.entries_prefix(user, view)
            for _, value in self._slice(partition, prefix, None, min(count, APPS_LOOKED_AT)):
                item = layout.read_item(value)
                found = names.setdefault((item.app_type, item.source), set())
                if item.process_name is not None:
                    found.add(item.process_name)
            await asyncio.sleep(0)
        return [App(app[0], name, app[1]) for app in sorted(names) for name in sorted(names[app]) or [None]]

    def _slice(self, partition: int, prefix: bytes, after: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        """Keys, which begin with ``prefix``, and values: those behind the place ``after``."""
        if not limit:
            return []
        self._wholeness.check(partition)
        start = prefix if after is None else prefix + after + b"\x00"
        return self._store.slice(partition, start, layout.behind(prefix), limit=limit)
