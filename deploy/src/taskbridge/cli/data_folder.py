"""The folder of ``--data-dir``: the data of ``up``, and the addresses of the bridge while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.runtime.process import only_one_in, try_lock
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT = Path("taskbridge-data")
VARIABLE = "TASKBRIDGE_DATA_DIR"

_LOCK, _RUNNING = "bridge.lock", "running.json"
_EDGE_ALONE = Path("edge-data")
"""The default folder of an edge that runs without ``up``."""


@dataclass(frozen=True, slots=True)
class Running:
    bootstrap_servers: str
    registry_url: str
    edge_url: str
    streams_url: str
    center_url: str
    credentials: str
    webhooks_url: str | None = None
    endpoints_file: str | None = None


@dataclass(frozen=True, slots=True)
class DataFolder:
    path: Path
    is_named: bool
    """By an option or by ``TASKBRIDGE_DATA_DIR``: then no other folder is tried."""

    @property
    def edge(self) -> Path:
        """The folder of the edge; the folder itself for an edge without ``up``."""
        part = self.path / "edge"
        return part if part.is_dir() else self.path

    @property
    def is_bridges(self) -> bool:
        """Whether it belongs to a bridge, and not to an edge alone; a missing folder counts as a bridge's."""
        return (self.path / "edge").is_dir() or not self.path.is_dir()

    @property
    def credentials(self) -> Path:
        running = self.running()
        return Path(running.credentials) if running is not None else self.path / "credentials.toml"

    def running(self) -> Running | None:
        """The bridge that runs in it; None if none runs, even where a killed one left its files."""
        try:
            with (self.path / _LOCK).open("r") as lock:
                if try_lock(lock.fileno()):
                    return None
            return Running(**json.loads((self.path / _RUNNING).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def nothing_runs(self) -> str:
        """The error text for a command without an address that finds no bridge."""
        where, flag = (f"in {self.path}", f" --data-dir {self.path}") if self.is_named else ("here", "")
        return f"no bridge runs {where}; start it with 'taskbridge up{flag}'"

    def occupy(self) -> contextlib.ExitStack:
        """Lock the folder for one bridge, until the returned stack is closed.

        Raises ConfigurationError if another one runs in it.
        """
        if (running := self.running()) is not None:
            raise ConfigurationError(
                f"a bridge already runs in this folder (task center: {running.center_url}/); "
                "stop it first, or choose another --data-dir and other ports"
            )
        occupied = contextlib.ExitStack()
        occupied.enter_context(only_one_in(self.path, _LOCK, setting="--data-dir"))
        return occupied

    def announce(self, running: Running) -> None:
        """Let commands find the running bridge. Only its occupant may call this."""
        new = self.path / f"{_RUNNING}.new"
        new.write_text(json.dumps(asdict(running), indent=1), "utf-8")
        new.replace(self.path / _RUNNING)

    def forget(self) -> None:
        with contextlib.suppress(OSError):
            (self.path / _RUNNING).unlink()


def data_folder(given: Path | None = None, environment: Mapping[str, str] = os.environ) -> DataFolder:
    """The folder of the option, else ``TASKBRIDGE_DATA_DIR``, else the default of ``up``."""
    named = given or (Path(environment[VARIABLE]) if environment.get(VARIABLE) else None)
    return DataFolder(named or DEFAULT, is_named=named is not None)


def edge_folder(given: Path | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """The edge's folder: in that of the option, else ``EDGE_DATA_DIR``, else in that of ``up``, else the default."""
    if given is None and environment.get("EDGE_DATA_DIR"):
        return Path(environment["EDGE_DATA_DIR"])
    folder = data_folder(given, environment)
    return folder.edge if folder.is_named or folder.path.is_dir() else _EDGE_ALONE


def is_listened_on(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
