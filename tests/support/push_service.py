"""A push service in a thread, and devices whose messages it can read: their keys are the tests'."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey

from support.receivers import running
from taskbridge.center.reminders.web_push import decoded, encoded
from taskbridge.local.host import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


@dataclass
class FakeDevice:
    """A browser's subscription."""

    endpoint: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    secret: bytes = field(default_factory=lambda: os.urandom(16))

    @property
    def p256dh(self) -> str:
        return encoded(self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))

    @property
    def given(self) -> dict[str, str]:
        """What the browser says of it."""
        return {"endpoint": self.endpoint, "p256dh": self.p256dh, "auth": encoded(self.secret)}

    def read(self, body: bytes) -> dict[str, Any]:
        """As a browser does: RFC 8188 and 8291."""
        salt, size, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
        theirs, sealed = body[21 : 21 + length], body[21 + length :]
        assert len(sealed) <= size == 4096
        shared = self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs))
        info = b"WebPush: info\0" + decoded(self.p256dh) + theirs
        secret = HKDF(SHA256(), 32, self.secret, info).derive(shared)
        key = HKDF(SHA256(), 16, salt, b"Content-Encoding: aes128gcm\0").derive(secret)
        nonce = HKDF(SHA256(), 12, salt, b"Content-Encoding: nonce\0").derive(secret)
        content = AESGCM(key).decrypt(nonce, sealed, None)
        assert content.endswith(b"\2")
        return json.loads(content[:-1])


@dataclass
class PushService:
    """What it got, and what it answers."""

    port: int = 0
    statuses: dict[str, int] = field(default_factory=dict[str, int])
    """By device; else 201."""
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    """Device and content."""
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    on_request: Callable[[], object] = lambda: None
    devices: dict[str, FakeDevice] = field(default_factory=dict[str, FakeDevice])

    def device(self, name: str) -> FakeDevice:
        return self.devices.setdefault(name, FakeDevice(f"http://{LOOPBACK}:{self.port}/{name}"))

    def post(self, name: str, headers: dict[str, str], body: bytes) -> int:
        self.on_request()
        status = self.statuses.get(name, 201)
        self.headers.append(headers)
        if status == 201:
            token, _, public = headers["authorization"].removeprefix("vapid t=").partition(", k=")
            point = decoded(public)
            key = ECKey.import_key({"kty": "EC", "crv": "P-256", "x": encoded(point[1:33]), "y": encoded(point[33:])})
            claims = jwt.decode(token, key, algorithms=["ES256"]).claims
            assert claims["aud"] == f"http://{LOOPBACK}:{self.port}"
            assert claims["sub"].startswith("mailto:")
            assert headers["content-encoding"] == "aes128gcm"
            self.received.append((name, self.devices[name].read(body)))
        return status


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        service = cast("Any", self.server).service
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.send_response(service.post(self.path.removeprefix("/"), headers, body))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - of the library


@contextmanager
def push_service() -> Generator[PushService]:
    with running(ThreadingHTTPServer((LOOPBACK, 0), _Handler)) as server:
        server.service = PushService(server.server_address[1])
        yield server.service
