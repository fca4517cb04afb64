"""Portals of other origins that embed the component: what the browser lets their scripts read."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def let_portals_in(http: ASGIApp, setting: str) -> ASGIApp:
    """The app, of which scripts of these origins (comma-separated) may read what their user may: failures, too.

    Raises:
        ConfigurationError: one is no origin.
    """
    origins = [part.strip() for part in setting.split(",") if part.strip()]
    for origin in origins:
        parts = urlsplit(origin)
        # No wildcard: an allowed origin can read everything that the browser's user may.
        if parts.scheme not in {"http", "https"} or origin != f"{parts.scheme}://{parts.netloc}" or "*" in origin:
            raise ConfigurationError(f"CENTER_ALLOWED_ORIGINS has {origin!r}: give origins, as https://portal.example")
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
