"""The counts of a rebuild."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """By name, as the command prints them."""

    events: int = 0
    rejected: int = 0
    """Records on the events topic that cannot be folded; they are dead letters already."""
    instances: int = 0
    carried_over: int = 0
    """Instances without events on the topic, copied from the live version unchanged."""
    built_upon: int = 0
    """Instances whose first events are deleted: the rest were folded onto the live version's state."""
    from_stores: int = 0
    """Of the two above: read from a local store, because the live version's changelog lacks them."""
    from_published: int = 0
    """Of the two above: read from the published state, because no store has them either."""
    let_go: int = 0
    """Instances that still have events, but whose retention is over."""
    lost: int = 0
    """Instances without events and without a readable state."""
    states: int = 0
    """States that changed, and are published."""
    notifications: int = 0
