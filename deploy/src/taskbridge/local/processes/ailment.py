"""Notices a problem of a running service that only a restart mends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY_S = 1.0
_FORGOTTEN_S = 10.0
"""Without being seen. One of several workers may have the problem, and each time another one answers."""


class Ailment:
    """Tells of a problem once it has lasted. It may be looked at often, and asks the service once a second."""

    def __init__(
        self, ask: Callable[[], str | None], *, lasts_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``ask`` gives the problem that the service has now, or None."""
        self._ask = ask
        self._lasts_s = lasts_s
        self._clock = clock
        self._asked_at = self._seen_at = float("-inf")
        self._since = 0.0

    def lasting(self) -> str | None:
        now = self._clock()
        if now - self._asked_at < _EVERY_S:
            return None
        self._asked_at = now
        problem = self._ask()
        if problem is None:
            return None
        if now - self._seen_at > _FORGOTTEN_S:
            self._since = now
        self._seen_at = now
        return problem if now - self._since >= self._lasts_s else None
