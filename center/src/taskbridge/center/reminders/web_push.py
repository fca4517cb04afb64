"""Web Push: what is sent to a device, encrypted for it, and signed by the organisation's key.

RFC 8030 (delivery), 8291 (encryption) and 8292 (VAPID). ``pywebpush`` would bring requests, aiohttp and an sdist-only
package for what ``cryptography`` and ``joserfc`` do here in a few lines.
"""

from __future__ import annotations

import os
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from joserfc import jwt
from joserfc.jwk import ECKey

_CURVE = ec.SECP256R1()
_POINT_BYTES, _AUTH_BYTES = 65, 16
_RECORD_BYTES = 4096
_SIGNED_S = 12 * 3600
_LASTS_S = 4 * 3600
"""How long a push service keeps a message for a device that is off."""


class Device(NamedTuple):
    """Where a person turned it on: what the browser says of its subscription."""

    token_sha256: str
    """Of the session."""
    endpoint: str
    p256dh: str
    auth: str


class PushKey:
    """The organisation's key pair, and whom push services may write to."""

    def __init__(self, pem: str, subject: str) -> None:
        """Raises ValueError if it is no private key of this curve."""
        try:
            found = load_pem_private_key(pem.encode(), None)
        except (TypeError, UnsupportedAlgorithm) as error:
            raise ValueError("no private key without a password") from error
        if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name != _CURVE.name:
            raise ValueError("no key of P-256")
        self.public = encoded(_point(found.public_key()))
        self._key, self._subject = ECKey.import_key(pem), subject

    def headers(self, endpoint: str) -> dict[str, str]:
        """The proof for a push service that these messages are the organisation's, and how it is to treat them."""
        parts = urlsplit(endpoint)
        claims = {
            "aud": f"{parts.scheme}://{parts.netloc}",
            "exp": int(time.time()) + _SIGNED_S,
            "sub": self._subject,
        }
        token = jwt.encode({"alg": "ES256", "typ": "JWT"}, claims, self._key, algorithms=["ES256"])
        return {
            "authorization": f"vapid t={token}, k={self.public}",
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "ttl": str(_LASTS_S),
            "urgency": "high",
        }


def new_key() -> str:
    """PEM, for the administrator's file."""
    key = ec.generate_private_key(_CURVE)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def check_keys(p256dh: str, auth: str) -> None:
    """Raise ValueError if a browser's keys are none."""
    _, secret = _public(p256dh), decoded(auth)
    if len(secret) != _AUTH_BYTES:
        raise ValueError("auth must have 16 bytes")


def encrypted(
    content: bytes, device: Device, *, salt: bytes | None = None, key: ec.EllipticCurvePrivateKey | None = None
) -> bytes:
    """One record that this device alone can read. ``salt`` and ``key`` are for the example of the standard."""
    key, salt = key or ec.generate_private_key(_CURVE), salt or os.urandom(16)
    theirs, ours = decoded(device.p256dh), _point(key.public_key())
    shared = key.exchange(ec.ECDH(), _public(device.p256dh))
    secret = _derived(shared, decoded(device.auth), b"WebPush: info\0" + theirs + ours, 32)
    content_key = _derived(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _derived(secret, salt, b"Content-Encoding: nonce\0", 12)
    head = salt + _RECORD_BYTES.to_bytes(4, "big") + bytes([_POINT_BYTES]) + ours
    return head + AESGCM(content_key).encrypt(nonce, content + b"\2", None)


def encoded(value: bytes) -> str:
    return urlsafe_b64encode(value).decode().rstrip("=")


def decoded(text: str) -> bytes:
    """Raises ValueError."""
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))


def _derived(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(secret)


def _public(text: str) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, decoded(text))


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
