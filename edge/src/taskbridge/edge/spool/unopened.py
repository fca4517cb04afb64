"""Spool files that broke or could not be opened: each is tried again, less and less often, and told of meanwhile."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

    from taskbridge.edge.spool.files import SpoolFolder

_FIRST_PAUSE_S = 1.0
_LAST_PAUSE_S = 10.0


@dataclass(frozen=True, slots=True)
class _Trouble:
    problem: str
    pause_s: float
    until: float


class Unopened:
    """Those of one process; another may have opened them since."""

    def __init__(self, folder: SpoolFolder) -> None:
        self._folder = folder
        self._found: dict[int, _Trouble] = {}

    def add(self, number: int, problem: str) -> None:
        """Leave the file alone for a while, longer each time. One that is not even there is no trouble."""
        if self._folder.file(number).exists():
            before = self._found.get(number)
            pause_s = _FIRST_PAUSE_S if before is None else min(2 * before.pause_s, _LAST_PAUSE_S)
            self._found[number] = _Trouble(problem, pause_s, time.monotonic() + pause_s)

    def paused(self) -> set[int]:
        """Those that are not to be tried yet."""
        now = time.monotonic()
        return {number for number, each in self._found.items() if now < each.until}

    def there(self) -> set[int]:
        """Those that exist, whoever has opened them since: no place for new records."""
        return {number for number in self._found if self._folder.file(number).exists()}

    def problems(self, *, opened: Container[int]) -> dict[int, str]:
        """Of those that nobody has open, this process knowing what it has: what they hold is not known."""
        owners = {number: self._folder.owner(number) for number in self.there() if number not in opened}
        return {number: self._found[number].problem for number, owner in owners.items() if owner in (None, os.getpid())}
