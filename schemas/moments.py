"""Which of the moments that a sender states is believed. Pure; the edge and the fold apply the same rule."""

from __future__ import annotations

AHEAD_MS = 5 * 60 * 1000
"""How far a sender's clock may be ahead of ours."""


def believed(at: int, *, received_at: int) -> int:
    """The moment that counts: what is more than five minutes past its receipt is taken for the time of receipt.

    Of facts and decisions the latest holds, so a date in the far future would win against every true one for ever. The
    time of receipt is in the event too: whatever the order of events, each of them counts as of the same moment.
    """
    return received_at if at > received_at + AHEAD_MS else at
