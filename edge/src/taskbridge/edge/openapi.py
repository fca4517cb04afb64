"""The requests of callbacks in the edge's OpenAPI document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from taskbridge.edge.callbacks import ACTIONS
from taskbridge.edge.source_events import DATA_KEYS
from taskbridge.runtime.problems import documented
from taskbridge.schemas.registry import schema_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    Schemas = Mapping[str, Mapping[str, Any]]

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
_ANSWERS = {
    "200": {"description": "The event is stored durably.", "content": {"application/json": {"schema": _ACCEPTED}}}
} | {str(status): documented(status, meaning) for status, meaning in _REFUSALS.items()}
_ANSWERS_OF_SOURCES = _ANSWERS | {"404": documented(404, "The path names no known action.")}


def _text(description: str, example: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, "examples": [example], **more}


def _id(description: str, example: str) -> dict[str, Any]:
    return _text(description, example, pattern="^[!-~]{1,128}$")  # any printable text is accepted; ids look like this


def _examples(schemas: Schemas) -> dict[str, Any]:
    return {name: each["examples"][0] for name, each in schemas.items() if "examples" in each}


def _parameter(name: str, place: str, schema: Mapping[str, Any], *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema, "description": schema["description"]}


# Callbacks of Yida.

_TASK: dict[str, Any] = {
    "appType": "APP_RY60OCRF33Z7534",
    "corpId": "ding5d17e3add038d445",
    "formInstanceId": "f30233fb-72e1-4af4-8cb8-c7e0ea9ee530",
    "taskId": "TASK-1",
    "title": "王小明发起的请假申请",
    "originatorId": "manager01",
    "originatorDisplayName": "王小明",
    "actionerId": ["manager02"],
    "dataMap": {"days": "3", "reason": None},
}
_PARAMETERS: Schemas = {
    "appType": _id("The app.", _TASK["appType"]),
    "corpId": _id("The organisation.", _TASK["corpId"]),
    "formInstId": _id("The process instance: 1 to 128 printable characters.", _TASK["formInstanceId"]),
    "taskId": _id("The approval step.", _TASK["taskId"]),
    "actualWorkId": _text("Who handled it.", "manager02"),
    "actionerId": _text("Who is copied in.", "manager02"),
    "task": _text(
        "The task or instance, as JSON text. The signature covers this text unchanged.",
        json.dumps(_TASK, ensure_ascii=False),
        contentMediaType="application/json",
    ),
    "dateTime": _text(
        "When it happened: 13-digit ms, 10-digit s, `yyyy-MM-dd HH:mm:ss` (Asia/Shanghai) or ISO 8601.", "1693462062502"
    ),
    "sign": _text(
        "MD5 (hex) of the values of all other parameters, ordered by key, and the app's token.",
        "0a32735262fc24f232651cdac468573b",
        pattern="^[0-9A-Fa-f]{32}$",
    ),
}
_OF_ACTION: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "create": (("task",), ("dateTime",)),
    "complete": (("appType", "corpId", "formInstId", "taskId"), ("actualWorkId", "dateTime")),
    "cancel": (("appType", "corpId", "formInstId", "taskId"), ("actualWorkId", "dateTime")),
    "delete": (("appType", "corpId", "formInstId"), ("dateTime",)),
    "cc": (("appType", "corpId", "formInstId"), ("taskId", "actionerId", "dateTime", "task")),
}
"""Action → its required parameters besides ``sign``, and its optional ones."""
_MEDIA_TYPES = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
_BEARER = "HTTPBearer"


def _callback(wire_action: str, *, bearer_needed: bool) -> dict[str, Any]:
    needed, optional = _OF_ACTION[wire_action]
    shown = {name: _PARAMETERS[name] for name in (*needed, *optional, "sign")}
    example = _examples({name: each for name, each in shown.items() if (wire_action, name) != ("cc", "task")})
    schema = {
        "type": "object",
        "required": [*needed, "sign"],
        "properties": shown,
        "additionalProperties": {"type": "string"},
    }
    content = {"schema": schema, "example": example}
    return {
        "summary": f"Yida reports: {ACTIONS[wire_action].lower()}",
        "description": "Parameters may be in the body, in the query string, or in both, each once. "
        "Other parameters are accepted and signed too; for `delete` only those of EDGE_DELETE_EXTRA_KEYS.",
        "operationId": f"yida_task_{wire_action}",
        "tags": ["callbacks"],
        "requestBody": {"required": True, "content": dict.fromkeys(_MEDIA_TYPES, content)},
        **({"security": [{_BEARER: []}]} if bearer_needed else {}),
        "responses": _ANSWERS,
    }


# Requests of other systems.

_ATTRIBUTES: Schemas = {
    "specversion": _text("Of CloudEvents.", "1.0", enum=["1.0"]),
    "id": _text("Id of the event.", "E-1"),
    "source": _text("Origin of the event: a URI or relative reference.", "/flow"),
    "type": _text("Type of the event. The edge uses the action in the path instead.", "task.create"),
    "time": _text("When it happened. Default: the time of receipt.", "2023-08-31T06:07:42.502Z", format="date-time"),
}
_PROOF: Schemas = {
    "webhook-id": _id("Id of the message. A retry must use the same id.", "msg_1"),
    "webhook-timestamp": _text(
        "Seconds since 1970. At most five minutes from the edge's clock.", "1693462062", pattern="^[0-9]{10}$"
    ),
    "webhook-signature": _text(
        "`v1,` and HMAC-SHA256 in base64 over `id.timestamp.body`, by a secret of the source; several by spaces.",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        pattern="^v1,[A-Za-z0-9+/]{43}=$",
    ),
}
_OF_EVENTS = {field["name"]: field["doc"] for field in json.loads(schema_text("TaskEvent"))["fields"]}
_SPECIAL: Schemas = {
    "app_type": _id("App in the other system; the same in all events of an instance.", "leave"),
    "instance_id": _id("The process instance. Topics and the API prefix it with the source's name and a colon.", "I-1"),
    "task_id": _id("The approval step; required for `complete` and `cancel`.", "T-1"),
    "corp_id": _id("The corp. If present, it must be the source's own.", "ding5d17e3add038d445"),
    "recipient_ids": {"type": "array", "items": {"type": "string"}, "examples": [["manager02"]]},
    "actor_id": {"examples": ["manager02"]},
    "originator": {"type": "object", "examples": [{"user_id": "manager01", "name": "王小明"}]},
    "title": {"examples": ["王小明发起的请假申请"]},
    "url": {"examples": ["https://flow.example/tasks/T-1"]},
    "created_at": {"description": "When the instance began: ISO 8601, or ms or s since 1970."},
    "finished_at": {"description": "When it ended, in the same format."},
    "form_data": {"type": "object", "examples": [{"days": "3"}]},
}
"""Details of an event's fields that are not in its schema."""
_FIELDS: Schemas = {
    name: {"type": "string", "description": _OF_EVENTS[name], **_SPECIAL.get(name, {})} for name in DATA_KEYS
}
_DATA: Mapping[str, Any] = {
    "type": "object",
    "description": "What happened, with the names of a TaskEvent's fields. Others stay in the event's raw text.",
    "required": ["app_type", "instance_id"],
    "properties": _FIELDS,
}
_EVENT = {
    "type": "object",
    "required": ["specversion", "id", "source", "type", "data"],
    "properties": {**_ATTRIBUTES, "data": _DATA},
}
_SOURCE = _parameter(
    "source",
    "path",
    _text("Name of the system in the credentials file.", "flow", pattern="^[a-z][a-z0-9-]{0,31}$"),
    required=True,
)
_ACTION = {"type": "string", "enum": list(ACTIONS), "description": "What happened."}
_MESSAGE: dict[str, Any] = {
    "summary": "Another system reports a task",
    "description": "A CloudEvent 1.0 in JSON, in structured mode or in binary with the `ce-` headers, signed as "
    "Standard Webhooks defines. Batches are not supported. A request that is not verified gets 401, even if it is also "
    "malformed.",
    "operationId": "source_task",
    "tags": ["callbacks"],
    "parameters": [
        _SOURCE,
        _parameter("action", "path", _ACTION, required=True),
        *(_parameter(name, "header", each, required=True) for name, each in _PROOF.items()),
        *(_parameter(f"ce-{name}", "header", each, required=False) for name, each in _ATTRIBUTES.items()),
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _DATA, "example": _examples(_FIELDS)},
            "application/cloudevents+json": {
                "schema": _EVENT,
                "example": {**_examples(_ATTRIBUTES), "data": _examples(_FIELDS)},
            },
        },
    },
    "responses": _ANSWERS_OF_SOURCES,
}
_TOKEN = {
    "type": "string",
    "pattern": "^Bearer [A-Za-z0-9._~+/=-]{32,}$",
    "description": "`Bearer` and a token, if the body is not signed.",
}
_TODO = {
    "syscode": "expenses",
    "flowid": "F-1",
    "requestname": "差旅报销",
    "nodename": "直属领导",
    "receiver": "manager02",
    "receivets": "1693462062502",
    "isremark": "0",
}
_PUSH: dict[str, Any] = {
    "summary": "Another system reports a task in its own format",
    "description": "The source's `format` names the format; the body says what happened, unless the path ends in an "
    "action. Signed as above, or with one of the source's `bearer_tokens`.",
    "operationId": "source_push",
    "tags": ["callbacks"],
    "parameters": [_SOURCE, _parameter("Authorization", "header", _TOKEN, required=False)],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "properties": {}}, "example": _TODO}},
    },
    "responses": _ANSWERS_OF_SOURCES,
}


def document_callbacks(document: dict[str, Any], *, bearer_needed: bool) -> None:
    """Add the callbacks: FastAPI does not document routes of Starlette."""
    callbacks = {f"/yida/tasks/{each}": {"post": _callback(each, bearer_needed=bearer_needed)} for each in ACTIONS}
    sources = {"/sources/{source}/tasks/{action}": {"post": _MESSAGE}, "/sources/{source}/tasks": {"post": _PUSH}}
    document["paths"] = callbacks | sources | document["paths"]
    if bearer_needed:
        document.setdefault("components", {})["securitySchemes"] = {
            _BEARER: {"type": "http", "scheme": "bearer", "description": "One of EDGE_BEARER_TOKENS."}
        }
