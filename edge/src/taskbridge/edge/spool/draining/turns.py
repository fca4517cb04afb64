"""Order over several spool files: a record waits while an older one of its key is in another file."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taskbridge.edge.spool.connections import read_only

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from taskbridge.edge.kafka.record import SpooledRecord
    from taskbridge.edge.spool.files import Claim, Occupancy, Slot

_STALLED_S = 30.0
_LOOK_AHEAD = 2000


class Turns:
    """Whose turn it is among the records of one file."""

    def __init__(self, claim: Claim, occupancy: Occupancy) -> None:
        self._claim = claim
        self._occupancy = occupancy
        self._seen: dict[int, tuple[int, float]] = {}
        self._ahead = _Ahead({})

    def forget(self) -> None:
        """Nobody gets on while Kafka is away, which says nothing about who is stuck."""
        self._seen.clear()

    async def among(self, pending: list[SpooledRecord]) -> list[SpooledRecord]:
        """Those without an older record of their key elsewhere; files that have not moved for long do not count."""
        last = pending[-1].created_at
        older = self._older_elsewhere(last)
        if not older:
            return pending
        ahead = self._ahead
        if ahead.files != older or ahead.looked_at < last:
            ahead = self._ahead = await asyncio.to_thread(_keys_ahead, self._claim.path.parent, older)
        found: list[SpooledRecord] = []
        held: set[bytes] = set()
        for record in pending:
            if record.created_at > ahead.horizon:
                break
            if record.key in held or ahead.oldest.get(record.key, record.created_at) < record.created_at:
                held.add(record.key)
            else:
                found.append(record)
        return found

    def _older_elsewhere(self, last: int) -> dict[int, Slot]:
        """Other files with records that came before."""
        now = time.monotonic()
        found: dict[int, Slot] = {}
        for number, slot in self._occupancy.slots().items():
            if number == self._claim.number or not slot.oldest:
                continue
            seen, since = self._seen.get(number, (0, now))
            if seen != slot.oldest:
                since = now
            self._seen[number] = (slot.oldest, since)
            if slot.oldest < last and now - since < _STALLED_S:
                found[number] = slot
        return found


@dataclass(slots=True)
class _Ahead:
    """What waits in other files, as far as one has looked."""

    files: Mapping[int, Slot]
    """As they were told of before: while they are, what came before is as it was too."""
    looked_at: int = field(default_factory=time.time_ns)
    oldest: dict[bytes, int] = field(default_factory=dict[bytes, int])
    """Key → when its oldest record came."""
    horizon: float = math.inf
    """About records that came later than this, nothing is known."""


def _keys_ahead(folder: Path, files: Mapping[int, Slot]) -> _Ahead:
    """The keys of records in other processes' files, as far as their first records tell.

    Only of those that are not delivered. A full disk keeps rows that are: whoever waited for those, in two files for
    each other, would wait for good.
    """
    ahead = _Ahead(files)
    query = f"SELECT key, created_at FROM records WHERE created_at >= ? ORDER BY position LIMIT {_LOOK_AHEAD}"  # noqa: S608 - constants
    for number, slot in files.items():
        path = folder / f"{number}.db"
        if not path.exists():
            continue
        try:
            with contextlib.closing(read_only(path)) as reading:
                rows = reading.execute(query, (slot.oldest,)).fetchall()
        except sqlite3.Error:
            ahead.horizon = 0
            return ahead
        for key, created_at in rows:
            if isinstance(created_at, int):
                ahead.oldest[key] = min(created_at, ahead.oldest.get(key, created_at))
        if len(rows) == _LOOK_AHEAD:
            ahead.horizon = min(ahead.horizon, max((each for _, each in rows if isinstance(each, int)), default=0))
    return ahead
