"""Receive webhooks and write everybody's four lists to a SQLite file, each change once: a receiver to copy and change.

    WEBHOOK_SECRET=whsec_… python receiver.py PORT FILE

Ctrl-C and SIGTERM end it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from standardwebhooks import Webhook, WebhookVerificationError

if TYPE_CHECKING:
    from collections.abc import Generator

TABLES = """
CREATE TABLE IF NOT EXISTS seen (notification_id TEXT PRIMARY KEY, at INTEGER DEFAULT (unixepoch())) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    corp_id TEXT, user_id TEXT, view TEXT, instance_id TEXT, task_id TEXT, title TEXT, status TEXT, entered_at TEXT,
    PRIMARY KEY (corp_id, user_id, view, instance_id, task_id)
) WITHOUT ROWID;
DELETE FROM seen WHERE at < unixepoch() - 40 * 86400;  -- deliveries that were given up can be replayed for 30 days
"""
IS_NEW = "INSERT OR IGNORE INTO seen (notification_id) VALUES (?)"
PUT = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
TAKE_AWAY = "DELETE FROM entries WHERE (corp_id, user_id, view, instance_id, task_id) = (?, ?, ?, ?, ?)"


def apply(path: str, webhook_id: str, change: dict[str, Any]) -> None:
    """Change the lists and record the id in one transaction: a repeat changes nothing."""
    entry = (change["corp_id"], change["recipient_id"], change["view"], change["instance_id"], change["task_id"] or "")
    with opened(path) as file:
        if file.execute(IS_NEW, [webhook_id]).rowcount == 0:
            return
        if change["change"] == "REMOVED":
            file.execute(TAKE_AWAY, entry)
        else:
            file.execute(PUT, [*entry, change["title"], change["status"], change["entered_at"]])


@contextmanager
def opened(path: str) -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=10)) as file, file:
        yield file


def build(secret: str, path: str) -> FastAPI:
    app, webhook, turn = FastAPI(), Webhook(secret), asyncio.Lock()
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.executescript(TABLES)

    @app.post("/hooks/tasks", status_code=204)
    async def receive(request: Request) -> None:
        try:
            event = webhook.verify(await request.body(), dict(request.headers))
        except WebhookVerificationError as error:
            raise HTTPException(401, str(error)) from error
        # The answer comes after the work: what fails is sent again. One at a time, as SQLite has one writer, and lets
        # others wait without an order.
        async with turn:
            await run_in_threadpool(apply, path, request.headers["webhook-id"], event["data"])

    return app


if __name__ == "__main__":
    port, path = sys.argv[1:]
    uvicorn.run(build(os.environ["WEBHOOK_SECRET"], path), port=int(port), log_level="warning")
