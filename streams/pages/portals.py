"""Portals of other origins that embed the component: what the browser lets their scripts read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI


def let_portals_in(http: FastAPI, origins: Sequence[str]) -> None:
    """Scripts of these origins may read what their user may; without any, nothing changes."""
    if not origins:
        return
    http.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET"],
        allow_headers=["authorization", "last-event-id"],
        # For single sign-on by a cookie of the proxy in front.
        allow_credentials=True,
        expose_headers=["retry-after"],
        max_age=3600,
    )
