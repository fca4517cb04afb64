"""CloudEvents 1.0 over HTTP: one event in JSON, in structured or in binary mode. Read only once it is proven."""

from __future__ import annotations

import base64
import binascii
from codecs import BOM_UTF8
from typing import TYPE_CHECKING
from urllib.parse import unquote

from taskbridge.edge.errors import Malformed, UnsupportedType
from taskbridge.edge.parsing import strict_json
from taskbridge.edge.parsing.forms import text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
DATA = "data"

_HEADER = "ce-"
_DATA_BASE64 = "data_base64"
_NEEDED = ("specversion", "id", "source", "type")
_VERSION = "1.0"


def attributes_of(headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """The attributes of the event, extensions too, and ``data``: JSON text exactly as it stands.

    The headers of binary mode are signed by nobody: what they say counts as it was said first.

    Raises:
        Malformed: it is no CloudEvent 1.0 in JSON with data, or something is given twice.
        UnsupportedType: a batch, or nothing that is JSON.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == BATCH:
        raise UnsupportedType("batch", "Batches are not supported. Send each event in its own request.")
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedType("content-type", f"Send {STRUCTURED}, or application/json with the ce- headers.")
    body = body.removeprefix(BOM_UTF8)
    if media_type == STRUCTURED or _HEADER + "specversion" not in headers:
        found = _structured(body)
    else:
        found = {
            name.removeprefix(_HEADER): unquote(value) for name, value in headers.items() if name.startswith(_HEADER)
        } | {DATA: text_of(body, "utf-8")}
    missing = [name for name in _NEEDED if not found.get(name, "").strip()]
    if missing or found["specversion"] != _VERSION:
        detail = f"Attribute {missing[0]} is missing." if missing else f"Attribute specversion must be {_VERSION}."
        raise Malformed("cloudevent", f"The request is not a CloudEvent {_VERSION}: {detail}")
    if DATA not in found:
        raise Malformed("cloudevent", "The event has no data.")
    return found


def members(text: str | bytes, what: str) -> dict[str, str | None]:
    """The members of a JSON object: texts, null, and the rest verbatim.

    Raises:
        Malformed: it is none that can be read, it has too many, or one of them twice.
    """
    try:
        return _once(strict_json.members(text))
    except ValueError as error:
        raise Malformed("json", f"{what} is not a JSON object: {error}.") from error


def _structured(body: bytes) -> dict[str, str]:
    found = {name: value for name, value in members(body, "the body").items() if value is not None}
    packed = found.pop(_DATA_BASE64, None)
    if packed is None:
        return found
    if DATA in found:
        raise Malformed("cloudevent", "The event has both data and data_base64.")
    try:
        return found | {DATA: text_of(base64.b64decode(packed, validate=True), "utf-8")}
    except (binascii.Error, ValueError) as error:
        raise Malformed("cloudevent", "data_base64 is not valid base64.") from error


def _once(pairs: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
    given = list(pairs)
    found = dict(given)
    if len(found) < len(given):
        raise Malformed("duplicate-key", "A member occurs twice.")
    return found
