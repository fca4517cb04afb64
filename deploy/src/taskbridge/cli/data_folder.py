"""The folder that every ``--data-dir`` means: what ``up`` keeps, and where that listens while it runs."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.local.disk import hold_lock
from taskbridge.local.errors import StackError
from taskbridge.runtime.locks import try_lock

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT = Path("taskbridge-data")
VARIABLE = "TASKBRIDGE_DATA_DIR"

_LOCK, _RUNNING = "bridge.lock", "running.json"
_EDGE_ALONE = Path("edge-data")
"""The default of an edge that runs without ``up``."""


@dataclass(frozen=True, slots=True)
class Running:
    """Where the parts of a running bridge are."""

    bootstrap_servers: str
    registry_url: str
    edge_url: str
    streams_url: str
    credentials: str


@dataclass(frozen=True, slots=True)
class DataFolder:
    path: Path
    is_named: bool
    """By a flag or by ``TASKBRIDGE_DATA_DIR``: nothing else is meant then."""

    @property
    def edge(self) -> Path:
        """The edge's part; the folder itself where it is that of an edge without ``up``."""
        part = self.path / "edge"
        return part if part.is_dir() else self.path

    @property
    def is_bridges(self) -> bool:
        """Whether it is a bridge's, and not that of an edge alone; one that is still to be made counts as such."""
        return (self.path / "edge").is_dir() or not self.path.is_dir()

    @property
    def streams(self) -> Path:
        return self.path / "streams"

    @property
    def credentials(self) -> Path:
        """The credentials file in force, as far as that can be known from here."""
        running = self.running()
        return Path(running.credentials) if running is not None else self.path / "credentials.toml"

    def running(self) -> Running | None:
        """The bridge that runs in it; None where none does, whatever one that was killed has left there."""
        try:
            with (self.path / _LOCK).open("r") as lock:
                if try_lock(lock.fileno()):
                    return None
            return Running(**json.loads((self.path / _RUNNING).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def nothing_runs(self) -> str:
        """What a command says that was told no address and finds no bridge."""
        where, flag = (f"in {self.path}", f" --data-dir {self.path}") if self.is_named else ("here", "")
        return f"no bridge runs {where}; start it with 'taskbridge up{flag}'"

    def check_is_free(self) -> None:
        """Prove that no bridge runs in it; one that is still starting is found by ``occupy``.

        Raises:
            StackError: one does.
        """
        if (running := self.running()) is not None:
            raise StackError(
                f"this bridge runs already: its task center is {running.streams_url}/; "
                "stop it first, or choose another --data-dir and other ports"
            )

    def occupy(self) -> contextlib.ExitStack:
        """Have it for one bridge, until the returned stack is closed.

        Raises:
            StackError: another one runs in it.
        """
        return hold_lock(self.path / _LOCK, remedy="stop it, or choose another --data-dir")

    def tell(self, running: Running) -> None:
        """Let commands find what runs here. To be called by its occupant only."""
        new = self.path / f"{_RUNNING}.new"
        new.write_text(json.dumps(asdict(running), indent=1), "utf-8")
        new.replace(self.path / _RUNNING)

    def forget(self) -> None:
        """Nothing runs here any more."""
        with contextlib.suppress(OSError):
            (self.path / _RUNNING).unlink()


def data_folder(given: Path | None = None, environment: Mapping[str, str] = os.environ) -> DataFolder:
    """The flag's, else ``TASKBRIDGE_DATA_DIR``, else that of ``up`` without flags."""
    named = given or (Path(environment[VARIABLE]) if environment.get(VARIABLE) else None)
    return DataFolder(named or DEFAULT, is_named=named is not None)


def edge_folder(given: Path | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """The edge's: in the flag's folder, else ``EDGE_DATA_DIR``, else in that of ``up``, else an edge's default."""
    if given is None and environment.get("EDGE_DATA_DIR"):
        return Path(environment["EDGE_DATA_DIR"])
    folder = data_folder(given, environment)
    return folder.edge if folder.is_named or folder.path.is_dir() else _EDGE_ALONE
