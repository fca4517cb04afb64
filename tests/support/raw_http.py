"""Speaks HTTP byte by byte, as no well-behaved client does."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from taskbridge.edge.sender import encode_callback, signed
from taskbridge.edge.testing import SYSTEM_TOKEN, parameters_of


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


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


def read_all(connection: socket.socket, *, within_s: float = 10) -> bytes:
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


def ask(port: int, request: bytes) -> bytes:
    """The first answer to a request."""
    with connect(port) as connection:
        connection.sendall(request)
        return read_answer(connection)


def status_of(answer: bytes) -> int:
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
