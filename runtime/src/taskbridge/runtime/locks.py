"""Locks on files. The kernel drops a lock with the process that holds it, however that ends: none is ever left over."""

from __future__ import annotations

import contextlib
import fcntl
import time
from typing import TYPE_CHECKING

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


def try_lock(descriptor: int, *, tries: int = 1, pause_s: float = 0.0) -> bool:
    """Take the lock of an open file; False where another holds it, whenever it is tried."""
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
    """Hold ``folder``, made where it is missing, for this process alone during the block.

    Raises:
        ConfigurationError: another process holds it, or it cannot be written; the line names ``setting``.
    """
    path = folder / name
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(path.open("a"))
        except OSError as error:
            raise ConfigurationError(f"{setting}={folder} cannot be written: {error.strerror}") from error
        if not try_lock(lock.fileno()):
            raise ConfigurationError(f"another process uses {setting}={folder}. Give each process its own folder")
        yield
