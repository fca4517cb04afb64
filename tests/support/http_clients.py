"""HTTP clients for services under test: cheap GET, HTTP byte by byte, and server-sent events.

A new client of httpx2 reads all CA certificates, which takes some 20 ms of CPU: a test that polls ten times a second
would use a fifth of a core for that.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx2

from support.edge.fakes import SYSTEM_TOKEN, parameters_of
from taskbridge.edge.sender import encode_callback, signed

_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

_OPTIONS: Any = {"trust_env": False, "verify": _NO_CERTIFICATES, "timeout": 60}
"""A disk or a machine may stand still for a quarter of a minute: that alone fails no test."""
get = partial(httpx2.get, **_OPTIONS)
"""As ``httpx2.get``, without the certificates and without the environment's proxies."""
post = partial(httpx2.post, **_OPTIONS)
client = partial(httpx2.Client, **_OPTIONS)
"""The same for several requests."""


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def callback(instance_id: str = "inst-raw", *headers: str, task_id: str = "t-1", host: str = "edge") -> bytes:
    """A good callback, head and body."""
    encoded = encode_callback(
        signed(parameters_of("complete", instance_id=instance_id, task_id=task_id), system_token=SYSTEM_TOKEN), "json"
    )
    lines = [
        "POST /yida/tasks/complete HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(encoded.body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + encoded.body


def read_all(connection: socket.socket, *, within_s: float = 60) -> bytes:
    """What comes until the server closes; fails when it does not."""
    found = b""
    deadline = time.monotonic() + within_s
    with suppress(ConnectionResetError):
        while True:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            received = connection.recv(65536)
            if not received:
                break
            found += received
    return found


def read_answer(connection: socket.socket) -> bytes:
    """One answer with a Content-Length."""
    found = b""
    while b"\r\n\r\n" not in found:
        received = connection.recv(65536)
        assert received, found
        found += received
    head, _, body = found.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def exchange(port: int, request: bytes) -> bytes:
    """Send a request and return the first answer."""
    with connect(port) as connection:
        connection.sendall(request)
        return read_answer(connection)


def status_of(answer: bytes) -> int:
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


@dataclass
class EventStreamClient:
    """One connection after the other, in a thread, each from the last id."""

    url: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    last_event_id: str | None = None
    timeout_s: float = 30
    """Of silence."""
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
        self._connection = http.client.HTTPConnection(at.hostname, at.port, timeout=self.timeout_s)
        self._connection.connect()
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(f"{at.path}?{at.query}",), daemon=True)
        self._thread.start()
        assert self._opened.wait(60)
        return self

    def cut(self) -> None:
        """As when the network goes: the id stays. Does nothing after the end."""
        with contextlib.suppress(OSError, AttributeError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)

    def wait_for(self, count: int, *, within_s: float = 60) -> list[dict[str, Any]]:
        deadline = time.monotonic() + within_s
        while len(self.events) < count:
            assert time.monotonic() < deadline, f"{len(self.events)} of {count} events, {self.comments} {self.body}"
            time.sleep(0.005)
        return self.events

    def _read(self, target: str) -> None:
        headers = {**self.headers, **({"Last-Event-ID": self.last_event_id} if self.last_event_id else {})}
        # However a connection ends, an event stream resumes from its last id.
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

    def received(self, name: str, data: str) -> None:
        """An event, or an id alone with an empty name. Called in the reading thread; raises OSError to disconnect."""
        if name == "notification":
            self.events.append({**json.loads(data), "_at": time.perf_counter()})
        elif name == "reset":
            self.resets.append(data)

    def _parse(self, response: http.client.HTTPResponse) -> None:
        event: dict[str, str] = {}
        while raw := response.readline():
            field_name, _, value = raw.decode().rstrip("\n").partition(":")
            value = value.removeprefix(" ")
            if field_name:
                event[field_name] = value
            elif value:
                self.comments.append(value)
            elif event:
                self.received(event.get("event", ""), event.get("data", ""))
                self.last_event_id = event.get("id", self.last_event_id)
                event = {}
            self._opened.set()
