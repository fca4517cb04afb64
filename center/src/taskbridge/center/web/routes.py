"""The pages and their parts: files of the package, locked down by headers; portals that embed the component."""

# pyright: reportUnusedFunction=false

from __future__ import annotations

import gzip
import hashlib
import re
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from taskbridge.center.message_page import CONTENT_SECURITY_POLICY, HEADERS
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# The address of a service worker must be trusted too. Only a policy gives such an address: the one of this name, which
# offline.js creates, knows a single address, and makes neither markup nor code of text. No second one may be created.
_APP_POLICY = CONTENT_SECURITY_POLICY.removesuffix("'none'") + "service-worker; worker-src 'self'"
_WORKER_POLICY = "default-src 'none'; connect-src 'self'"

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
_PAGES = {
    "index": ("task-center", "任务中心"),
    "ops": ("ops", "运维 · taskbridge"),
    "audit": ("audit", "审计日志 · taskbridge"),
    "waiting": ("waiting", "待办概览 · taskbridge"),
    "start": ("start", "发起 · taskbridge"),
    "proposal": ("proposal", "确认处理 · taskbridge"),
}
"""All have the frame page.html: each with its script, and with a title until that runs."""
_IMPORTED = re.compile(rb'^(?:import|export)\b[^;]*?from "\./([^"]+)"', re.MULTILINE)
_START = re.compile(rb'<script type="module" src="/assets/([^"]+)"></script>')
_FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}


class Asset(NamedTuple):
    content: bytes
    compressed: bytes
    media_type: str
    etag: str


def read_assets() -> tuple[dict[str, Asset], str]:
    """All files by name, and their version, which changes when any of them does.

    Pages request the files of this very version, which may then be cached for ever.
    """
    folder = files("taskbridge.center.web").joinpath("assets")
    found = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    frame = found.pop("page.html")
    for name, (script, title) in _PAGES.items():
        found[f"{name}.html"] = frame.replace(b"{script}", script.encode()).replace(b"{title}", title.encode())
    version = hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]
    for name, content in found.items():
        if name.endswith(".html"):
            preloaded = _START.sub(lambda start: start[0] + _preloads(start[1].decode(), found), content)
            found[name] = preloaded.replace(b'"/assets/', f'"/assets/{version}/'.encode())
    return {name: _asset(name, content) for name, content in sorted(found.items())}, version


def _preloads(start: str, found: dict[str, bytes]) -> bytes:
    """Links to all modules that a page's script needs: the browser requests them at once, and not one after the other.

    The service worker reads in them which files it has to store.
    """
    needed, waiting = {start}, [start]
    while waiting:
        imported = {name.decode() for name in _IMPORTED.findall(found[waiting.pop()])} - needed
        needed |= imported
        waiting += imported
    links = (f'\n    <link rel="modulepreload" href="/assets/{name}">' for name in sorted(needed - {start}))
    return "".join(links).encode()


def _asset(name: str, content: bytes) -> Asset:
    # Weak: both encodings carry it.
    etag = f'W/"{hashlib.sha256(content).hexdigest()[:24]}"'
    return Asset(content, gzip.compress(content, 9, mtime=0), _MEDIA_TYPES[PurePath(name).suffix], etag)


def pages_router() -> APIRouter:
    """Serve the pages, ``/assets`` and the service worker; only files of the package, by their names."""
    assets, present = read_assets()
    router = APIRouter(include_in_schema=False)

    def serve(path: str, name: str, policy: str) -> None:
        @router.get(path)
        async def page(request: Request) -> Response:
            return _answer(request, assets[name], {"Content-Security-Policy": policy})

    for name in _PAGES:
        if name != "index":
            path = "/proposals/{proposal_id}" if name == "proposal" else f"/{name}"
            serve(path, f"{name}.html", CONTENT_SECURITY_POLICY)
    serve("/", "index.html", _APP_POLICY)
    # At the root: a service worker answers for the pages below its path only.
    serve("/service-worker.js", "service-worker.js", _WORKER_POLICY)

    @router.get("/assets/{name}")
    @router.get("/assets/{version}/{name}")
    async def part(request: Request, name: str, version: str = "") -> Response:
        if name not in assets or name.endswith(".html"):
            raise HTTPException(404, "There is no such file.")
        # Another version is requested while workers are replaced one by one: ours will do, but not for ever.
        return _answer(request, assets[name], _FOR_EVER if version == present else {})

    return router


def _answer(request: Request, asset: Asset, headers: dict[str, str]) -> Response:
    headers = {**HEADERS, **headers, "ETag": asset.etag}
    if asset.etag in {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=asset.media_type)
    return Response(asset.content, headers=headers, media_type=asset.media_type)


def origins_of(setting: str) -> list[str]:
    """The origins of the comma-separated setting. Raises ConfigurationError."""
    origins = [part.strip() for part in setting.split(",") if part.strip()]
    for origin in origins:
        parts = urlsplit(origin)
        # No wildcard: an allowed origin can read everything that the browser's user may.
        if parts.scheme not in {"http", "https"} or origin != f"{parts.scheme}://{parts.netloc}" or "*" in origin:
            raise ConfigurationError(f"CENTER_ALLOWED_ORIGINS has {origin!r}: give origins, as https://portal.example")
    return origins


def let_portals_in(http: ASGIApp, setting: str) -> ASGIApp:
    """The app, of which scripts of these origins (comma-separated) may read what their user may: failures, too."""
    origins = origins_of(setting)
    if not origins:
        return http
    return CORSMiddleware(
        http,
        allow_origins=origins,
        allow_methods=["GET"],
        allow_headers=["authorization", "last-event-id"],
        # For single sign-on by a cookie of the proxy in front.
        allow_credentials=True,
        expose_headers=["retry-after"],
        max_age=3600,
    )
