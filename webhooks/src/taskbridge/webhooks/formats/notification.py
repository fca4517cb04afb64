"""``notification``: CloudEvents 1.0 JSON, signed by Standard Webhooks. https://www.standardwebhooks.com."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.runtime.standard_webhooks import signed_headers
from taskbridge.webhooks.formats.base import TRACEPARENT, Answer, Call, Sending

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


MEDIA_TYPE = "application/cloudevents+json; charset=utf-8"


def options(given: Mapping[str, Any], read: Callable[[str], str]) -> None:  # noqa: ARG001 - of all formats
    if given:
        raise ValueError("this format has none")


async def send(sending: Sending, call: Call) -> Answer:
    return await post_signed(sending, call, sending.event, MEDIA_TYPE)


async def post_signed(sending: Sending, call: Call, body: bytes, media_type: str) -> Answer:
    """Signed with each secret."""
    headers = {
        "content-type": media_type,
        **signed_headers(sending.webhook_id, str(sending.at_s), body, keys=sending.keys),
        **({} if (trace := sending.traceparent) is None else {TRACEPARENT: trace}),
    }
    return await call("POST", sending.url, headers, body)
