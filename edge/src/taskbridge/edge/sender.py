"""Encodes a callback in each way that Yida might send it; for the command line, tests and benchmarks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import urlencode

import multipart

from taskbridge.edge.verification.signature import SIGN, sign

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
    """The parameters with the signature that Yida would add; one that is already there is replaced."""
    return {**parameters, SIGN: sign(parameters, system_token=system_token)}


def encode_callback(parameters: Mapping[str, str], encoding: Encoding) -> EncodedCallback:
    """The parameters in one of the encodings that the edge accepts."""
    if encoding == "query":
        return EncodedCallback(query=urlencode(parameters))
    if encoding == "form":
        return _with_body("application/x-www-form-urlencoded", urlencode(parameters).encode())
    if encoding == "json":
        return _with_body("application/json", json.dumps(parameters, ensure_ascii=False).encode())
    # Made of what it separates, so that the same callback is the same bytes.
    boundary = "taskbridge-" + hashlib.sha256(repr(sorted(parameters.items())).encode()).hexdigest()[:32]
    disposition = "Content-Disposition: form-data; name="
    parts = (
        f"--{boundary}\r\n{disposition}{multipart.content_disposition_quote(key)}\r\n\r\n{value}\r\n"
        for key, value in parameters.items()
    )
    return _with_body(f"multipart/form-data; boundary={boundary}", ("".join(parts) + f"--{boundary}--\r\n").encode())


def _with_body(content_type: str, body: bytes) -> EncodedCallback:
    return EncodedCallback(headers={"Content-Type": content_type}, body=body)
