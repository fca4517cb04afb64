"""One child process: in its own session, tied to the thread that started it, ended with all its children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

_TETHER = Path(__file__).with_name("tether.py")
_LOG_MAX_BYTES = 5_000_000
_POLL_S = 0.05
_LINE_MAX = 200


def tethered(
    argv: Sequence[str], *, orphan_signal: signal.Signals, descriptors: Sequence[int] = (), niceness: int = 0
) -> list[str]:
    """The command that becomes ``argv`` and gets ``orphan_signal`` when the thread that started it ends, on Linux."""
    tether = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), str(int(orphan_signal)), str(niceness)]
    return [*tether, ",".join(map(str, descriptors)), *argv]


class Child:
    """A running process whose output goes to the end of ``log_path``; a log over 5 MB is moved aside first.

    It has its own session, so that the terminal's Ctrl-C reaches the supervisor only, which then stops
    the children in order. ``sockets`` listen, and are passed as systemd does (``LISTEN_FDS``). The higher its
    ``niceness``, the smaller its share of busy processors.

    Raises:
        OSError: the log cannot be written or no process can be created. A missing program is an exit status and
            a line in the log instead.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None,
        log_path: Path,
        orphan_signal: signal.Signals,
        sockets: Sequence[socket.socket] = (),
        niceness: int = 0,
    ) -> None:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        if log_path.exists() and log_path.stat().st_size > _LOG_MAX_BYTES:
            log_path.replace(log_path.with_name(f"{log_path.name}.1"))
        self._log_path = log_path
        given = [each.fileno() for each in sockets]
        with log_path.open("ab") as log:
            self._log_offset = log.tell()
            self._process = subprocess.Popen(
                tethered(argv, orphan_signal=orphan_signal, descriptors=given, niceness=niceness),
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=given,
            )
        self.pid = self._process.pid

    def has_ended(self) -> bool:
        """Whether the process is over. Does not reap it."""
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self, stop_signal: signal.Signals, *, timeout_s: float) -> int:
        """Stop the process, by force after ``timeout_s``, and the rest of its process group; return its exit status."""
        if self._process.returncode is not None:
            return self._process.returncode
        if not self.has_ended():
            self._process.send_signal(stop_signal)
            deadline = time.monotonic() + timeout_s
            while not self.has_ended() and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        # Until it is reaped, its id is not reused. Orphans would hold its port.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()

    def last_lines(self, count: int = 3) -> str:
        try:
            with self._log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_offset, size - 8192))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return " | ".join([line.strip()[:_LINE_MAX] for line in lines if line.strip()][-count:])


def describe_exit(status: int) -> str:
    """Return an exit status as ``subprocess`` gives it, in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-status}"
