"""What other spool files hold, seen without owning them or writing a byte."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taskbridge.edge.spool.connections import read_only

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LOOK_AHEAD = 2000


@dataclass(slots=True)
class Ahead:
    """What waits in other files, as far as one has looked."""

    oldest: dict[bytes, int] = field(default_factory=dict[bytes, int])
    """Key → when its oldest record came."""
    horizon: float = math.inf
    """About records that came later than this, nothing is known."""


def keys_ahead(files: Mapping[Path, int], *, before: int) -> Ahead:
    """The keys of records in other processes' files that came before a time. Looks at a bounded number of records.

    ``files`` says when the oldest record of each came that is not delivered. A full disk keeps rows that are: whoever
    waited for those, in two files for each other, would wait for good.
    """
    ahead = Ahead()
    query = f"SELECT key, created_at FROM records WHERE created_at >= ? ORDER BY position LIMIT {_LOOK_AHEAD}"  # noqa: S608 - constants
    for path, oldest in files.items():
        if not path.exists():
            continue
        try:
            with contextlib.closing(read_only(path)) as reading:
                rows = reading.execute(query, (oldest,)).fetchall()
        except sqlite3.Error:
            ahead.horizon = 0
            return ahead
        for key, created_at in rows:
            if isinstance(created_at, int) and created_at < before:
                ahead.oldest[key] = min(created_at, ahead.oldest.get(key, created_at))
        if len(rows) == _LOOK_AHEAD:
            ahead.horizon = min(ahead.horizon, max((each for _, each in rows if isinstance(each, int)), default=0))
    return ahead
