"""Receivers of reminders in threads: an SMTP server, and an HTTP server for robots and webhooks. Both can refuse."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import socketserver
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast

from taskbridge.local.host import LOOPBACK

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Generator
    from email.message import EmailMessage


@dataclass
class Mailbox:
    """What an SMTP server accepted, and how it behaves."""

    tls: ssl.SSLContext | None = None
    """For STARTTLS, or from the start."""
    from_start: bool = False
    password: str | None = None
    """Required of everybody; None lets everybody in."""
    refused: set[str] = field(default_factory=set[str])
    """Recipients that are refused."""
    received: list[EmailMessage] = field(default_factory=list["EmailMessage"])
    to: list[str] = field(default_factory=list[str])
    encrypted: list[bool] = field(default_factory=list[bool])
    accepted: Callable[[], None] = lambda: None
    """Called after a message is accepted, before the server says so."""
    port: int = 0


class _Smtp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        mailbox = cast("Any", self.server).mailbox
        encrypted, logged_in, recipient = mailbox.from_start, mailbox.password is None, ""
        if encrypted:
            self._encrypt(mailbox.tls)
        self._say("220 fake")
        while line := self.rfile.readline():
            command = line.decode().strip()
            verb = command[:4].upper()
            if verb == "EHLO":
                offers = ["250-fake", "250-AUTH PLAIN", *(["250-STARTTLS"] if mailbox.tls and not encrypted else [])]
                self._say("\r\n".join([*offers, "250 8BITMIME"]))
            elif verb == "STAR":
                self._say("220 go ahead")
                self._encrypt(mailbox.tls)
                encrypted = True
            elif verb == "AUTH":
                given = base64.b64decode(command.split()[2]).decode().split("\0")
                logged_in = given[2] == mailbox.password
                self._say("235 welcome" if logged_in else "535 wrong password")
            elif verb == "RCPT":
                recipient = command.partition("<")[2].partition(">")[0]
                self._say("550 nobody here" if recipient in mailbox.refused else "250 ok")
            elif verb == "DATA":
                self._say("354 go ahead")
                lines: list[bytes] = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line)
                message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                mailbox.received.append(message)
                mailbox.to.append(recipient)
                mailbox.encrypted.append(encrypted)
                mailbox.accepted()
                self._say("250 accepted")
            elif verb == "QUIT":
                self._say("221 bye")
                break
            else:
                self._say("250 ok" if logged_in else "530 log in first")
        self.connection.close()

    def _encrypt(self, tls: ssl.SSLContext) -> None:
        self.connection = self.request = tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True


@contextmanager
def smtp_server(mailbox: Mailbox) -> Generator[Mailbox]:
    with running(_Server((LOOPBACK, 0), _Smtp)) as server:
        server.mailbox = mailbox
        mailbox.port = server.server_address[1]
        yield mailbox


@dataclass
class Hook:
    """The requests that an HTTP server got, and its next answer."""

    status: int = 200
    answer: dict[str, Any] = field(default_factory=lambda: {"errcode": 0, "errmsg": "ok"})
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list[tuple[str, dict[str, str], bytes]])
    """Path, headers (in lower case) and body."""
    port: int = 0

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.requests]


class _Http(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        hook = cast("Any", self.server).hook
        body = self.rfile.read(int(self.headers["content-length"]))
        hook.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        answer = json.dumps(hook.answer).encode()
        self.send_response(hook.status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - of the library


@contextmanager
def http_server(hook: Hook, host: str = LOOPBACK) -> Generator[Hook]:
    with running(ThreadingHTTPServer((host, 0), _Http)) as server:
        server.hook = hook
        hook.port = server.server_address[1]
        yield hook


@contextmanager
def running(server: socketserver.TCPServer) -> Generator[Any]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
