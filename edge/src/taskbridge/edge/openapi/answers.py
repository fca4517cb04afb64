"""What the two doors have in common in the OpenAPI document: ids, and the answers."""

from __future__ import annotations

from typing import Any

from taskbridge.runtime.problems import documented

_ACCEPTED: dict[str, Any] = {
    "type": "object",
    "required": ["success", "eventId", "durability"],
    "properties": {
        "success": {"type": "boolean", "enum": [True]},
        "eventId": {"type": "string", "format": "uuid"},
        "durability": {"type": "string", "enum": ["kafka", "spool"]},
    },
    "examples": [{"success": True, "eventId": "47543d0d-2bce-59fc-a83f-e6a09c5817dc", "durability": "kafka"}],
}

_REFUSALS = {
    400: "The request cannot be parsed.",
    401: "The request is not verified as coming from a configured sender.",
    408: "The body did not arrive in time.",
    413: "The request is larger than the limit.",
    415: "The content type or character set is not accepted.",
    503: "The event cannot be stored now; retry after Retry-After.",
}
ANSWERS = {
    "200": {"description": "The event is stored durably.", "content": {"application/json": {"schema": _ACCEPTED}}}
} | {str(status): documented(status, meaning) for status, meaning in _REFUSALS.items()}


def an_id(description: str, example: str) -> dict[str, Any]:
    # What is taken is any printable text; this is what ids look like.
    return {"type": "string", "pattern": "^[!-~]{1,128}$", "description": description, "examples": [example]}
