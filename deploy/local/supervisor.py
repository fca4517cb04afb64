"""Keeps long-running programs alive: started in order, restarted with back-off, stopped in reverse order."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploy.local.ailment import Ailment
from deploy.local.child import Child, describe_exit
from deploy.local.errors import StackError
from deploy.local.progress import Heartbeat

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_POLL_S = 0.1
_UNREADY_STOP_S = 3.0
_LIVED_S = 1.0
"""Who ends well earlier than this, and was never ready, may do so for ever."""


@dataclass(frozen=True)
class ServiceSpec:
    """One program to keep alive. ``ready`` is asked until it first says yes; it must answer within seconds."""

    name: str
    argv: Sequence[str]
    log_path: Path
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path | None = None
    ready_timeout_s: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    # Asked while it runs: a problem that only a restart mends, or None; once it has lasted, it is restarted.
    ailment: Callable[[], str | None] | None = None
    ailment_lasts_s: float = 5.0
    # What the program gets when the supervisor is killed. SIGTERM suits one that has children of its own to stop.
    orphan_signal: signal.Signals = signal.SIGKILL
    # Listening sockets that it is given at each start: who connects while it is down waits in them and is not refused.
    sockets: Sequence[socket.socket] = ()


@dataclass(frozen=True)
class Backoff:
    """Pauses before restarts: ``first_s``, doubling up to ``max_s``; ``first_s`` again after ``healthy_after_s``."""

    first_s: float = 0.5
    max_s: float = 15.0
    healthy_after_s: float = 30.0

    def delay_s(self, failures: int) -> float:
        return min(self.first_s * 2.0 ** min(failures, 32), self.max_s)


class Phase(enum.StrEnum):
    STARTING = "starting"
    WAITING = "waiting"
    READY = "ready"
    DIED = "died"
    AILED = "ailed"
    RESTARTING = "restarting"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ServiceEvent:
    """Something that happened to a service; ``str(event)`` is a line for people."""

    service: str
    phase: Phase
    detail: str
    exit_status: int | None = None  # as subprocess has it: negative for a signal

    def __str__(self) -> str:
        return f"{self.service} {self.detail}"


class Supervisor:
    """Runs services until ``stop``; on Linux none of them outlives it, even when it is killed.

    ``on_event`` is called from the services' threads and must not block.
    """

    def __init__(self, *, on_event: Callable[[ServiceEvent], None], backoff: Backoff | None = None) -> None:
        self._on_event = on_event
        self._backoff = backoff or Backoff()
        self._services: dict[str, _Service] = {}

    def start(self, spec: ServiceSpec) -> None:
        """Return when the service is ready. From then on it is restarted whenever it dies or ails.

        Raises:
            StackError: it died or timed out before it was ready; it is not restarted then.
        """
        if spec.name in self._services:
            raise ValueError(f"{spec.name} is started already")
        service = self._services[spec.name] = _Service(spec, self._backoff, self._on_event)
        service.start()
        if service.failure is not None:
            self.stop(spec.name)
            raise service.failure

    def stop(self, *names: str) -> None:
        """Stop these services, or all, in the reverse order of their start; a second call does nothing."""
        for name in reversed(list(self._services)):
            if not names or name in names:
                self._services[name].stop()
                del self._services[name]

    def pid(self, name: str) -> int | None:
        """Return the process id of a service, None while it is down.

        Raises:
            KeyError: no such service is started.
        """
        return self._services[name].pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class _Service:
    """A service and its thread, which starts, watches and stops it.

    The thread lives as long as the process: the kernel ties a child to the thread that started it.
    """

    def __init__(self, spec: ServiceSpec, backoff: Backoff, on_event: Callable[[ServiceEvent], None]) -> None:
        self.failure: StackError | None = None
        self.pid: int | None = None
        self._spec = spec
        self._backoff = backoff
        self._on_event = on_event
        self._stopping = threading.Event()
        self._settled = threading.Event()  # ready for the first time, or given up
        self._ready_at: float | None = None
        self._began_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"supervise-{spec.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._settled.wait()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._supervise()
        except Exception as error:  # noqa: BLE001  a probe with a bug must not leave start() waiting for ever
            self.failure = StackError(f"{self._spec.name} is no longer supervised: {error!r}")
            self._emit(Phase.DIED, f"is no longer supervised: {error!r}")
        finally:
            self._settled.set()

    def _supervise(self) -> None:
        failures = 0
        while True:
            death = self._live()
            if not self._settled.is_set():
                reason = "was stopped before it was ready" if death is None else death.detail
                self.failure = StackError(f"{self._spec.name} {reason}; its log: {self._spec.log_path}")
                return
            if death is None:
                self._emit(Phase.STOPPED, "stopped")
                return
            self._report(death)
            if self._ready_at is not None and time.monotonic() - self._ready_at >= self._backoff.healthy_after_s:
                failures = 0
            lived_s = time.monotonic() - self._began_at
            if death.exit_status == 0 and (self._ready_at is not None or lived_s >= _LIVED_S):
                self._emit(Phase.RESTARTING, "starts again")  # it was told to end, which is no failure
                continue
            delay_s = self._backoff.delay_s(failures)
            failures += 1
            self._emit(Phase.RESTARTING, f"starts again in {delay_s:g} s")
            self._stopping.wait(delay_s)

    def _live(self) -> ServiceEvent | None:
        """Start the process and return when it is over: why, or None when it was asked to stop."""
        if self._stopping.is_set():
            return None
        self._ready_at = None
        self._began_at = time.monotonic()
        self._emit(Phase.STARTING, "starts")
        spec = self._spec
        try:
            child = Child(
                spec.argv,
                env=spec.env,
                cwd=spec.cwd,
                log_path=spec.log_path,
                orphan_signal=spec.orphan_signal,
                sockets=spec.sockets,
            )
        except OSError as error:
            return self._death(f"cannot be started: {error}")
        self.pid = child.pid
        try:
            return self._watch(child)
        finally:
            self.pid = None
            # Before it was ever ready nobody has relied on it, and whoever gives up does not want to wait.
            timeout_s = spec.stop_timeout_s if self._settled.is_set() else min(spec.stop_timeout_s, _UNREADY_STOP_S)
            child.end(spec.stop_signal, timeout_s=timeout_s)

    def _watch(self, child: Child) -> ServiceEvent | None:
        began = time.monotonic()
        ask = self._spec.ailment
        ailment = Ailment(ask, lasts_s=self._spec.ailment_lasts_s) if ask is not None else None
        heartbeat = Heartbeat(lambda message: self._emit(Phase.WAITING, message))
        while not self._stopping.wait(_POLL_S):
            if child.has_ended():
                status = child.end(self._spec.stop_signal, timeout_s=0)
                return self._death(f"died ({describe_exit(status)}): {child.last_lines()}", status)
            if self._ready_at is not None:
                problem = ailment.lasting() if ailment is not None else None
                if problem is not None:
                    detail = f"was stopped, because only a restart mends this: {problem}"
                    return ServiceEvent(self._spec.name, Phase.AILED, detail)
                continue
            # Asked again after the probe: a stranger on the same port must not pass for a child that just died.
            if self._spec.ready() and not child.has_ended():
                self._ready_at = time.monotonic()
                self._emit(Phase.READY, f"is ready after {self._ready_at - began:.1f} s")
                self._settled.set()
            elif time.monotonic() - began > self._spec.ready_timeout_s:
                return self._death(f"was not ready within {self._spec.ready_timeout_s:g} s: {child.last_lines()}")
            else:
                heartbeat.beat("is not ready yet")
        return None

    def _death(self, detail: str, exit_status: int | None = None) -> ServiceEvent:
        return ServiceEvent(self._spec.name, Phase.DIED, detail, exit_status)

    def _emit(self, phase: Phase, detail: str) -> None:
        self._report(ServiceEvent(self._spec.name, phase, detail))

    def _report(self, event: ServiceEvent) -> None:
        # A reader who went away (`taskbridge up | head`) must not cost the service.
        with contextlib.suppress(OSError):
            self._on_event(event)
