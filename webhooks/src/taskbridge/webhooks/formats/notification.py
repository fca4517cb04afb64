"""``notification``: CloudEvents 1.0 JSON, signed by Standard Webhooks. https://www.standardwebhooks.com."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.runtime.standard_webhooks import signed_headers
from taskbridge.runtime.tracing import TRACEPARENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.webhooks.formats.base import Answer, Attempt, Call


MEDIA_TYPE = "application/cloudevents+json; charset=utf-8"


def options(given: Mapping[str, Any], read: Callable[[str], str]) -> None:  # noqa: ARG001 - of all formats
    if given:
        raise ValueError("this format has none")


async def send(attempt: Attempt, call: Call) -> Answer:
    return await post_signed(attempt, call, attempt.event, MEDIA_TYPE)


async def post_signed(attempt: Attempt, call: Call, body: bytes, media_type: str) -> Answer:
    """Signed with each secret."""
    headers = {
        "content-type": media_type,
        **signed_headers(attempt.webhook_id, str(attempt.at_s), body, keys=attempt.keys),
        **({} if (trace := attempt.traceparent) is None else {TRACEPARENT: trace}),
    }
    return await call("POST", attempt.url, headers, body)
