"""The description of a supervised program, and the events that the supervisor reports."""

from __future__ import annotations

import enum
import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


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
    # Polled while it runs: a problem that only a restart fixes, or None; a lasting problem causes a restart.
    ailment: Callable[[], str | None] | None = None
    ailment_lasts_s: float = 5.0
    # Signal to the program when the supervisor is killed. SIGTERM suits a program with children.
    orphan_signal: signal.Signals = signal.SIGKILL
    # Listening sockets passed at each start: connections wait in them while the program is down.
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
