"""Write everybody's four lists to a SQLite file, each change once: a subscriber to copy and change.

    python subscriber.py BOOTSTRAP_SERVERS REGISTRY_URL FILE

Start it twice with the same file: the two share the work. Ctrl-C and SIGTERM end it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import sys
from typing import TYPE_CHECKING

from taskbridge.client.source import Kafka
from taskbridge.client.subscription import subscribe
from taskbridge.schemas.events import Change, View

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskNotification

TABLES = """
CREATE TABLE IF NOT EXISTS seen (notification_id TEXT PRIMARY KEY, at INTEGER DEFAULT (unixepoch())) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    corp_id TEXT, user_id TEXT, view TEXT, instance_id TEXT, task_id TEXT, title TEXT, status TEXT, entered_at INTEGER,
    PRIMARY KEY (corp_id, user_id, view, instance_id, task_id)
) WITHOUT ROWID;
DELETE FROM seen WHERE at < unixepoch() - 8 * 86400;  -- the topic keeps seven days
"""
IS_NEW = "INSERT OR IGNORE INTO seen (notification_id) VALUES (?)"
PUT = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
TAKE_AWAY = "DELETE FROM entries WHERE (corp_id, user_id, view, instance_id, task_id) = (?, ?, ?, ?, ?)"


def apply(file: sqlite3.Connection, told: TaskNotification) -> None:
    """Change the lists and record the id in one transaction: a repeat changes nothing."""
    # In SQL no two nulls are equal, and an entry about a whole instance has no task.
    entry = (told.corp_id, told.recipient_id, told.view, told.instance_id, told.task_id or "")
    with file:
        if file.execute(IS_NEW, [told.notification_id]).rowcount == 0:
            return
        if told.change is Change.REMOVED:
            file.execute(TAKE_AWAY, entry)
        elif told.change is not Change.UNKNOWN and told.view is not View.UNKNOWN:  # those are of a newer version
            file.execute(PUT, [*entry, told.title, told.status, told.entered_at])


async def main(bootstrap_servers: str, registry_url: str, path: str) -> None:
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    with contextlib.closing(sqlite3.connect(path, timeout=60, check_same_thread=False)) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.executescript(TABLES)
        async for told in subscribe(Kafka(bootstrap_servers, registry_url), group="example-python"):
            await asyncio.to_thread(apply, file, told)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(main(*sys.argv[1:]))
