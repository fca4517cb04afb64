"""Supervise long-running programs: start in order, restart with back-off, stop in reverse order."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taskbridge.cli.terminal import Heartbeat
from taskbridge.local.child import Child, describe_exit
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

_POLL_S = 0.1
_UNREADY_STOP_S = 3.0
_LIVED_S = 1.0
"""A program that exits 0 earlier than this, and was never ready, might repeat that endlessly."""


@dataclass(frozen=True)
class ServiceSpec:
    """One program to supervise. ``ready`` is polled until it is true; it must return within seconds."""

    name: str
    argv: Sequence[str]
    log_path: Path
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path | None = None
    # A minute was too short for five JVMs that start on two slow cores; a death is reported at once.
    ready_timeout_s: float = 150.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    # Signal to the program when the supervisor is killed. SIGTERM suits a program with children.
    orphan_signal: signal.Signals = signal.SIGKILL
    # Listening sockets passed at each start: connections wait in them while the program is down.
    sockets: Sequence[socket.socket] = ()
    niceness: int = 0

    def start(self) -> Child:
        return Child(
            self.argv,
            env=self.env,
            cwd=self.cwd,
            log_path=self.log_path,
            orphan_signal=self.orphan_signal,
            sockets=self.sockets,
            niceness=self.niceness,
        )


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

    def start(self, *specs: ServiceSpec) -> None:
        """Start all in parallel and return when they are ready. Each is restarted when it dies.

        Raises ConfigurationError if one died or timed out before it was ready; all of these are stopped.
        """
        for spec in specs:
            if spec.name in self._services:
                raise ValueError(f"{spec.name} is started already")
            # Known before its process runs: a signal handler may raise at any time, and "stop" must find it.
            self._services[spec.name] = _Service(spec, self._backoff, self._on_event)
            self._services[spec.name].start()
        failures = [self._services[spec.name].wait_until_settled() for spec in specs]
        for failure in filter(None, failures):
            self.stop(*(spec.name for spec in specs))
            raise failure

    def stop(self, *names: str) -> None:
        """Stop these services, or all, in the reverse order of their start; a second call does nothing."""
        for name in reversed(list(self._services)):
            if not names or name in names:
                self._services[name].stop()
                del self._services[name]

    def pid(self, name: str) -> int | None:
        """Return the process id of a service, None while it is down. Raises KeyError if no such service was started."""
        return self._services[name].pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Service:
    """One service, and the thread that starts, watches and stops it.

    The thread lives as long as the process: the kernel ties a child to the thread that started it.
    """

    def __init__(self, spec: ServiceSpec, backoff: Backoff, on_event: Callable[[ServiceEvent], None]) -> None:
        self.pid: int | None = None
        self._failure: ConfigurationError | None = None
        self._spec = spec
        self._backoff = backoff
        self._on_event = on_event
        self._stopping = threading.Event()
        self._settled = threading.Event()  # ready for the first time, or failed
        self._ready_at: float | None = None
        self._started_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"supervise-{spec.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_until_settled(self) -> ConfigurationError | None:
        self._settled.wait()
        return self._failure

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():  # one that was interrupted before it ran starts no process any more
            self._thread.join()

    def _run(self) -> None:
        try:
            self._supervise()
        except Exception as error:  # noqa: BLE001  a bug in a probe must not block start() forever
            self._failure = ConfigurationError(f"{self._spec.name} is no longer supervised: {error!r}")
            self._emit(Phase.DIED, f"is no longer supervised: {error!r}")
        finally:
            self._settled.set()

    def _supervise(self) -> None:
        failures = 0
        while True:
            death = self._live()
            if not self._settled.is_set():
                reason = "was stopped before it was ready" if death is None else death.detail
                self._failure = ConfigurationError(f"{self._spec.name} {reason}; its log: {self._spec.log_path}")
                return
            if death is None:
                self._emit(Phase.STOPPED, "stopped")
                return
            self._report(death)
            if self._ready_at is not None and time.monotonic() - self._ready_at >= self._backoff.healthy_after_s:
                failures = 0
            lived_s = time.monotonic() - self._started_at
            if death.exit_status == 0 and (self._ready_at is not None or lived_s >= _LIVED_S):
                self._emit(Phase.RESTARTING, "restarts")  # an exit on request is not a failure
                continue
            delay_s = self._backoff.delay_s(failures)
            failures += 1
            self._emit(Phase.RESTARTING, f"restarts in {delay_s:g} s")
            self._stopping.wait(delay_s)

    def _live(self) -> ServiceEvent | None:
        if self._stopping.is_set():
            return None
        self._ready_at = None
        self._started_at = time.monotonic()
        self._emit(Phase.STARTING, "starts")
        try:
            child = self._spec.start()
        except OSError as error:
            return self._death(f"cannot start: {error}")
        self.pid = child.pid
        try:
            return self._watch(child)
        finally:
            self.pid = None
            # Before its first readiness no client relied on it: do not wait long.
            stop_s = self._spec.stop_timeout_s
            timeout_s = stop_s if self._settled.is_set() else min(stop_s, _UNREADY_STOP_S)
            child.end(self._spec.stop_signal, timeout_s=timeout_s)

    def _watch(self, child: Child) -> ServiceEvent | None:
        started_at = time.monotonic()
        heartbeat = Heartbeat(lambda message: self._emit(Phase.WAITING, message))
        while not self._stopping.wait(_POLL_S):
            if child.has_ended():
                status = child.end(self._spec.stop_signal, timeout_s=0)
                return self._death(f"died ({describe_exit(status)}): {child.last_lines()}", status)
            if self._ready_at is not None:
                continue
            # Checked again after the probe: another program on the port must not pass for a dead child.
            if self._spec.ready() and not child.has_ended():
                self._ready_at = time.monotonic()
                self._emit(Phase.READY, f"is ready after {self._ready_at - started_at:.1f} s")
                self._settled.set()
            elif time.monotonic() - started_at > self._spec.ready_timeout_s:
                return self._death(f"was not ready within {self._spec.ready_timeout_s:g} s: {child.last_lines()}")
            else:
                heartbeat.beat("is not ready yet")
        return None

    def _death(self, detail: str, exit_status: int | None = None) -> ServiceEvent:
        return ServiceEvent(self._spec.name, Phase.DIED, detail, exit_status)

    def _emit(self, phase: Phase, detail: str) -> None:
        self._report(ServiceEvent(self._spec.name, phase, detail))

    def _report(self, event: ServiceEvent) -> None:
        # A closed output (`taskbridge up | head`) must not stop the service.
        with contextlib.suppress(OSError):
            self._on_event(event)
