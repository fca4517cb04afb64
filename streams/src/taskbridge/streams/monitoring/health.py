"""What readiness is told of: the steps of a worker's start, then the worker itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import faust

    from taskbridge.runtime.reloaded_file import ReloadedFile
    from taskbridge.streams.monitoring.progress import Progress


class Health:
    """Told of each step by whoever takes it."""

    def __init__(self, tokens: ReloadedFile[Any] | None = None) -> None:
        self._tokens = tokens
        self._is_connected = False
        self._app: faust.App | None = None
        self._progress: Progress | None = None
        self._core: str | None = None
        self._problems: list[str] = []
        self._drift: Sequence[str] = ()

    def waits(self, problem: str) -> None:
        """The start waits for Kafka or the registry, for this reason."""
        self._problems = [problem]

    def connected(self, drift: Sequence[str]) -> None:
        """Both are there. ``drift``: how topics differ from the contract, as of now: it holds nothing up."""
        self._is_connected, self._problems, self._drift = True, [], drift

    def follow(self, app: faust.App, progress: Progress, *, core: str) -> None:
        """The worker is put together, and starts. ``core``: what folds its events."""
        self._app, self._progress, self._core = app, progress, core

    @property
    def is_ready(self) -> bool:
        return self._is_connected and self._tables_ready

    def readiness(self) -> dict[str, Any]:
        """As ``/readyz`` tells it."""
        tokens = self._tokens and self._tokens.problem
        return {
            "ready": self.is_ready,
            "kafka_and_registry": "connected" if self._is_connected else "waiting",
            "tables": "live" if self._tables_ready else "recovering",
            "core": self._core,
            "problems": [*self._problems, *([tokens] if tokens else [])],
            "topics": list(self._drift),
            **({} if self._progress is None else self._progress.details()),
        }

    @property
    def _tables_ready(self) -> bool:
        app = self._app
        return app is not None and app.tables.actives_ready and not app.rebalancing and not app.should_stop
