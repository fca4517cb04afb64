"""One program and the thread that starts, watches, replaces and stops it."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from taskbridge.local.errors import StackError
from taskbridge.local.processes.ailment import Ailment
from taskbridge.local.processes.child import Child, describe_exit
from taskbridge.local.processes.services import Phase, ServiceEvent
from taskbridge.local.progress import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.local.processes.services import Backoff, ServiceSpec

_POLL_S = 0.1
_UNREADY_STOP_S = 3.0
_LIVED_S = 1.0
"""A program that exits 0 earlier than this, and was never ready, might repeat that endlessly."""


class Supervised:
    """A service and its thread, which starts, watches and stops it.

    The thread lives as long as the process: the kernel ties a child to the thread that started it.
    """

    def __init__(self, spec: ServiceSpec, backoff: Backoff, on_event: Callable[[ServiceEvent], None]) -> None:
        self._failure: StackError | None = None
        self.pid: int | None = None
        self._spec = spec
        self._wanted: ServiceSpec | None = None
        self._backoff = backoff
        self._on_event = on_event
        self._stopping = threading.Event()
        self._settled = threading.Event()  # ready for the first time, or failed
        self._ready_at: float | None = None
        self._began_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"supervise-{spec.name}", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def wait_until_settled(self) -> StackError | None:
        """Wait until it is ready or failed; returns the failure."""
        self._settled.wait()
        return self._failure

    def replace(self, spec: ServiceSpec) -> None:
        self._wanted = spec

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._supervise()
        except Exception as error:  # noqa: BLE001  a bug in a probe must not block start() forever
            self._failure = StackError(f"{self._spec.name} is no longer supervised: {error!r}")
            self._emit(Phase.DIED, f"is no longer supervised: {error!r}")
        finally:
            self._settled.set()

    def _supervise(self) -> None:
        failures = 0
        while True:
            death = self._live()
            if not self._settled.is_set():
                reason = "was stopped before it was ready" if death is None else death.detail
                self._failure = StackError(f"{self._spec.name} {reason}; its log: {self._spec.log_path}")
                return
            if death is None:
                self._emit(Phase.STOPPED, "stopped")
                return
            self._report(death)
            if self._ready_at is not None and time.monotonic() - self._ready_at >= self._backoff.healthy_after_s:
                failures = 0
            lived_s = time.monotonic() - self._began_at
            if death.exit_status == 0 and (self._ready_at is not None or lived_s >= _LIVED_S):
                self._emit(Phase.RESTARTING, "restarts")  # it was asked to end, which is no failure
                continue
            delay_s = self._backoff.delay_s(failures)
            failures += 1
            self._emit(Phase.RESTARTING, f"restarts in {delay_s:g} s")
            self._stopping.wait(delay_s)

    def _live(self) -> ServiceEvent | None:
        """Run the process until it ends; returns the reason, or None if it was asked to stop."""
        if self._stopping.is_set():
            return None
        self._ready_at = None
        self._began_at = time.monotonic()
        self._spec, self._wanted = self._wanted or self._spec, None
        self._emit(Phase.STARTING, "starts")
        try:
            child = _child(self._spec)
        except OSError as error:
            return self._death(f"cannot start: {error}")
        self.pid = child.pid
        try:
            while (death := self._watch(child)) is None and self._wanted is not None and not self._stopping.is_set():
                child = self._replaced(child)
                self.pid = child.pid
            return death
        finally:
            self.pid = None
            # Before its first readiness no client relied on it: do not wait long.
            stop_s = self._spec.stop_timeout_s
            self._end(child, timeout_s=stop_s if self._settled.is_set() else min(stop_s, _UNREADY_STOP_S))

    def _end(self, child: Child, *, timeout_s: float) -> int:
        return child.end(self._spec.stop_signal, timeout_s=timeout_s)

    def _replaced(self, old: Child) -> Child:
        """The new child once it is ready and ``old`` has ended, else ``old``."""
        assert self._wanted is not None
        spec, self._wanted = self._wanted, None
        began = time.monotonic()
        self._emit(Phase.STARTING, "starts, while the old one runs")
        try:
            new = _child(spec)
        except OSError as error:
            self._report(self._death(f"was not replaced: the new one cannot start: {error}"))
            return old
        while not (ended := new.has_ended()) and time.monotonic() - began < spec.ready_timeout_s:
            if self._stopping.wait(_POLL_S):
                break
            if spec.ready() and not new.has_ended():
                self._spec, self._ready_at, self._began_at = spec, time.monotonic(), began
                self._emit(Phase.READY, f"is ready after {self._ready_at - began:.1f} s, and the old one stops")
                self._end(old, timeout_s=spec.stop_timeout_s)
                return new
        if not self._stopping.is_set():
            reason = "died" if ended else f"was not ready within {spec.ready_timeout_s:g} s"
            self._report(self._death(f"was not replaced: the new one {reason}: {new.last_lines()}"))
        self._end(new, timeout_s=_UNREADY_STOP_S)
        return old

    def _watch(self, child: Child) -> ServiceEvent | None:
        began = time.monotonic()
        probe = self._spec.ailment
        ailment = Ailment(probe, lasts_s=self._spec.ailment_lasts_s) if probe is not None else None
        heartbeat = Heartbeat(lambda message: self._emit(Phase.WAITING, message))
        while not self._stopping.wait(_POLL_S):
            if child.has_ended():
                status = self._end(child, timeout_s=0)
                return self._death(f"died ({describe_exit(status)}): {child.last_lines()}", status)
            if self._ready_at is not None:
                problem = ailment.lasting() if ailment is not None else None
                if problem is not None:
                    detail = f"was stopped, because only a restart fixes this: {problem}"
                    return ServiceEvent(self._spec.name, Phase.AILED, detail)
                if self._wanted is not None:
                    return None
                continue
            # Checked again after the probe: another program on the port must not pass for a dead child.
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
        # A closed output (`taskbridge up | head`) must not stop the service.
        with contextlib.suppress(OSError):
            self._on_event(event)


def _child(spec: ServiceSpec) -> Child:
    return Child(
        spec.argv,
        env=spec.env,
        cwd=spec.cwd,
        log_path=spec.log_path,
        orphan_signal=spec.orphan_signal,
        sockets=spec.sockets,
    )
