"""Callbacks as Yida would sign and post them, to an app in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.edge.sender import encode_callback, signed
from taskbridge.edge.testing import SYSTEM_TOKEN, parameters_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2
    from starlette.testclient import TestClient

    from taskbridge.edge.sender import Encoding


def good(wire_action: str = "complete", token: str = SYSTEM_TOKEN) -> dict[str, str]:
    """The parameters of one callback, signed."""
    return signed(parameters_of(wire_action, instance_id="inst-1"), system_token=token)


def send(
    client: TestClient,
    wire_action: str,
    parameters: Mapping[str, str],
    encoding: Encoding = "json",
    headers: Mapping[str, str] | None = None,
) -> httpx2.Response:
    encoded = encode_callback(parameters, encoding)
    path = f"/yida/tasks/{wire_action}?{encoded.query}"
    return client.post(path, content=encoded.body, headers={**encoded.headers, **(headers or {})})
