"""``/docs`` without the internet: what shows the OpenAPI document are files of a package that is installed with us."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import fastapi_offline
from starlette.responses import FileResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

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
    """Serve ``/docs`` for an application that was made without it."""

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
