"""Who may make a request: the holder of a token or, without tokens, only this machine under its own names."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from fastapi import Depends
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from taskbridge.runtime.problems import problem
from taskbridge.runtime.refusals import Unauthorized

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from taskbridge.runtime.tokens import ApiToken, TokensFile

FOREIGN_HOST = "foreign-host"
"""The kind of problem that is answered under another name than the machine's own."""
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})

TOKEN = Depends(HTTPBearer(auto_error=False, description="A token from the API tokens file."))
"""For routers: declares in the OpenAPI document that a token may be needed. A service checks it itself."""


def token_of(connection: HTTPConnection, tokens: TokensFile | None) -> ApiToken:
    """The entry of the request's bearer token.

    Raises:
        Unauthorized: it is missing or unknown.
    """
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    entry = tokens.current.find(token.strip()) if tokens is not None and scheme.lower() == "bearer" else None
    if entry is None:
        raise Unauthorized("a valid bearer token is required")
    return entry


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
    """Refuses requests under a foreign name, which is how a web page would reach a service on its reader's machine."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _without_port(HTTPConnection(scope).headers.get("host", "")) not in self._hosts:
            detail = "this service accepts requests from its own machine only, under a local host name"
            await problem(400, detail, kind=FOREIGN_HOST)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _without_port(host: str) -> str:
    name, separator, port = host.rpartition(":")
    return (name if separator and port.isdecimal() else host).lower().rstrip(".")
