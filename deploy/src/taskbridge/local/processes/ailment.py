"""Detect a lasting problem of a running service that only a restart fixes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY_S = 1.0
_FORGOTTEN_S = 10.0
"""A problem not seen for so long is over. With several workers, each probe may reach another one."""


class Ailment:
    """Reports a problem once it has lasted; probes the service at most once a second."""

    def __init__(
        self, probe: Callable[[], str | None], *, lasts_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``probe`` returns the present problem of the service, or None."""
        self._probe = probe
        self._lasts_s = lasts_s
        self._clock = clock
        self._probed_at = self._seen_at = float("-inf")
        self._since = 0.0

    def lasting(self) -> str | None:
        now = self._clock()
        if now - self._probed_at < _EVERY_S:
            return None
        self._probed_at = now
        problem = self._probe()
        if problem is None:
            return None
        if now - self._seen_at > _FORGOTTEN_S:
            self._since = now
        self._seen_at = now
        return problem if now - self._since >= self._lasts_s else None
