"""What wants to know what becomes of spooled records."""

from __future__ import annotations

from typing import Protocol


class DrainObserver(Protocol):
    def drained(self, count: int) -> None: ...

    def row_damaged(self) -> None: ...

    def row_refused(self) -> None: ...
