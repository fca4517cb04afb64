"""OpenAPI documents that match what the services do, and the page ``/docs`` that shows them, without the internet."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import fastapi_offline
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from taskbridge.runtime.problems import documented

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI
    from starlette.requests import Request

METRICS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": "taskbridge_up 1.0\n"}},
    }
}

LIVENESS: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": {"status": "ok"}}}}}

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

_ELSEWHERE = (
    "An unknown path gets 404, a known one with another method 405, both with a problem document (RFC 9457):"
    " see the response `UnknownPath`."
)
_UNKNOWN_PATH = documented(404, "Unknown path, or a method that it does not support.")


def amend_document(app: FastAPI, amend: Callable[[dict[str, Any]], None]) -> None:
    """Have ``amend`` change the document in place, once, before it is served.

    The document then describes unknown paths too, and no longer 422, which no service returns.
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
    """The schema without null: a parameter may be missing, but a null would be the text "null"."""
    kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {name: value for name, value in schema.items() if name != "anyOf"} | kinds[0]


def _with_null(example: Any, schema: Any, schemas: dict[str, Any]) -> None:
    """Add the nulls that the framework removes from an example, even where the schema requires them."""
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
    document.get("components", {}).pop("securitySchemes", None)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)


# The page.

_FILES = Path(fastapi_offline.__file__).parent / "static"
_PARTS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript", "favicon.png": "image/png"}

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    # Swagger UI writes style attributes.
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
_START = 'SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true });\n'


def serve_docs(app: FastAPI) -> None:
    """Serve ``/docs`` for an application that was made without it, from files of an installed package."""

    async def page(_request: Request) -> Response:
        headers = {**_HEADERS, "Content-Security-Policy": CONTENT_SECURITY_POLICY}
        return Response(_PAGE.format(title=app.title), media_type="text/html", headers=headers)

    async def start(_request: Request) -> Response:
        return Response(_START, media_type="text/javascript", headers=_HEADERS)

    app.router.routes += [Route("/docs", page), Route("/docs/start.js", start)]
    for name, media_type in _PARTS.items():

        async def part(_request: Request, name: str = name, media_type: str = media_type) -> Response:
            return FileResponse(_FILES / name, media_type=media_type, headers=_HEADERS)

        app.router.routes.append(Route(f"/docs/{name}", part))
