"""Whom an assistant asks for: a person, by an access token of the identity provider, or a program, by its API token.

Cookies and headers of a proxy prove nothing here: a page elsewhere could have a browser send them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.center.access.access import Access, Caller
from taskbridge.center.assistants.clients import CLIENT_MAX, UNNAMED
from taskbridge.runtime.access import is_from_own_page
from taskbridge.runtime.refusals import Forbidden, Unauthorized

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from taskbridge.center.access.oidc import OpenIdConnect
    from taskbridge.center.assistants.clients import Clients

METADATA = "/.well-known/oauth-protected-resource/mcp"


class TokenRequired(Unauthorized, status=401, kind="unauthorized"):
    """The access token is missing or not valid here. Says where a client learns who issues one."""

    def __init__(self, detail: str, metadata_url: str) -> None:
        super().__init__(detail)
        self._metadata_url = metadata_url

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": f'Bearer error="invalid_token", resource_metadata="{self._metadata_url}"'}


@dataclass(frozen=True, slots=True)
class Callers:
    """``url`` is that of the task center, without a slash at its end; without ``provider`` programs only."""

    access: Access
    provider: OpenIdConnect | None
    clients: Clients
    url: str

    async def identify(self, connection: HTTPConnection) -> Caller:
        """As ``Access.identify``; the name of a person's caller is the client. Nobody has a role here."""
        if "origin" in connection.headers and not is_from_own_page(connection):
            raise Forbidden("a page elsewhere may not call this")
        try:
            return self.access.program(connection)
        except Unauthorized as error:
            if self.provider is None:
                raise
            scheme, _, token = connection.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not token:
                raise TokenRequired(str(error), self.url + METADATA) from error
        try:
            person, client, issued_at = await self.provider.read_access_token(token.strip(), f"{self.url}/mcp")
            client = client[:CLIENT_MAX] or UNNAMED
            await self.clients.check(person, client, issued_at)
        except Unauthorized as error:
            raise TokenRequired(str(error), self.url + METADATA) from error
        corp_id, user_id = person
        return Caller("sso", client, corp_id=corp_id, user_id=user_id, rate_key=f"assistant {person!r}")
