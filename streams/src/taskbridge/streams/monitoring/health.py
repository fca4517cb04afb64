"""What readiness is told of: the steps of a worker's start, then the worker itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import faust

    from taskbridge.streams.monitoring.progress import Progress


@dataclass(slots=True)
class Health:
    """Filled in step by step, by whoever takes the step."""

    connected: bool = False
    faust_app: faust.App | None = None
    progress: Progress | None = None
    core: str | None = None
    problems: list[str] = field(default_factory=list[str])
    drift: Sequence[str] = ()
    """How topics differ from the contract, as of the start: it holds nothing up."""

    @property
    def is_ready(self) -> bool:
        return self.connected and self._tables_ready

    def readiness(self) -> dict[str, Any]:
        """As ``/readyz`` tells it."""
        return {
            "ready": self.is_ready,
            "kafka_and_registry": "connected" if self.connected else "waiting",
            "tables": "live" if self._tables_ready else "recovering",
            "core": self.core,
            "problems": self.problems,
            "topics": list(self.drift),
            **({} if self.progress is None else self.progress.details()),
        }

    @property
    def _tables_ready(self) -> bool:
        app = self.faust_app
        return app is not None and app.tables.actives_ready and not app.rebalancing and not app.should_stop
