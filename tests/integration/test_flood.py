"""Unsigned megabytes, as fast as three connections send them, and good callbacks at the same time.

``TASKBRIDGE_FLOOD_SECONDS`` makes it longer; ``-s`` shows how long the good ones waited.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Self

import pytest

from support.edge.expensive import Hostile, hostile
from support.edge.process import RunningEdge, wait_until
from support.http_clients import callback, connect, exchange, read_answer, status_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

SECONDS = float(os.environ.get("TASKBRIDGE_FLOOD_SECONDS", "3"))
SENDERS = 3


def encoded(request: Hostile) -> bytes:
    lines = [f"POST {request.prefix}/tasks/{request.action}?{request.query} HTTP/1.1", "Host: edge"]
    headers = {**request.headers, "webhook-timestamp": str(int(time.time()))}  # else it is refused before it is hashed
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(request.body)}", "", ""]).encode() + request.body


class Flood:
    """Sends them in turn until it is over, each sender on one connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._requests = [encoded(each) for each in hostile()]
        self._over = threading.Event()
        self._senders = [threading.Thread(target=self._send, args=(at,)) for at in range(SENDERS)]
        self.answers: list[int] = []

    def __enter__(self) -> Self:
        for each in self._senders:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._senders:
            each.join(60)

    def _send(self, at: int) -> None:
        with connect(self._port) as connection:
            while not self._over.is_set():
                connection.sendall(self._requests[at % len(self._requests)])
                self.answers.append(status_of(read_answer(connection)))
                at += SENDERS


def test_good_callbacks_are_accepted_during_a_flood_of_unsigned_megabytes(tmp_path: Path) -> None:
    nowhere = "127.0.0.1:1"  # the spool stores them: the measured part comes before it
    edge = RunningEdge(tmp_path, bootstrap_servers=nowhere, registry_url=f"http://{nowhere}")
    edge.start()
    waited: list[float] = []
    try:
        wait_until(lambda: edge.get("/healthz") is not None, what="the start")
        assert status_of(exchange(edge.port, callback("before"))) == 200
        with Flood(edge.port) as flood:
            ends_at = time.monotonic() + SECONDS
            while time.monotonic() < ends_at or not flood.answers:
                started = time.monotonic()
                assert status_of(exchange(edge.port, callback(f"good-{len(waited)}"))) == 200
                waited.append(time.monotonic() - started)
    finally:
        edge.stop()
    assert set(flood.answers) <= {400, 401, 413}
    half, most = sorted(waited)[len(waited) // 2], sorted(waited)[len(waited) * 99 // 100]
    good = f"{len(waited)} good ones during {len(flood.answers)} megabytes"
    print(f"{good}: half within {half * 1000:.0f} ms, 99 % within {most * 1000:.0f} ms")  # noqa: T201 - for a longer run
