"""The process of a service: its locks on files, its limits, and its garbage collection."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import resource
import sys
import time
from typing import TYPE_CHECKING

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_YOUNG, _MIDDLE, _OLD = 50_000, 20, 100
_SWITCH_S = 0.0005


def try_lock(descriptor: int, *, tries: int = 1, pause_s: float = 0.0) -> bool:
    """Lock an open file; False if another process holds the lock at every try.

    The kernel drops the lock when the process ends, so no lock is ever left over.
    """
    for further in reversed(range(tries)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            time.sleep(pause_s if further else 0)
        else:
            return True
    return False


@contextlib.contextmanager
def only_one_in(folder: Path, name: str, *, setting: str) -> Generator[None]:
    """Hold ``folder`` for this process alone during the block; it is created if it is missing.

    Raises ConfigurationError, which names ``setting``, if another process holds it or it cannot be written.
    """
    path = folder / name
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(path.open("a"))
        except OSError as error:
            raise ConfigurationError(f"{setting}={folder} cannot be written: {error.strerror}") from error
        # A process that only checks the lock holds it for a moment.
        if not try_lock(lock.fileno(), tries=5, pause_s=0.02):
            raise ConfigurationError(f"another process uses {setting}={folder}. Give each process its own folder")
        yield


def collect_garbage_rarely() -> None:
    """Exclude all present objects from garbage collection, and collect rarely. Call it once a service is running.

    Reference counts free everything that a record makes. With Python's default thresholds, a collection would walk
    over tens of thousands of instances for every few thousand records, a quarter of the streams' CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


def switch_threads_sooner() -> None:
    """Let a thread wait half a millisecond for the interpreter's lock while another one works, not Python's 5 ms.

    A thread that sends several requests or statements one after the other waits for the lock at each: with 5 ms, a
    transaction of the streams under load took a fifth longer.
    """
    sys.setswitchinterval(_SWITCH_S)


def allow_open_files(target: int) -> int:
    """Raise the limit of open files to ``target``, or as far as the hard limit allows; returns how many it allows now.

    Each connection is an open file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= target:
        return target
    allowed = target if hard == resource.RLIM_INFINITY else min(target, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed
