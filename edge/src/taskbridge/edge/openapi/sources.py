"""What other systems post, for the OpenAPI document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from taskbridge.edge.callbacks import ACTIONS
from taskbridge.edge.formats.source_events import DATA_KEYS
from taskbridge.edge.openapi.answers import ANSWERS, an_id
from taskbridge.runtime.problems import documented
from taskbridge.schemas.registry import schema_text

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNKNOWN = {"404": documented(404, "The path names no known action.")}
_ONLY_HERE: Mapping[str, Mapping[str, Any]] = {
    "app_type": an_id("App in the other system; the same in all events of an instance.", "leave"),
    "instance_id": an_id(
        "The process instance. Topics and the API prefix it with the source's name and a colon.", "I-1"
    ),
    "task_id": an_id("The approval step; required for `complete` and `cancel`.", "T-1"),
    "corp_id": an_id("The corp. If present, it must be the source's own.", "ding5d17e3add038d445"),
    "recipient_ids": {"type": "array", "items": {"type": "string"}, "examples": [["manager02"]]},
    "actor_id": {"examples": ["manager02"]},
    "originator": {
        "type": "object",
        "properties": {"user_id": {"type": "string"}, "name": {"type": "string"}},
        "examples": [{"user_id": "manager01", "name": "王小明"}],
    },
    "title": {"examples": ["王小明发起的请假申请"]},
    "url": {"examples": ["https://flow.example/tasks/T-1"]},
    "process_name": {"examples": ["请假"]},
    "created_at": {"description": "When the instance began: ISO 8601, or ms or s since 1970."},
    "finished_at": {"description": "When it ended, in the same format."},
    "form_data": {"type": "object", "examples": [{"days": "3"}]},
}
"""Of the fields of an event, what the event's schema does not say."""
_OF_EVENTS = {field["name"]: field["doc"] for field in json.loads(schema_text("TaskEvent"))["fields"]}
_DATA_FIELDS: Mapping[str, Mapping[str, Any]] = {
    name: {"type": "string", "description": _OF_EVENTS[name], **_ONLY_HERE.get(name, {})} for name in DATA_KEYS
}
_DATA: Mapping[str, Any] = {
    "type": "object",
    "description": "What happened, with the names of a TaskEvent's own fields. Others are kept as they are.",
    "required": ["app_type", "instance_id"],
    "properties": _DATA_FIELDS,
}
_DATA_EXAMPLE = {name: found["examples"][0] for name, found in _DATA_FIELDS.items() if "examples" in found}

_ATTRIBUTES: Mapping[str, Mapping[str, Any]] = {
    "specversion": {"type": "string", "enum": ["1.0"], "description": "Of CloudEvents.", "examples": ["1.0"]},
    "id": {"type": "string", "description": "Id of the event.", "examples": ["E-1"]},
    "source": {
        "type": "string",
        "description": "Origin of the event: a URI or relative reference.",
        "examples": ["/flow"],
    },
    "type": {
        "type": "string",
        "description": "Type of the event. The edge uses the action in the path instead.",
        "examples": ["task.create"],
    },
    "time": {
        "type": "string",
        "format": "date-time",
        "description": "When it happened. Default: the time of receipt.",
        "examples": ["2023-08-31T06:07:42.502Z"],
    },
}
_NEEDED_ATTRIBUTES = ("specversion", "id", "source", "type")
_PROOF: Mapping[str, tuple[str, str, str]] = {
    "webhook-id": ("Id of the message. A retry must use the same id.", "^[!-~]{1,128}$", "msg_1"),
    "webhook-timestamp": (
        "Seconds since 1970. At most five minutes from the edge's clock.",
        "^[0-9]{10}$",
        "1693462062",
    ),
    "webhook-signature": (
        "`v1,` and HMAC-SHA256 in base64 over `id.timestamp.body`, by a secret of the source; several by spaces.",
        "^v1,[A-Za-z0-9+/]{43}=$",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ),
}


def _parameter(name: str, place: str, schema: Mapping[str, Any], description: str, *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema, "description": description}


_SOURCE = _parameter(
    "source",
    "path",
    {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,31}$", "examples": ["flow"]},
    "Name of the system in the credentials file.",
    required=True,
)
MESSAGE: dict[str, Any] = {
    "summary": "Another system reports a task",
    "description": "A CloudEvent 1.0 in JSON, in structured mode or in binary with the `ce-` headers, signed as "
    "Standard Webhooks says. Batches are not taken. Who is not proven is answered 401 whatever else is wrong.",
    "operationId": "source_task",
    "tags": ["callbacks"],
    "parameters": [
        _SOURCE,
        _parameter("action", "path", {"type": "string", "enum": list(ACTIONS)}, "What happened.", required=True),
        *(
            _parameter(name, "header", {"type": "string", "pattern": pattern, "examples": [shown]}, said, required=True)
            for name, (said, pattern, shown) in _PROOF.items()
        ),
        *(
            _parameter(f"ce-{name}", "header", found, f"Binary mode: {found['description']}", required=False)
            for name, found in _ATTRIBUTES.items()
        ),
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _DATA, "example": _DATA_EXAMPLE},
            "application/cloudevents+json": {
                "schema": {
                    "type": "object",
                    "required": [*_NEEDED_ATTRIBUTES, "data"],
                    "properties": {**_ATTRIBUTES, "data": _DATA},
                },
                "example": {**{name: each["examples"][0] for name, each in _ATTRIBUTES.items()}, "data": _DATA_EXAMPLE},
            },
        },
    },
    "responses": ANSWERS | _UNKNOWN,
}
PUSH: dict[str, Any] = {
    "summary": "Another system reports a task in its own format",
    "description": "That which the source's `format` names; what is posted says what happened. With an action at the "
    "end of the path, that says it. Signed as above, or with one of the source's `bearer_tokens`.",
    "operationId": "source_push",
    "tags": ["callbacks"],
    "parameters": [
        _SOURCE,
        _parameter(
            "Authorization",
            "header",
            {"type": "string", "pattern": "^Bearer [A-Za-z0-9._~+/=-]{32,}$"},
            "`Bearer` and a token, if the body is not signed.",
            required=False,
        ),
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {}},
                "example": {
                    "syscode": "expenses",
                    "flowid": "F-1",
                    "requestname": "差旅报销",
                    "workflowname": "报销流程",
                    "nodename": "直属领导",
                    "receiver": "manager02",
                    "creator": "manager01",
                    "receivets": "1693462062502",
                    "isremark": "0",
                    "viewtype": "0",
                    "pcurl": "https://oa.example/flow/F-1",
                },
            }
        },
    },
    "responses": ANSWERS | _UNKNOWN,
}
