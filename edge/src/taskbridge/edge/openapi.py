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
    # Any printable text is accepted; this is what ids look like.
    return {"type": "string", "pattern": "^[!-~]{1,128}$", "description": description, "examples": [example]}


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
"""Details of an event's fields that are not in its schema."""
_OF_EVENTS = {field["name"]: field["doc"] for field in json.loads(schema_text("TaskEvent"))["fields"]}
_DATA_FIELDS: Mapping[str, Mapping[str, Any]] = {
    name: {"type": "string", "description": _OF_EVENTS[name], **_ONLY_HERE.get(name, {})} for name in DATA_KEYS
}
_DATA: Mapping[str, Any] = {
    "type": "object",
    "description": "What happened, with the names of a TaskEvent's fields. Others stay in the event's raw text.",
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
    "Standard Webhooks defines. Batches are not supported. A request that is not verified gets 401, even if it is also "
    "malformed.",
    "operationId": "source_task",
    "tags": ["callbacks"],
    "parameters": [
        _SOURCE,
        _parameter("action", "path", {"type": "string", "enum": list(ACTIONS)}, "What happened.", required=True),
        *(
            _parameter(name, "header", {"type": "string", "pattern": pattern, "examples": [shown]}, text, required=True)
            for name, (text, pattern, shown) in _PROOF.items()
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
    "description": "The source's `format` names the format; the body says what happened, unless the path ends in an "
    "action. Signed as above, or with one of the source's `bearer_tokens`.",
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


_MEDIA_TYPES = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
_BEARER = "HTTPBearer"

_TASK = json.dumps(
    {
        "appType": "APP_RY60OCRF33Z7534",
        "corpId": "ding5d17e3add038d445",
        "formInstanceId": "f30233fb-72e1-4af4-8cb8-c7e0ea9ee530",
        "taskId": "TASK-1",
        "title": "王小明发起的请假申请",
        "originatorId": "manager01",
        "originatorDisplayName": "王小明",
        "actionerId": ["manager02"],
        "dataMap": {"days": "3", "reason": None},
    },
    ensure_ascii=False,
)


_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "appType": an_id("The app.", "APP_RY60OCRF33Z7534"),
    "corpId": an_id("The organisation.", "ding5d17e3add038d445"),
    "formInstId": an_id("The process instance: 1 to 128 printable characters.", "f30233fb-72e1-4af4-8cb8-c7e0ea9ee530"),
    "taskId": an_id("The approval step.", "TASK-1"),
    "actualWorkId": {"type": "string", "description": "Who handled it.", "examples": ["manager02"]},
    "actionerId": {"type": "string", "description": "Who is copied in.", "examples": ["manager02"]},
    "task": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "The task or instance, as JSON text. The signature covers this text unchanged.",
        "examples": [_TASK],
    },
    "dateTime": {
        "type": "string",
        "description": "When it happened: 13-digit ms, 10-digit s, `yyyy-MM-dd HH:mm:ss` (Asia/Shanghai) or ISO 8601.",
        "examples": ["1693462062502"],
    },
    "sign": {
        "type": "string",
        "pattern": "^[0-9A-Fa-f]{32}$",
        "description": "MD5 (hex) of the values of all other parameters, ordered by key, and the app's token.",
        "examples": ["0a32735262fc24f232651cdac468573b"],
    },
}

_OF_ACTION: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "create": (("task",), ("dateTime",)),
    "complete": (("appType", "corpId", "formInstId", "taskId"), ("actualWorkId", "dateTime")),
    "cancel": (("appType", "corpId", "formInstId", "taskId"), ("actualWorkId", "dateTime")),
    "delete": (("appType", "corpId", "formInstId"), ("dateTime",)),
    "cc": (("appType", "corpId", "formInstId"), ("taskId", "actionerId", "dateTime", "task")),
}
"""Action → its required parameters besides ``sign``, and its optional ones."""
_NOT_IN_EXAMPLES = {"cc": {"task"}}


def document_callbacks(document: dict[str, Any], *, bearer_needed: bool) -> None:
    """Add the callbacks: FastAPI does not document routes of Starlette."""
    document["paths"] = {
        f"/yida/tasks/{wire_action}": {"post": _operation(wire_action, bearer_needed=bearer_needed)}
        for wire_action in ACTIONS
    } | {
        "/sources/{source}/tasks/{action}": {"post": MESSAGE},
        "/sources/{source}/tasks": {"post": PUSH},
        **document["paths"],
    }
    if bearer_needed:
        document.setdefault("components", {})["securitySchemes"] = {
            _BEARER: {"type": "http", "scheme": "bearer", "description": "One of EDGE_BEARER_TOKENS."}
        }


def _operation(wire_action: str, *, bearer_needed: bool) -> dict[str, Any]:
    content = {"schema": _schema(wire_action), "example": _example(wire_action)}
    return {
        "summary": f"Yida reports: {ACTIONS[wire_action].lower()}",
        "description": "Parameters may be in the body, in the query string, or in both, each once. "
        "Other parameters are accepted and signed too; for `delete` only those of EDGE_DELETE_EXTRA_KEYS.",
        "operationId": f"yida_task_{wire_action}",
        "tags": ["callbacks"],
        "requestBody": {"required": True, "content": dict.fromkeys(_MEDIA_TYPES, content)},
        **({"security": [{_BEARER: []}]} if bearer_needed else {}),
        "responses": ANSWERS,
    }


def _schema(wire_action: str) -> dict[str, Any]:
    needed, optional = _OF_ACTION[wire_action]
    return {
        "type": "object",
        "required": [*needed, "sign"],
        "properties": {name: _PARAMETERS[name] for name in (*needed, *optional, "sign")},
        "additionalProperties": {"type": "string"},
    }


def _example(wire_action: str) -> dict[str, str]:
    needed, optional = _OF_ACTION[wire_action]
    shown = [each for each in (*needed, *optional, "sign") if each not in _NOT_IN_EXAMPLES.get(wire_action, ())]
    return {name: _PARAMETERS[name]["examples"][0] for name in shown}
