"""Order over several spool files: a record waits while an older one of its key is in another file."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from taskbridge.edge.spool.elsewhere import keys_ahead

if TYPE_CHECKING:
    from taskbridge.edge.kafka.record import SpooledRecord
    from taskbridge.edge.spool.files import Claim, Occupancy

_STALLED_S = 30.0


class Turns:
    """Whose turn it is among the records of one file."""

    def __init__(self, claim: Claim, occupancy: Occupancy) -> None:
        self._claim = claim
        self._occupancy = occupancy
        self._seen: dict[int, tuple[int, float]] = {}

    def forget(self) -> None:
        """Nobody gets on while Kafka is away, which says nothing about who is stuck."""
        self._seen.clear()

    async def among(self, pending: list[SpooledRecord]) -> list[SpooledRecord]:
        """Those without an older record of their key elsewhere; files that have not moved for long do not count."""
        older = self._older_elsewhere(pending[-1].created_at)
        if not older:
            return pending
        folder, last = self._claim.path.parent, pending[-1].created_at
        ahead = await asyncio.to_thread(
            keys_ahead, {folder / f"{number}.db": oldest for number, oldest in older.items()}, before=last
        )
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

    def _older_elsewhere(self, last: int) -> dict[int, int]:
        """Files with records that came before, and when the oldest of each did."""
        now = time.monotonic()
        found: dict[int, int] = {}
        for number, oldest in self._occupancy.oldest_elsewhere(self._claim.number).items():
            seen, since = self._seen.get(number, (0, now))
            if seen != oldest:
                since = now
            self._seen[number] = (oldest, since)
            if oldest < last and now - since < _STALLED_S:
                found[number] = oldest
        return found
