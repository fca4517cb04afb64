"""One pytest session, collected once; each change is tried in a fork of it.

A changed function replaces the code of the existing function objects, a changed constant is set in every module that
imported it. So nothing is imported again, and only tests that reach the changed lines run, the fastest first. The
outcome is ``None`` for changes that need an import: fields of a class, defaults of a function, code at module level.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mutants import Mutant

_SLOWER = 4
_SLACK_S = 6
_LOOKS_EVERY_S = 0.02
FAILED = 2


@dataclass(slots=True)
class _Seen:
    """One test on the unchanged module."""

    seconds: float
    lines: set[int] = field(default_factory=set[int])


@dataclass(slots=True)
class _Fork:
    """A process that tries one change. It writes the test that runs, and its time limit, to ``limit`` in its folder."""

    number: int
    folder: Path
    started_s: float = field(default_factory=time.monotonic)
    test: str = ""
    test_started_s: float = 0
    waited_ns: dict[str, int] = field(default_factory=dict[str, int])
    """Thread → time in which it was ready to run but had no processor."""
    is_late: bool = False

    def look(self, pid: int) -> None:
        """Check whether its test takes too long, not counting the time without a processor."""
        with contextlib.suppress(OSError):  # it ends, or has not started
            for thread in Path(f"/proc/{pid}/task").iterdir():
                self.waited_ns[thread.name] = int((thread / "schedstat").read_text("ascii").split()[1])
        now_s = time.monotonic() - self.started_s - sum(self.waited_ns.values()) / 1e9
        with contextlib.suppress(FileNotFoundError):
            test, limit_s = (self.folder / "limit").read_text("ascii").split()
            if test != self.test:
                self.test, self.test_started_s = test, now_s
            self.is_late = now_s - self.test_started_s > float(limit_s)


class WarmTests:
    """A pytest plugin that calls ``verdict`` for each change, with its outcome and seconds."""

    def __init__(
        self,
        module: str,
        mutants: Sequence[Mutant],
        *,
        processes: int,
        quick_s: float,
        slow: Callable[[Sequence[str]], None],
        verdict: Callable[[int, str | None, float], None],
    ) -> None:
        """First, ``slow`` is called with the tests that take longer than ``quick_s`` and are left out."""
        self._name = module.partition("/src/")[2].removesuffix(".py").replace("/", ".")
        self._mutants = mutants
        self._processes = processes
        self._quick_s = quick_s
        self._slow = slow
        self._verdict = verdict
        self._seen = dict[str, _Seen]()
        self._running = dict[int, _Fork]()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        module = sys.modules[self._name]
        self._seen = in_fork(lambda: watched(session.items, str(module.__file__)))
        functions = functions_of(str(module.__file__))
        by_speed = sorted(session.items, key=lambda item: self._seen[item.nodeid].seconds)
        self._slow([item.nodeid for item in by_speed if self._seen[item.nodeid].seconds > self._quick_s])
        by_speed = [item for item in by_speed if self._seen[item.nodeid].seconds <= self._quick_s]
        for number, mutant in enumerate(self._mutants):
            change = how_to_make(mutant, module, functions)
            reached = [
                item for item in by_speed if mutant.lines is None or mutant.lines & self._seen[item.nodeid].lines
            ]
            if change is None or not reached:
                self._verdict(number, None, 0)
                continue
            if len(self._running) >= self._processes:
                self._wait()
            self._start(number, change, reached)
        while self._running:
            self._wait()
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            sys.stdout.write(f"{report.nodeid}\n{report.longreprtext}\n")
            sys.stdout.flush()
            os._exit(FAILED)

    def _start(self, number: int, change: Callable[[], None], items: Sequence[pytest.Item]) -> None:
        fork = _Fork(number, Path(tempfile.mkdtemp(prefix="mutation-")))
        pid = os.fork()
        if pid == 0:
            code = FAILED
            try:
                os.setsid()
                tempfile.tempdir = str(fork.folder)
                limit, written = fork.folder / "limit", fork.folder / "written"
                change()
                for at, item in enumerate(items):
                    written.write_text(f"{at} {_SLACK_S + _SLOWER * self._seen[item.nodeid].seconds}", "ascii")
                    written.replace(limit)
                    run(item)
                code = 0
            finally:
                os._exit(code)  # even where a test raises through pytest: this process is not the session
        self._running[pid] = fork

    def _wait(self) -> None:
        """Return when one of the forks has ended, by itself or killed because it was late."""
        while True:
            for pid, fork in list(self._running.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    del self._running[pid]
                    self._judge(pid, fork, os.waitstatus_to_exitcode(status))
                    return
                fork.look(pid)
                if fork.is_late:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_LOOKS_EVERY_S)

    def _judge(self, pid: int, fork: _Fork, code: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what its tests started
        shutil.rmtree(fork.folder, ignore_errors=True)
        # Any code other than that of a failed test: the change crashed the process.
        outcome = "survived" if code == 0 else "late" if fork.is_late else "killed"
        self._verdict(fork.number, outcome, time.monotonic() - fork.started_s)


def run(item: pytest.Item) -> None:
    # No next item: each tears down its fixtures, so that no test depends on the one before.
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def in_fork(work: Callable[[], dict[str, _Seen]]) -> dict[str, _Seen]:
    """Run ``work`` in a process of its own, which a failing test ends, and return its result."""
    folder = Path(tempfile.mkdtemp(prefix="mutation-"))
    pid = os.fork()
    if pid == 0:
        tempfile.tempdir = str(folder)
        (folder / "seen").write_bytes(pickle.dumps(work()))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    try:
        if status != 0:
            raise pytest.UsageError("the tests fail without any change")
        return pickle.loads((folder / "seen").read_bytes())  # noqa: S301 - its own
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def watched(items: Sequence[pytest.Item], file: str) -> dict[str, _Seen]:
    """The seconds of each test, and the lines of the file that it reaches in any thread."""
    seen = dict[str, _Seen]()
    for item in items:
        lines, started = set[int](), time.monotonic()

        def in_file(frame: FrameType, _event: str, _argument: object, lines: set[int] = lines) -> Any:
            lines.add(frame.f_lineno)
            return in_file

        def anywhere(frame: FrameType, event: str, argument: object, in_file: Any = in_file) -> Any:
            return in_file(frame, event, argument) if frame.f_code.co_filename == file else None

        threading.settrace(anywhere)
        sys.settrace(anywhere)
        run(item)
        sys.settrace(None)
        seen[item.nodeid] = _Seen(time.monotonic() - started, lines)
    return seen


def functions_of(file: str) -> dict[tuple[str, int], list[FunctionType]]:
    """(qualified name, line) → the function objects of this file, wherever they are referred to."""
    found = dict[tuple[str, int], list[FunctionType]]()
    gc.unfreeze()  # objects that tests/conftest.py froze are in no list, and every change would survive
    for each in gc.get_objects():
        if type(each) is FunctionType and each.__code__.co_filename == file:
            found.setdefault(place_of(each.__code__), []).append(each)
    return found


def place_of(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def codes_in(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each
            yield from codes_in(each)


def how_to_make(
    mutant: Mutant, module: ModuleType, functions: dict[tuple[str, int], list[FunctionType]]
) -> Callable[[], None] | None:
    if mutant.constant is not None:
        return lambda: put_constant(mutant, module)
    if not mutant.in_function:
        return None
    pairs = list[tuple[FunctionType, CodeType]]()
    for code in codes_in(compile(mutant.tree, str(module.__file__), "exec", dont_inherit=True)):
        for function in functions.get(place_of(code), ()):
            if len(code.co_freevars) != len(function.__code__.co_freevars):
                return None
            pairs.append((function, code))

    def put() -> None:
        for function, code in pairs:
            function.__code__ = code

    return put if pairs else None


def put_constant(mutant: Mutant, module: ModuleType) -> None:
    name = str(mutant.constant)
    old = vars(module)[name]
    statement = next(
        each
        for each in mutant.tree.body
        if isinstance(each, ast.Assign | ast.AnnAssign)
        and ast.unparse(each.targets[0] if isinstance(each, ast.Assign) else each.target) == name
    )
    exec(compile(ast.Module([statement], []), str(module.__file__), "exec"), vars(module))  # noqa: S102 - our own source
    new = vars(module)[name]
    for other in list(sys.modules.values()):
        if getattr(other, "__dict__", {}).get(name) is old:
            setattr(other, name, new)
