"""Headers and bytes of any record, also of one that is not ours."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from taskbridge.schemas.cloudevents import Header


class WithHeaders(Protocol):
    """A message of confluent_kafka, for who does not import that."""

    def headers(self) -> Any: ...


def headers_of(message: WithHeaders) -> list[Header]:
    """In their order; one without a value is empty."""
    return [(name, value or b"") for name, value in cast("list[tuple[str, bytes | None]]", message.headers() or [])]


def text_of(value: Any) -> str | None:
    """Bytes as text, or as base64 where they are none."""
    if value is None or isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()
