"""Standard Webhooks: HMAC-SHA256 over a message's id, its timestamp and its body, https://www.standardwebhooks.com."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"

PREFIX = "whsec_"
MIN_KEY_BYTES, MAX_KEY_BYTES = 24, 64
TOLERANCE_S = 5 * 60
"""How far a message's timestamp may be from its receipt, in both directions."""

_VERSION = "v1"
_MAX_SIGNATURES = 16
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)


def key_of(secret: str) -> bytes:
    """The key of a secret. ValueError, if it is invalid, does not repeat it."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ValueError(f"must be {PREFIX} and {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes in base64")
    return key


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def signed_headers(message_id: str, timestamp: str, body: bytes, *, keys: Iterable[bytes]) -> dict[str, str]:
    """The headers of a message: one signature for each key, so that a receiver may have any of them."""
    signatures = [signature(message_id, timestamp, body, key=each) for each in keys]
    return {ID: message_id, TIMESTAMP: timestamp, SIGNATURE: " ".join(signatures)}


def signature(message_id: str, timestamp: str, body: bytes, *, key: bytes) -> str:
    """One signature for ``webhook-signature``."""
    return _signature(_signed(message_id, timestamp, body), key)


def is_timely(timestamp: str, *, received_at: int) -> bool:
    """Whether it is whole seconds since 1970 and no more than TOLERANCE_S from ``received_at``, which is ms."""
    return bool(_SECONDS.fullmatch(timestamp)) and abs(int(timestamp) * 1000 - received_at) <= TOLERANCE_S * 1000


def matching(message_id: str, timestamp: str, body: bytes, *, keys: Iterable[bytes], signatures: str) -> list[bool]:
    """For each key, whether it made one of the space-separated signatures.

    All are compared, in constant time. Signatures of other versions are ignored, and so are all after the first few.
    """
    content = _signed(message_id, timestamp, body)
    given = [each.encode("latin-1") for each in signatures.split(" ", _MAX_SIGNATURES)[:_MAX_SIGNATURES]]
    found: list[bool] = []
    for key in keys:
        own = _signature(content, key).encode()
        found.append(sum(hmac.compare_digest(own, each) for each in given) > 0)
    return found


def _signed(message_id: str, timestamp: str, body: bytes) -> bytes:
    return f"{message_id}.{timestamp}.".encode("latin-1") + body  # headers are decoded as Latin-1


def _signature(content: bytes, key: bytes) -> str:
    return f"{_VERSION},{base64.b64encode(hmac.digest(key, content, 'sha256')).decode()}"
