"""What every service's OpenAPI document says beside its own routes, and what the framework says that is not so."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from taskbridge.runtime.http.problems import documented

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

METRICS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": "taskbridge_up 1.0\n"}},
    }
}
"""The answers of ``/metrics``."""

LIVENESS: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": {"status": "ok"}}}}}
"""The answer of ``/healthz``."""

_READINESS = {"type": "object", "required": ["ready"], "properties": {"ready": {"type": "boolean"}}}
READINESS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": meaning,
        "content": {"application/json": {"schema": _READINESS, "example": {"ready": status == HTTPStatus.OK}}},
    }
    for status, meaning in (
        (HTTPStatus.OK, "The service is ready."),
        (HTTPStatus.SERVICE_UNAVAILABLE, "The service is not ready; the body says why."),
    )
}
"""The answers of ``/readyz``."""

_ELSEWHERE = (
    "An unknown path gets 404, a known one with another method 405, both with a problem document (RFC 9457):"
    " see the response `UnknownPath`."
)
_UNKNOWN_PATH = documented(404, "Unknown path, or a method that it does not support.")


def amend_document(app: FastAPI, amend: Callable[[dict[str, Any]], None]) -> None:
    """Have ``/openapi.json`` say what ``amend`` makes of it, and what is answered where nothing is.

    It says nothing of 422, which no service of ours answers.
    """
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generated()
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
                    for parameter in operation.get("parameters", ()):
                        parameter["schema"] = _without_null(parameter["schema"])
            schemas = cast("dict[str, Any]", document.get("components", {}).get("schemas", {}))
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for schema in schemas.values():
                for example in schema.get("examples", ()):
                    _with_null(example, schema, schemas)
            document["info"]["description"] = _ELSEWHERE
            components = document.setdefault("components", {})
            components.setdefault("responses", {})["UnknownPath"] = _UNKNOWN_PATH
            amend(document)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema. One that may be missing is not one that may be null: that is the text "null"."""
    kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {name: value for name, value in schema.items() if name != "anyOf"} | kinds[0]


def _with_null(example: Any, schema: Any, schemas: dict[str, Any]) -> None:
    """Puts back the nulls of an example, which the framework leaves out, also where the schema requires them."""
    schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if isinstance(example, list):
        for each in cast("list[Any]", example):
            _with_null(each, schema["items"], schemas)
    elif isinstance(example, dict):
        found = cast("dict[str, Any]", example)
        for name in schema.get("required", ()):
            found.setdefault(name, None)
        for name, each in schema.get("properties", {}).items():
            _with_null(found.get(name), each, schemas)


def without_security(document: dict[str, Any]) -> None:
    """For a service that asks nobody for a token."""
    document.get("components", {}).pop("securitySchemes", None)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
