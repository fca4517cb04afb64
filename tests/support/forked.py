"""Our services and commands as processes without the time to load: forked from a process that has loaded them.

Loading takes a service a second of CPU time, a command 0.4 s, and the tests start some 130 of them: tests/README.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx2

from support import http_clients
from taskbridge.local.host import LOOPBACK, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.connection import Connection as Pipe

    from taskbridge.cli.connection import Connection

_PR_SET_PDEATHSIG = 1
_SHOWN_CHARACTERS = 100_000
COMMAND = "from taskbridge.cli.__main__ import main; main()"
_forking = multiprocessing.get_context("forkserver")
_SERVICES = [f"taskbridge.{each}.app" for each in ("edge", "streams", "center", "webhooks")]
_forking.set_forkserver_preload([*_SERVICES, "taskbridge.cli.program"])


class Forked:
    """``python -c code`` in a session of its own, which ends with the tests. Standard error is appended to ``log``.

    Standard output is appended to ``out``, by default to ``log``. ``arguments`` start with the program's name.

    Has the methods of ``subprocess.Popen``. ``code`` finds our services loaded with the environment of that time: a
    test that needs another environment at import must start a process that loads them.
    """

    def __init__(
        self,
        code: str,
        *,
        environment: Mapping[str, str],
        log: Path,
        out: Path | None = None,
        arguments: Sequence[str] = ("-c",),
    ) -> None:
        begun, begins = _forking.Pipe(duplex=False)
        with begun, begins:
            given = {
                "code": code,
                "environment": dict(environment),
                "folder": Path.cwd(),
                "outputs": (out or log, log),
                "arguments": arguments,
                "begins": begins,
            }
            # A daemon, so that it is ended, not waited for, where a test left it.
            self._process = _forking.Process(target=_become, kwargs=given, daemon=True)
            self._process.start()
            begins.close()
            begun.recv()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def show_log(path: Path) -> None:
    """At a test's end: pytest shows this output only with a failure."""
    if path.exists():
        print(f"{path.name}:\n{path.read_text('utf-8', 'replace')[-_SHOWN_CHARACTERS:]}")  # noqa: T201 - its purpose


class ForkedService:
    """One of our services that a test may stop, kill and start again, on the same port and data folder.

    ``name`` begins its settings; ``environment`` is added to them. As a context it is not started, but killed at the
    end, and a failed test shows its log.
    """

    def __init__(self, name: str, code: str, folder: Path, connection: Connection, **environment: str) -> None:
        prefix = f"{name.upper()}_"
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.data_dir = folder / f"{name}-{self.port}"
        self.log_path = folder / f"{name}-{self.port}.log"
        self.environment = {
            **{each: value for each, value in os.environ.items() if not each.startswith(prefix)},
            f"{prefix}KAFKA_BOOTSTRAP_SERVERS": connection.bootstrap_servers,
            f"{prefix}SCHEMA_REGISTRY_URL": connection.registry_url,
            f"{prefix}DATA_DIR": str(self.data_dir),
            f"{prefix}PORT": str(self.port),
            **environment,
        }
        self.process: Forked | subprocess.Popen[bytes] | None = None
        """None while nothing was started since its end was seen."""
        self.python = sys.executable
        """Whose environment has the program: by default this one."""
        self.code = code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.show_log()

    def start(self, code: str | None = None) -> None:
        """Start it; with other code, one that was changed for a test."""
        if self.python == sys.executable:
            self.process = Forked(code or self.code, environment=self.environment, log=self.log_path)
            return
        with self.log_path.open("ab") as log:
            argv = [self.python, "-c", code or self.code]
            self.process = subprocess.Popen(argv, env=self.environment, stdout=log, stderr=log)

    def signal(self, signum: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(signum)

    def end(self, signum: signal.Signals, *, within_s: float = 60) -> int:
        """The exit code after this signal."""
        self.signal(signum)
        return self.exit_code(within_s)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self.end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, also of one that is frozen, has ended or was never started."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None

    def exit_code(self, timeout_s: float = 60) -> int:
        """How it ended, when it does."""
        assert self.process is not None
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self.process = None
        return code

    def get(self, path: str, *, timeout_s: float = 10) -> httpx2.Response | None:
        """None where nobody answers."""
        with contextlib.suppress(httpx2.HTTPError):
            return http_clients.get(f"{self.url}{path}", timeout=timeout_s)
        return None

    def readiness(self, *, timeout_s: float = 10) -> dict[str, Any]:
        """The answer of ``/readyz``; empty where there is none."""
        answer = self.get("/readyz", timeout_s=timeout_s)
        return {} if answer is None else answer.json()

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text()[-3000:]
        return self.readiness().get("ready", False)

    def show_log(self) -> None:
        """At a test's end: pytest shows this output only with a failure."""
        show_log(self.log_path)


def taskbridge(
    *arguments: str, environment: Mapping[str, str] = os.environ, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """``taskbridge`` with these arguments, as ``subprocess.run`` runs it: exit code and both outputs."""
    return run_forked(COMMAND, environment=environment, arguments=["taskbridge", *arguments], timeout=timeout)


def run_forked(
    code: str, *, environment: Mapping[str, str], arguments: Sequence[str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """The same of any code."""
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder, "out"), Path(folder, "log")
        process = Forked(code, environment=environment, log=log, out=out, arguments=arguments)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, status, out.read_text("utf-8"), log.read_text("utf-8"))


def _become(
    *,
    code: str,
    environment: Mapping[str, str],
    folder: Path,
    outputs: tuple[Path, Path],
    arguments: Sequence[str],
    begins: Pipe,
) -> None:
    gc.freeze()  # loaded objects stay: a garbage collection at the end would copy each of their pages
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, path in enumerate(outputs, 1):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    # A service may start again in its own place, by its command line.
    sys.argv, sys.orig_argv = [*arguments], [sys.executable, "-c", code, *arguments[1:]]
    begins.send(None)
    begins.close()
    # As in a new command; an inherited one would keep the fork server running after the tests.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    status = 0
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - as `python -c` does
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if status and ended.code is not status:
            sys.stderr.write(f"{ended.code}\n")
    except BaseException:  # noqa: BLE001 - the last to see it
        traceback.print_exc()
        status = 1
    # End as the interpreter does: multiprocessing's end of a child skips exit handlers.
    ctypes.pythonapi.Py_Exit(status)
