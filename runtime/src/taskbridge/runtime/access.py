"""Who may make a request: the holder of a token or, without tokens, only this machine under its own names."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi import Depends
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from taskbridge.runtime.problems import problem
from taskbridge.runtime.refusals import Unauthorized

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from taskbridge.runtime.tokens import ApiToken, TokensFile

FOREIGN_HOST = "foreign-host"
FORWARDED = "forwarded"
_FORWARDED = b"forwarded", b"x-forwarded-", b"x-real-ip", b"via"
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})

TOKEN = Depends(HTTPBearer(auto_error=False, description="A token from the API tokens file."))
"""For routers: declares in the OpenAPI document that a token may be needed. A service checks it itself."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def token_of(connection: HTTPConnection, tokens: TokensFile | None) -> ApiToken:
    """The entry of the request's bearer token; raises Unauthorized if it is missing or unknown."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    entry = tokens.current.find(token.strip()) if tokens is not None and scheme.lower() == "bearer" else None
    if entry is None:
        raise Unauthorized("a valid bearer token is required")
    return entry


def is_from_own_page(connection: HTTPConnection) -> bool:
    """Whether a page of this service made the request. Browsers name its origin in every request that may change."""
    headers = connection.headers
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    return "origin" in headers and urlsplit(headers["origin"]).netloc == headers.get("host")


def on_loopback(host: str) -> bool:
    """Whether only this machine can reach a service that listens on this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_hosts(host: str) -> frozenset[str]:
    """The host names of an open service in requests: a web page elsewhere can point a name of its own at us."""
    return _LOCAL_HOSTS | {f"[{host}]" if ":" in host else host.lower()}


class OnlyOwnHosts:
    """Refuses what comes from elsewhere through a program of this machine: a reader's browser, or a proxy.

    A web page elsewhere can have a browser send requests under a foreign name, and actions. Browsers name the page of
    an action in ``Origin``. Reading needs no such check: they show a page no foreign answer. A proxy sends what the
    world requests from an address of this machine, and says so in its headers.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and any(name.startswith(_FORWARDED) for name, _ in scope["headers"]):
            detail = "this service requires no token, and answers nobody through a proxy: set a tokens file"
            await problem(400, detail, kind=FORWARDED)(scope, receive, send)
        elif scope["type"] == "http" and not self._is_own(scope):
            detail = "this service accepts requests from its own machine only, under a local host name"
            await problem(400, detail, kind=FOREIGN_HOST)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_own(self, scope: Scope) -> bool:
        connection = HTTPConnection(scope)
        is_from_page = scope["method"] not in SAFE_METHODS and "origin" in connection.headers
        is_here = _without_port(connection.headers.get("host", "")) in self._hosts
        return is_here and (not is_from_page or is_from_own_page(connection))


def _without_port(host: str) -> str:
    name, separator, port = host.rpartition(":")
    return (name if separator and port.isdecimal() else host).lower().rstrip(".")
