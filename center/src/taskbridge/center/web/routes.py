"""The task-center page, the operator's page and their parts: static, and locked down by headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from taskbridge.center.web.assets import read_assets

if TYPE_CHECKING:
    from taskbridge.center.web.assets import Asset

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    # The browser itself refuses to turn text into markup: a slip in our scripts fails, and does not run.
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""No inline scripts or styles, nothing from elsewhere, in nobody's frame: the component is the way to embed."""

_REVALIDATED = "no-cache"
_FOR_EVER = "public, max-age=31536000, immutable"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # Addresses of the pages name people and instances: other sites' approval pages must not see them.
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}


def pages_router() -> APIRouter:
    """Serve ``/``, ``/ops`` and ``/assets``; only files of the package, by their names."""
    assets = read_assets()
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def task_center(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        return _page(request, assets.pages["index.html"])

    @router.get("/ops")
    async def operation(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        return _page(request, assets.pages["ops.html"])

    @router.get("/assets/{name}")
    async def part(request: Request, name: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        return _answer(request, _named(name), {"Cache-Control": _REVALIDATED})

    @router.get("/assets/{version}/{name}")
    async def part_of_version(  # pyright: ignore[reportUnusedFunction]
        request: Request, version: str, name: str
    ) -> Response:
        # Another version is requested while workers are replaced one by one: ours will do, but not for ever.
        caching = _FOR_EVER if version == assets.version else _REVALIDATED
        return _answer(request, _named(name), {"Cache-Control": caching})

    def _named(name: str) -> Asset:
        if name not in assets.parts:
            raise HTTPException(404, "There is no such file.")
        return assets.parts[name]

    return router


def _page(request: Request, asset: Asset) -> Response:
    headers = {"Cache-Control": _REVALIDATED, "Content-Security-Policy": CONTENT_SECURITY_POLICY}
    return _answer(request, asset, headers)


def _answer(request: Request, asset: Asset, headers: dict[str, str]) -> Response:
    headers = {**_HEADERS, **headers, "ETag": asset.etag}
    if asset.etag in {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=asset.media_type)
    return Response(asset.content, headers=headers, media_type=asset.media_type)
