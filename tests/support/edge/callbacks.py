"""Callbacks as Yida would sign and post them, and messages as another system would, to an app in this process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from support.edge.fakes import SOURCE, SOURCE_SECRET, SYSTEM_TOKEN, message_of, parameters_of
from taskbridge.edge.sender import encode_callback, signed, signed_message

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

    from support.edge.client import EdgeClient
    from taskbridge.edge.sender import EncodedCallback, Encoding


def good(wire_action: str = "complete", token: str = SYSTEM_TOKEN) -> dict[str, str]:
    """The parameters of one callback, signed."""
    return signed(parameters_of(wire_action, instance_id="inst-1"), system_token=token)


def send(
    client: EdgeClient,
    wire_action: str,
    parameters: Mapping[str, str],
    encoding: Encoding = "json",
    headers: Mapping[str, str] | None = None,
) -> httpx2.Response:
    encoded = encode_callback(parameters, encoding)
    path = f"/yida/tasks/{wire_action}?{encoded.query}"
    return client.post(path, content=encoded.body, headers={**encoded.headers, **(headers or {})})


def message(
    wire_action: str = "complete",
    data: Any = None,
    *,
    secret: str = SOURCE_SECRET,
    message_id: str = "msg_1",
    ago_s: int = 0,
    binary: bool = False,
) -> EncodedCallback:
    """What SOURCE signed so many seconds ago."""
    return signed_message(
        message_of(wire_action, instance_id="I-1") if data is None else data,
        source=SOURCE,
        action=wire_action,
        secret=secret,
        message_id=message_id,
        at_ms=time.time_ns() // 1_000_000 - 1000 * ago_s,
        binary=binary,
    )


def post_message(
    client: EdgeClient, wire_action: str, sent: EncodedCallback, headers: Mapping[str, str] | None = None
) -> httpx2.Response:
    path = f"/sources/{SOURCE}/tasks/{wire_action}"
    return client.post(path, content=sent.body, headers={**sent.headers, **(headers or {})})
