"""Inspect, verify and deliver the spool, while the edge runs or without it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from taskbridge.cli.data_folder import edge_folder
from taskbridge.cli.terminal import Heartbeat, Progress
from taskbridge.edge.errors import NotDurable
from taskbridge.edge.kafka.record import RowDamaged, record_of
from taskbridge.edge.publisher import SPOOL_FOLDER
from taskbridge.edge.spool.folder import SpoolFolder
from taskbridge.edge.spool.recovery import examine
from taskbridge.edge.spool.spools import is_requeue_requested, request_requeue
from taskbridge.edge.spool.store import REFUSED, TOO_LARGE, read_only
from taskbridge.schemas.cloudevents import rfc3339, text_of
from taskbridge.schemas.errors import ConfigurationError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_POLL_S = 0.2
_RESTART_S = 15.0
"""How long an edge that restarts may be away."""
_NOTHING: Mapping[str, Any] = {
    "file": "",
    "owner": None,
    "records": 0,
    "bytes": 0,
    "oldest_age_s": 0.0,
    "set_aside": {},
    "problem": None,
}
"""The status of a file: ``owner`` is the process that writes it, ``set_aside`` has the undeliverable by reason."""


def spool_folder(data_dir: Path | None, environment: Mapping[str, str] = os.environ) -> SpoolFolder:
    """The spool in the edge's data folder. Raises ConfigurationError if the folder has no spool."""
    folder = edge_folder(data_dir, environment)
    if (folder / SPOOL_FOLDER).is_dir():
        return SpoolFolder(folder / SPOOL_FOLDER)
    raise ConfigurationError(f"there is no spool in {folder}: check --data-dir")


def status(folder: SpoolFolder) -> list[dict[str, Any]]:
    """The status of each file, then of the damaged files that were moved aside. Changes nothing."""
    found = [_status_of(folder, number) for number in folder.numbers()]
    problem = "damaged and moved aside; its intact records were recovered"
    return found + [
        {**_NOTHING, "file": path.name, "bytes": path.stat().st_size, "problem": problem} for path in folder.damaged()
    ]


def verify(folder: SpoolFolder, progress: Progress) -> list[dict[str, Any]]:
    """Check each file by SQLite's integrity check, and by the checksums of the log and of every row."""
    found: list[dict[str, Any]] = []
    for number in folder.numbers():
        path = folder.file(number)
        progress(f"checking {path}")
        problem, damaged, rows = None, list[int](), 0
        try:
            # The log of a file in use changes while it is read; its owner checked it at its start.
            problem = examine(path) if folder.owner(number) is None else None
            if problem is None:
                with contextlib.closing(read_only(path)) as reading:
                    answer = reading.execute("PRAGMA integrity_check(1)").fetchone()[0]
                    problem = None if answer == "ok" else str(answer)
                    for row in reading.execute("SELECT * FROM records ORDER BY position"):
                        rows += 1
                        try:
                            record_of(row)
                        except (RowDamaged, ValueError, TypeError):
                            damaged.append(row[0])
        except (sqlite3.Error, NotDurable) as error:
            problem = str(error)
        found.append({"file": path.name, "records": rows, "damaged_positions": damaged, "problem": problem})
    return found


def replay(folder: SpoolFolder, *, progress: Progress, stopped: Callable[[], bool]) -> int:
    """Have the edge retry what Kafka refused, and wait until nothing is on its way; returns the number of records left.

    Records that Kafka refuses again are left. Raises OperatorError if for longer than a restart takes no edge runs on
    the folder, which delivers its spool, and what is requested here, at its start; or if files cannot be read for so
    long: nobody knows what they hold.
    """
    folder.prepare()
    for number in folder.numbers():
        if _refused(_status_of(folder, number)):
            request_requeue(folder.file(number))
    heartbeat, moved_s = Heartbeat(progress), time.monotonic()
    while True:
        # In this order: a record to be retried is counted before its request for it is removed.
        asked_back = any(is_requeue_requested(folder.file(number)) for number in folder.numbers())
        found = [_status_of(folder, number) for number in folder.numbers()]
        waiting = sum(each["records"] for each in found)
        left = waiting + sum(map(_refused, found))
        # One that an edge has removed meanwhile was empty.
        unread = [as_line(each) for each in found if each["problem"] and (folder.path / each["file"]).exists()]
        if stopped() or not (waiting or asked_back or unread):
            return left
        # Of process 0 is a file whose lock does not say which process has it: the disk may be full.
        is_owned = any(each["owner"] is not None for each in found)
        if is_owned and (waiting or asked_back):
            moved_s = time.monotonic()
        elif time.monotonic() - moved_s >= _RESTART_S:
            if is_owned:
                raise OperatorError(f"some files cannot be read: {'; '.join(unread)}")
            raise OperatorError(f"no edge runs on {folder.path}: start one on this data folder; it delivers the spool")
        heartbeat.beat(f"the edge delivers the spool, {left} records left")
        time.sleep(_POLL_S)


def _refused(status: Mapping[str, Any]) -> int:
    """How many records Kafka refused: those that an edge tries again on request."""
    return sum(status["set_aside"].get(reason, 0) for reason in (TOO_LARGE, REFUSED))


def _status_of(folder: SpoolFolder, number: int) -> dict[str, Any]:
    path = folder.file(number)
    found = {**_NOTHING, "file": path.name, "owner": folder.owner(number)}
    try:
        with contextlib.closing(read_only(path)) as reading:
            records, size, oldest = reading.execute(
                "SELECT count(*), coalesce(sum(length(body) + length(headers) + length(key) + 256), 0),"
                " coalesce(min(created_at), 0) FROM records"
            ).fetchone()
            set_aside = dict(reading.execute("SELECT reason, count(*) FROM set_aside GROUP BY reason"))
    except sqlite3.Error as error:
        return found | {"problem": f"cannot be read: {error}"}
    age = max(0.0, round(time.time() - oldest / 1e9, 1)) if oldest else 0.0
    return found | {"records": records, "bytes": size, "oldest_age_s": age, "set_aside": set_aside}


def set_aside(folder: SpoolFolder) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = "SELECT position, created_at, topic, key, length(body), reason FROM set_aside ORDER BY position"
    for number in folder.numbers():
        path = folder.file(number)
        try:
            with contextlib.closing(read_only(path)) as reading:
                for position, created_at, topic, key, size, reason in reading.execute(query):
                    found.append({
                        "id": f"{path.stem}-{position}",
                        "created_at": rfc3339(created_at // 1_000_000) if isinstance(created_at, int) else None,
                        "topic": topic,
                        "key": text_of(key),
                        "bytes": size,
                        "reason": reason,
                    })  # fmt: skip
        except sqlite3.Error as error:
            raise OperatorError(f"{path} cannot be read: {error}") from error
    return found


def as_line(status: Mapping[str, Any]) -> str:
    owner = "no owner" if status["owner"] is None else f"process {status['owner'] or '?'}"
    aside = "".join(f", {count} set aside as {reason}" for reason, count in status["set_aside"].items())
    size = f"{status['records']} records, {status['bytes']} bytes, oldest {status['oldest_age_s']} s{aside}"
    return f"{status['file']:12}  {owner:14}  {status['problem'] or size}"
