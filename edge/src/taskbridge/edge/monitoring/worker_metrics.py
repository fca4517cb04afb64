"""One scrape gives the metrics of all workers, whichever worker it reaches: each sample says whose it is.

See docs/adr/0011-metrics-of-all-workers.md for why it is not prometheus_client's multiprocess mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import zlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from prometheus_client import CollectorRegistry

WORKER = "worker"
WRITE_S = 2.0
"""How old another worker's numbers may be."""
_CHECKSUM_BYTES = 4
_ATTEMPTS = 5


class WorkerMetrics:
    """The metrics of this process, and of its fellow workers where there are any."""

    def __init__(self, registry: CollectorRegistry, *, folder: Path | None) -> None:
        """``folder`` is where the workers put their metrics; None where there is one worker only."""
        self._registry = registry
        self._folder = folder

    def exposition(self) -> bytes:
        """In Prometheus' text format. With several workers each sample has the label ``worker``, a process id.

        This process' own come from its file too: a counter must not seem to run backwards when the next scrape reaches
        another worker.
        """
        if self._folder is None:
            return generate_latest(self._registry)
        with contextlib.suppress(OSError):  # no room even for the first time
            self._write(self._folder)
        metrics = _read(self._folder)
        return generate_latest(SimpleNamespace(collect=lambda: metrics))  # type: ignore[arg-type]

    async def keep(self) -> None:
        """Put the metrics where the other workers find them, until cancelled."""
        while self._folder is not None:
            with contextlib.suppress(OSError):
                self._write(self._folder)
            await asyncio.sleep(WRITE_S)

    def _write(self, folder: Path) -> None:
        families = [
            [each.name, each.documentation, each.type, [[one.name, one.labels, one.value] for one in each.samples]]
            for each in self._registry.collect()
        ]
        text = json.dumps(families).encode()
        folder.mkdir(parents=True, exist_ok=True)
        # In place, with room to grow: when the disk has become full, the metrics must say so.
        descriptor = os.open(folder / f"{os.getpid()}.json", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size < len(text) + _CHECKSUM_BYTES:
                size = 2 * len(text)
                os.posix_fallocate(descriptor, 0, size)
            text = text.ljust(size - _CHECKSUM_BYTES)
            os.pwrite(descriptor, _checksum(text) + text, 0)
        finally:
            os.close(descriptor)


def clear_metrics(folder: Path) -> None:
    """Remove what earlier workers left. Only for when no worker runs yet.

    Raises:
        ConfigurationError: it cannot be removed.
    """
    try:
        for path in folder.glob("*.json"):
            path.unlink()
    except OSError as error:
        raise ConfigurationError(f"data folder {folder}: {error.strerror}") from error


def _read(folder: Path) -> Iterable[Metric]:
    merged: dict[str, Metric] = {}
    for path in sorted(folder.glob("*.json")):
        if not _lives(int(path.stem)):
            path.unlink(missing_ok=True)
            continue
        for name, documentation, kind, samples in _families_in(path):
            metric = merged.setdefault(name, Metric(name, documentation, kind))
            metric.samples += [Sample(one, {**labels, WORKER: path.stem}, value) for one, labels, value in samples]
    return merged.values()


def _families_in(path: Path) -> list[Any]:
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):  # removed by another scrape
            written = path.read_bytes()
            if written[:_CHECKSUM_BYTES] == _checksum(written[_CHECKSUM_BYTES:]):
                return json.loads(written[_CHECKSUM_BYTES:])
    return []


def _checksum(text: bytes) -> bytes:
    """A file that is just being written has another."""
    return zlib.crc32(text).to_bytes(_CHECKSUM_BYTES, "little")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
