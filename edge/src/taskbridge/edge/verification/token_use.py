"""When each token was last used, kept across restarts: what nobody signs with any more can be retired.

Each worker keeps a file of its own in one folder; whoever reads merges them. Tokens go by their fingerprints.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from taskbridge.edge.verification.credentials import Token

FLUSH_S = 5.0

_EARLIER = "earlier.json"

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
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UseUnknown(f"no use of tokens is recorded in {folder}: is this the data folder of an edge that has run?")
    return _merged([_read(path) for path in paths])


def tidy_use(data_dir: Path) -> None:
    """Merge what earlier workers left. Only for when no worker runs yet.

    Raises:
        UseUnknown: a record cannot be read.
        ConfigurationError: it cannot be written.
    """
    folder = use_folder(data_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        left = sorted(folder.glob("*.json"))
        _write(folder / _EARLIER, read_use(data_dir) if left else Use(time.time(), {}))
        for path in left:
            if path.name != _EARLIER:
                path.unlink()
    except OSError as error:
        raise ConfigurationError(f"data folder {folder}: {error.strerror}") from error


class TokenUse:
    """Notes the use of tokens in this process, and writes it down now and then."""

    def __init__(self, data_dir: Path, *, worker: int | None = None) -> None:
        self._data_dir = data_dir
        self._path = use_folder(data_dir) / f"{worker or os.getpid()}.json"
        self._since = time.time()
        self._last: dict[str, float] = {}
        self._changed = True
        self._failed = False

    def note(self, token: Token) -> None:
        self._last[token.fingerprint] = time.time()
        self._changed = True

    def last(self) -> Mapping[str, float]:
        """The last use of each token by any worker; the others' are late by up to FLUSH_S."""
        own = Use(self._since, dict(self._last))
        try:
            return _merged([own, read_use(self._data_dir)]).last
        except UseUnknown:
            return own.last

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
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _write(self._path, Use(self._since, dict(self._last)))
        except OSError as error:
            self._changed = True
            if not self._failed:
                _log.error("token_use_not_kept", problem=error.strerror)
            self._failed = True
        else:
            self._failed = False


def _merged(uses: Iterable[Use]) -> Use:
    since, last = math.inf, dict[str, float]()
    for use in uses:
        since = min(since, use.since)
        for name, at in use.last.items():
            last[name] = max(at, last.get(name, 0))
    return Use(since, last)


def _read(path: Path) -> Use:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        return Use(float(found["since"]), {str(name): float(at) for name, at in found["last"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UseUnknown(f"the record of the tokens' use cannot be read: {path}") from error


def _write(path: Path, use: Use) -> None:
    new = path.with_suffix(".new")
    with new.open("w") as file:
        json.dump({"since": use.since, "last": dict(use.last)}, file)
        file.flush()
        # Renamed before its content is on disk, it could be found empty after a power failure.
        os.fsync(file.fileno())
    new.replace(path)
