"""What a rebuild came to, for people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """By name, as the command prints them."""

    events: int = 0
    rejected: int = 0
    """Records on the events topic that cannot be folded; they are on the dead-letter topic already."""
    instances: int = 0
    carried_over: int = 0
    """Instances of which no event is left on the topic, taken from the live version as they are."""
    built_upon: int = 0
    """Instances of which the first events are gone: the others were folded onto what the live version had."""
    from_stores: int = 0
    """Of the two above: those that the live version's changelog could not tell, so that a local store was asked."""
    from_published: int = 0
    """Of the two above: those that not even a store could tell, so that their published state was taken."""
    let_go: int = 0
    """Instances that the events still tell of, and whose retention is over."""
    lost: int = 0
    """Instances of which neither events nor anything that can be read is left."""
    states: int = 0
    """States that are published, because they came out another."""
    notifications: int = 0
