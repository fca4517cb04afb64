"""Errors of folders that are full, not writable or in use, as one readable line each."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING

from taskbridge.local.errors import StackError
from taskbridge.local.progress import Heartbeat, Progress
from taskbridge.runtime.process import try_lock

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_MB = 1_000_000


def require_space(folder: Path, *, needed_mb: int, remedy: str) -> None:
    """Make sure that ``folder`` exists and that its disk has space.

    Raises:
        StackError: it cannot be created, or has too little space; ``remedy`` ends the message.
    """
    with readable_os_errors(folder, remedy=remedy):
        folder.mkdir(parents=True, exist_ok=True)
        free_mb = shutil.disk_usage(folder).free // _MB
    if free_mb < needed_mb:
        raise StackError(f"{folder} needs {needed_mb} MB of disk space, but has {free_mb} MB: {remedy}")


@contextlib.contextmanager
def readable_os_errors(folder: Path, *, remedy: str) -> Generator[None]:
    """Turn every OSError of the block into one line that names the folder, the reason and the remedy."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StackError(f"cannot write to {error.filename or folder} ({reason}): {remedy}") from error


@contextlib.contextmanager
def locked(lock_path: Path, *, progress: Progress, waiting_for: str) -> Generator[None]:
    """Hold the lock of ``lock_path`` during the block, after waiting while another process holds it."""
    heartbeat = Heartbeat(progress)
    with lock_path.open("a") as lock:
        while not try_lock(lock.fileno()):
            heartbeat.beat(waiting_for)
            time.sleep(0.1)
        yield


def hold_lock(lock_path: Path, *, remedy: str) -> contextlib.ExitStack:
    """Hold the lock of ``lock_path``, without waiting, until the returned stack is closed.

    Raises:
        StackError: another process holds it.
    """
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(lock_path.open("a"))
        # A process that only checks the lock holds it for a moment.
        if not try_lock(lock.fileno(), tries=5, pause_s=0.02):
            raise StackError(f"another taskbridge is using {lock_path.parent}: {remedy}")
        return stack.pop_all()
