"""Encodes callbacks as Yida and other systems send them, for the command line, tests and benchmarks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import urlencode

import multipart

from taskbridge.edge.verification.signature import SIGN, sign
from taskbridge.runtime import standard_webhooks
from taskbridge.schemas.cloudevents import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

Encoding = Literal["json", "form", "multipart", "query"]

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)


@dataclass(frozen=True, slots=True)
class EncodedCallback:
    """What goes into a POST request."""

    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


def signed(parameters: Mapping[str, str], *, system_token: str) -> dict[str, str]:
    """The parameters with Yida's signature, which replaces an existing one."""
    return {**parameters, SIGN: sign(parameters, system_token=system_token)}


def encode_callback(parameters: Mapping[str, str], encoding: Encoding) -> EncodedCallback:
    """The parameters in one of the encodings that the edge accepts."""
    if encoding == "query":
        return EncodedCallback(query=urlencode(parameters))
    if encoding == "form":
        return _with_body("application/x-www-form-urlencoded", urlencode(parameters).encode())
    if encoding == "json":
        return _with_body("application/json", json.dumps(parameters, ensure_ascii=False).encode())
    # Derived from the parameters, so that the same callback has the same bytes.
    boundary = "taskbridge-" + hashlib.sha256(repr(sorted(parameters.items())).encode()).hexdigest()[:32]
    disposition = "Content-Disposition: form-data; name="
    parts = (
        f"--{boundary}\r\n{disposition}{multipart.content_disposition_quote(key)}\r\n\r\n{value}\r\n"
        for key, value in parameters.items()
    )
    return _with_body(f"multipart/form-data; boundary={boundary}", ("".join(parts) + f"--{boundary}--\r\n").encode())


def signed_message(
    data: Mapping[str, Any], *, source: str, action: str, secret: str, message_id: str, at_ms: int, binary: bool = False
) -> EncodedCallback:
    """The data as a CloudEvent of this time, in structured or binary mode, signed by Standard Webhooks."""
    attributes = {
        "specversion": "1.0",
        "id": message_id,
        "source": f"/{source}",
        "type": f"{source}.task.{action}",
        "time": rfc3339(at_ms),
    }
    if binary:
        headers = {"Content-Type": "application/json"} | {f"ce-{name}": value for name, value in attributes.items()}
        body = json.dumps(data, ensure_ascii=False).encode()
    else:
        headers = {"Content-Type": "application/cloudevents+json"}
        body = json.dumps({**attributes, "data": data}, ensure_ascii=False).encode()
    timestamp = str(at_ms // 1000)
    keys = [standard_webhooks.key_of(secret)]
    proof = standard_webhooks.signed_headers(message_id, timestamp, body, keys=keys)
    return EncodedCallback(headers=headers | proof, body=body)


def _with_body(content_type: str, body: bytes) -> EncodedCallback:
    return EncodedCallback(headers={"Content-Type": content_type}, body=body)
