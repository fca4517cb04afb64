"""The requests of callbacks in the edge's OpenAPI document, composed from the parts in ``openapi.json``."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from taskbridge.edge.decision.callbacks import ACTIONS
from taskbridge.edge.decision.source_events import DATA_KEYS
from taskbridge.runtime.problems import documented
from taskbridge.schemas.registry import schema_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Parts = Mapping[str, Any]

_MEDIA_TYPES = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
_BEARER = "HTTPBearer"


def document_callbacks(document: dict[str, Any], *, bearer_needed: bool) -> None:
    """Add the callbacks: FastAPI does not document routes of Starlette."""
    parts: Parts = json.loads(files("taskbridge.edge").joinpath("openapi.json").read_text("utf-8"))
    accepted = {"application/json": {"schema": parts["accepted"]}}
    answers = {"200": {"description": "The event is stored durably.", "content": accepted}}
    answers |= {status: documented(int(status), meaning) for status, meaning in parts["refusals"].items()}
    security: Parts = {"security": [{_BEARER: []}]} if bearer_needed else {}
    callbacks = {f"/yida/tasks/{each}": {"post": _callback(parts, each, answers, security)} for each in ACTIONS}
    answers_of_sources = answers | {"404": documented(404, "The path names no known action.")}
    push = {**parts["push"], "responses": answers_of_sources}
    push["parameters"] = [parts["source"], *push["parameters"]]
    sources = {
        "/sources/{source}/tasks/{action}": {"post": {**_message(parts), "responses": answers_of_sources}},
        "/sources/{source}/tasks": {"post": push},
    }
    document["paths"] = callbacks | sources | document["paths"]
    if bearer_needed:
        document.setdefault("components", {})["securitySchemes"] = {
            _BEARER: {"type": "http", "scheme": "bearer", "description": "One of EDGE_BEARER_TOKENS."}
        }


def _callback(parts: Parts, wire_action: str, answers: Parts, security: Parts) -> Parts:
    needed, optional = parts["actions"][wire_action].values()
    shown = {name: parts["parameters"][name] for name in (*needed, *optional, "sign")}
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
        **parts["callback"],
        "operationId": f"yida_task_{wire_action}",
        "requestBody": {"required": True, "content": dict.fromkeys(_MEDIA_TYPES, content)},
        **security,
        "responses": answers,
    }


def _message(parts: Parts) -> Parts:
    docs = {field["name"]: field["doc"] for field in json.loads(schema_text("TaskEvent"))["fields"]}
    fields = {n: {"type": "string", "description": docs[n], **parts["fields"].get(n, {})} for n in DATA_KEYS}
    data = {**parts["data"], "properties": fields}
    attributes = parts["attributes"]
    event = {
        "type": "object",
        "required": ["specversion", "id", "source", "type", "data"],
        "properties": {**attributes, "data": data},
    }
    action = {"type": "string", "enum": list(ACTIONS), "description": "What happened."}
    whole = {**_examples(attributes), "data": _examples(fields)}
    return {
        **parts["message"],
        "parameters": [
            parts["source"],
            *_parameters({"action": action}, "path", required=True),
            *_parameters(parts["proof"], "header", required=True),
            *_parameters({f"ce-{name}": each for name, each in attributes.items()}, "header", required=False),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": data, "example": whole["data"]},
                "application/cloudevents+json": {"schema": event, "example": whole},
            },
        },
    }


def _examples(schemas: Parts) -> dict[str, Any]:
    return {name: each["examples"][0] for name, each in schemas.items() if "examples" in each}


def _parameters(schemas: Parts, place: str, *, required: bool) -> Iterator[Parts]:
    for name, schema in schemas.items():
        described = schema["description"]
        yield {"name": name, "in": place, "required": required, "schema": schema, "description": described}
