"""A client of server-sent events, as a browser is: it reads in a thread, keeps ids, and can be cut and come back."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class EventStreamClient:
    url: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    last_event_id: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Of each notification its data, and when it came as ``_at``."""
    resets: list[str] = field(default_factory=list[str])
    comments: list[str] = field(default_factory=list[str])
    status: int | None = None
    body: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    def open(self) -> EventStreamClient:
        """Connect, and return when the first bytes are here."""
        self.ended.clear()
        at = urlsplit(self.url)
        assert at.hostname is not None
        self._connection = http.client.HTTPConnection(at.hostname, at.port, timeout=30)
        self._connection.connect()
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(f"{at.path}?{at.query}",), daemon=True)
        self._thread.start()
        assert self._opened.wait(20)
        return self

    def cut(self) -> None:
        """As when the network goes: the id is kept. Nothing where it has ended."""
        with contextlib.suppress(OSError, AttributeError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def wait_for(self, count: int, *, within_s: float = 30) -> list[dict[str, Any]]:
        deadline = time.monotonic() + within_s
        while len(self.events) < count:
            assert time.monotonic() < deadline, f"{len(self.events)} of {count} events, {self.comments} {self.body}"
            time.sleep(0.005)
        return self.events

    def _read(self, target: str) -> None:
        headers = {**self.headers, **({"Last-Event-ID": self.last_event_id} if self.last_event_id else {})}
        # However a connection ends, an event stream goes on from its last id.
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(self._connection):
            self._connection.request("GET", target, headers=headers)
            with self._connection.getresponse() as response:
                self.status = response.status
                if response.status != 200:
                    self.body = response.read().decode()
                else:
                    self._parse(response)
        self._opened.set()
        self.ended.set()

    def _parse(self, response: http.client.HTTPResponse) -> None:
        name, event_id, data = "", None, list[str]()
        while raw := response.readline():
            line = raw.decode().rstrip("\n")
            field_name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if line == "":
                self.last_event_id = event_id if event_id is not None else self.last_event_id
                if data and name == "notification":
                    self.events.append({**json.loads("\n".join(data)), "_at": time.perf_counter()})
                elif data and name == "reset":
                    self.resets.append("\n".join(data))
                name, event_id, data = "", None, []
            elif field_name == "":
                self.comments.append(value)
            elif field_name == "event":
                name = value
            elif field_name == "id":
                event_id = value
            elif field_name == "data":
                data.append(value)
            self._opened.set()
