"""Moments: which of those that a sender states is believed, and which have a text. Pure."""

from __future__ import annotations

FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999: what CloudEvents' ``time`` and ISO 8601 can say."""

AHEAD_MS = 5 * 60 * 1000
"""How far a sender's clock may be ahead of ours."""


def believed(at: int, *, received_at: int) -> int:
    """The moment that counts, in the edge and in the fold: the time of receipt for what is five minutes past that.

    Of facts and decisions the latest holds, so a date in the far future would win against every true one for ever. The
    time of receipt is in the event too: whatever the order of events, each of them counts as of the same moment.
    """
    return received_at if at > received_at + AHEAD_MS else at
