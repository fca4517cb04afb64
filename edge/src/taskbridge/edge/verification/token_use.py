"""When each token was last used, kept across restarts: what nobody signs with any more can be retired.

All workers share a folder with an empty file for each token, named by its fingerprint: it was modified when the token
was last used, and the file ``since`` when the recording began.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from taskbridge.edge.verification.credentials import Token

FLUSH_S = 5.0

_SINCE = "since"
_NS = 1e9

_log = structlog.stdlib.get_logger(__name__)


class UseUnknown(ConfigurationError):
    """There is no record of the tokens' use, or it cannot be read: nothing can be said of any token."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a record says. Times are seconds since 1970."""

    since: float
    """Since when use is recorded: "never" means not since then."""
    last: Mapping[str, float]
    """Fingerprint → the last use."""


def use_folder(data_dir: Path) -> Path:
    return data_dir / "token-use"


def read_use(data_dir: Path) -> Use:
    """What all workers have recorded.

    Raises:
        UseUnknown: nothing was ever recorded there, or it cannot be read.
    """
    folder = use_folder(data_dir)
    try:
        found = {path.name: path.stat().st_mtime_ns / _NS for path in folder.iterdir()}
        return Use(found.pop(_SINCE), found)
    except (FileNotFoundError, NotADirectoryError, KeyError):
        problem = f"no token usage in {folder}; check that it is the data folder of an edge that has run"
        raise UseUnknown(problem) from None
    except OSError as error:
        raise UseUnknown(f"the token usage file cannot be read: {folder}: {error.strerror}") from error


class TokenUse:
    """Notes the use of tokens in this process, and writes it down now and then."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._since = time.time_ns()
        self._last: dict[str, int] = {}
        self._changed = True
        self._failed = False

    def note(self, token: Token) -> None:
        self._last[token.fingerprint] = time.time_ns()
        self._changed = True

    def last(self) -> Mapping[str, float]:
        """The last use of each token by any worker; the others' are late by up to FLUSH_S."""
        try:
            recorded = read_use(self._data_dir).last
        except UseUnknown:
            recorded = dict[str, float]()
        return {**recorded, **{name: max(at / _NS, recorded.get(name, 0)) for name, at in self._last.items()}}

    async def keep(self) -> None:
        """Write down what is new, every few seconds, until cancelled."""
        while True:
            await asyncio.to_thread(self.flush)
            await asyncio.sleep(FLUSH_S)

    def flush(self) -> None:
        """Write down what is new. Where that fails, it is said once, and tried again next time."""
        if not self._changed:
            return
        self._changed = False
        folder = use_folder(self._data_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / _SINCE).exists():
                _write(folder / _SINCE, self._since)
            for name, at in dict(self._last).items():
                # A later use by another worker stays, but not one from a clock that was ahead.
                if not (folder / name).exists() or not at <= (folder / name).stat().st_mtime_ns <= time.time_ns():
                    _write(folder / name, at)
        except OSError as error:
            self._changed = True
            if not self._failed:
                _log.error("token_use_not_stored", problem=error.strerror)
            self._failed = True
        else:
            self._failed = False


def _write(path: Path, at: int) -> None:
    path.touch()
    os.utime(path, ns=(at, at))
