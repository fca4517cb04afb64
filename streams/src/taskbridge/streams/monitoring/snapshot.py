"""One look at a worker, as a value."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Snapshot:
    """One look at the worker."""

    active: list[int] = field(default_factory=list[int])
    standby: list[int] = field(default_factory=list[int])
    lag: dict[int, int] = field(default_factory=dict[int, int])
    lag_seconds: dict[int, float] = field(default_factory=dict[int, float])
    inbox_lag: dict[int, int] = field(default_factory=dict[int, int])
    """Notifications that are not in the inboxes yet, by partition."""
    restoring: dict[int, int] = field(default_factory=dict[int, int])
    """Records that are still to be restored, by partition."""
    standby_lag: dict[int, int] = field(default_factory=dict[int, int])
    restored: int = 0
    restored_a_second: float = 0.0
    done: int = 0
    """Changes with any progress."""

    @property
    def waiting(self) -> int:
        return sum(self.lag.values()) + sum(self.inbox_lag.values()) + sum(self.restoring.values())
