"""A request as it arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping


class Received(Struct, frozen=True, kw_only=True, gc=False):
    """A request as it arrived, byte for byte: all that is needed to run it again."""

    wire_action: str
    received_at: int
    remote_address: str
    method: str
    path: str
    query: bytes
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    bearer_sha256: str | None = None
    """Of a request from the quarantine: the digest of its bearer token. Otherwise the header counts."""

    def __repr__(self) -> str:
        """Without what people wrote, and without tokens."""
        return f"Received({self.method} {self.path}, {len(self.body)} bytes from {self.remote_address})"
