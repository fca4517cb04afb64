"""``notification``: CloudEvents 1.0 JSON, signed by Standard Webhooks. https://www.standardwebhooks.com."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.runtime.standard_webhooks import ID, SIGNATURE, TIMESTAMP, signature
from taskbridge.webhooks.formats.base import TRACEPARENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.webhooks.formats.base import Answer, Call, Sending

MEDIA_TYPE = "application/cloudevents+json; charset=utf-8"


def options(given: Mapping[str, Any], read: Callable[[str], str]) -> None:  # noqa: ARG001 - of all formats
    if given:
        raise ValueError("this format has none")


async def send(sending: Sending, call: Call) -> Answer:
    return await post_signed(sending, call, sending.event, MEDIA_TYPE)


async def post_signed(sending: Sending, call: Call, body: bytes, media_type: str) -> Answer:
    """One signature for each secret, so that a receiver may have any of them."""
    at = str(sending.at_s)
    signatures = [signature(sending.webhook_id, at, body, key=key) for key in sending.keys]
    headers = {
        "content-type": media_type,
        ID: sending.webhook_id,
        TIMESTAMP: at,
        SIGNATURE: " ".join(signatures),
        **({} if (trace := sending.traceparent) is None else {TRACEPARENT: trace}),
    }
    return await call("POST", sending.url, headers, body)
