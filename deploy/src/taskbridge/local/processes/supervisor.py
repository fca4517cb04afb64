"""Supervise long-running programs: start in order, restart with back-off, stop in reverse order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.local.processes.services import Backoff
from taskbridge.local.processes.supervised import Supervised

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from taskbridge.local.processes.services import ServiceEvent, ServiceSpec


class Supervisor:
    """Runs services until ``stop``; on Linux none of them outlives it, even when it is killed.

    ``on_event`` is called from the services' threads and must not block.
    """

    def __init__(self, *, on_event: Callable[[ServiceEvent], None], backoff: Backoff | None = None) -> None:
        self._on_event = on_event
        self._backoff = backoff or Backoff()
        self._services: dict[str, Supervised] = {}

    def start(self, *specs: ServiceSpec) -> None:
        """Start all in parallel and return when they are ready. From then on each is restarted when it dies or ails.

        Raises:
            StackError: one died or timed out before it was ready; all of these are stopped.
        """
        for spec in specs:
            if spec.name in self._services:
                raise ValueError(f"{spec.name} is started already")
            service = self._services[spec.name] = Supervised(spec, self._backoff, self._on_event)
            service.begin()
        failures = [self._services[spec.name].wait_until_settled() for spec in specs]
        for failure in filter(None, failures):
            self.stop(*(spec.name for spec in specs))
            raise failure

    def replace(self, spec: ServiceSpec) -> None:
        """Start it while the one of this name runs, which is stopped once the new one is ready; returns at once.

        ``spec.ready`` must be false for an answer of the old one. If the new one dies or is not ready in time
        the old one stays. While the service is down there is nothing to replace: the next start is of this ``spec``.

        Raises:
            KeyError: no such service was started.
        """
        self._services[spec.name].replace(spec)

    def stop(self, *names: str) -> None:
        """Stop these services, or all, in the reverse order of their start; a second call does nothing."""
        for name in reversed(list(self._services)):
            if not names or name in names:
                self._services[name].stop()
                del self._services[name]

    def pid(self, name: str) -> int | None:
        """Return the process id of a service, None while it is down.

        Raises:
            KeyError: no such service was started.
        """
        return self._services[name].pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
