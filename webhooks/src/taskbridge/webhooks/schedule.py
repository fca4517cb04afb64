"""When a delivery is tried again: the schedule of Standard Webhooks."""

from __future__ import annotations

import random

_MINUTE, _HOUR = 60, 3600
DELAYS_S = (5, 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR)
"""After each failed attempt; when the last one has failed too, the delivery is given up."""
_JITTER = 0.1
_MOST_WAIT_S = 24 * _HOUR


def delay_ms(attempts: int, retry_after_s: float | None) -> int | None:
    """How long to wait after the given number of failed attempts; None if there is no further one.

    ``retry_after_s`` is what the receiver requests: it is never tried earlier, and at most a day later.
    """
    if attempts > len(DELAYS_S):
        return None
    own = DELAYS_S[attempts - 1] * (1 + _JITTER * random.random())  # noqa: S311 - spreads load
    return int(1000 * max(own, min(retry_after_s or 0, _MOST_WAIT_S)))
