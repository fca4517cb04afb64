"""What is posted to the edge, for its OpenAPI document. Beside ``callbacks`` the only place that knows Yida's names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from taskbridge.edge.callbacks import ACTIONS
from taskbridge.edge.openapi.answers import ANSWERS, an_id
from taskbridge.edge.openapi.sources import MESSAGE, PUSH

if TYPE_CHECKING:
    from collections.abc import Mapping

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
"""Action → what it needs beside ``sign``, and what it may have."""
_NOT_IN_EXAMPLES = {"cc": {"task"}}


def document_callbacks(document: dict[str, Any], *, bearer_needed: bool) -> None:
    """Add the callbacks: Starlette's own routes are not in the document by themselves."""
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
        "description": "Parameters may stand in the body, in the query string, or in both, each once. "
        "Others than these are taken too, and signed with them; by `delete` only those of EDGE_DELETE_EXTRA_KEYS.",
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
