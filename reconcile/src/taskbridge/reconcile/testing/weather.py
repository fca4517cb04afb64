"""What goes wrong at the fake DingTalk, and between it and who asks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass
class Weather:
    """What goes wrong. May be changed at any time."""

    calls_per_second: int = 20
    """Of one app to one API."""
    calls_per_month: int = 5000
    is_down: bool = False
    """Everything is answered 503."""
    punishes: bool = False
    """The address is answered with a page."""
    lag_ms: int = 0
    """How much later than it happened a query by time shows something; asked by id, it shows at once."""
    skew_ms: int = 0
    """How far DingTalk's clock is ahead of that of the callbacks."""
    repeats: bool = False
    """The last row of each page comes again as the first of the next."""
    short_pages: bool = False
    """Pages lack their last row, though it is counted."""
    exact_times: bool = False
    """Times have milliseconds, not minutes."""
    answers_next: deque[tuple[int, str]] = field(default_factory=deque[tuple[int, str]])
    """Status and code with which the next calls are refused, one after the other."""
