"""Single sign-on in front: the caller whom a trusted reverse proxy names.

Where the identity provider knows people by another id than Yida does, only the people's topic says who has it. The
headers are believed from the proxies' addresses only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.center.access.refusals import UnknownPerson
from taskbridge.center.tables import EMPLOYEE_NUMBER
from taskbridge.runtime.refusals import Unauthorized
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from taskbridge.center.settings import CenterSettings

UsersOf = Callable[[str, str | None, str], Awaitable[Sequence[str]]]
"""The users of a corp who have, of this kind, this id; None is the user id itself.

Raises NotNow while not all people are known.
"""
_ID_MAX = 256
_GROUPS_MAX = 16_384
_NO_MAPPED_IDS = ("", "corp_id", "user_id", "name", "department")


@dataclass(frozen=True, slots=True)
class SingleSignOn:
    """Whom to believe, and in which headers."""

    settings: CenterSettings
    users_of: UsersOf | None
    """None if the proxies send user ids."""

    async def person_of(self, connection: HTTPConnection) -> tuple[str, str] | None:
        """Corp and user id of the caller whom a trusted proxy names; None without such a header, or from another peer.

        Raises Unauthorized if the headers are ambiguous, UnknownPerson as ``the_one``, NotNow while people are missing.
        """
        if connection.client is None or not self._is_proxy(connection.client.host):
            return None
        settings = self.settings
        user_id = _only(connection, settings.sso_user_header)
        if user_id is None:
            return None
        header = settings.sso_corp_header
        corp_id = settings.corp_id if header is None else _only(connection, header)
        if corp_id is None:
            raise Unauthorized(f"the proxy names a user but no corp: {header} is missing")
        if self.users_of is None or settings.mapped_id is None:
            return corp_id, user_id
        return corp_id, the_one(await self.users_of(corp_id, settings.mapped_id, user_id))

    def groups_of(self, connection: HTTPConnection) -> list[str]:
        """The groups of the person whom ``person_of`` returned."""
        header = self.settings.sso_groups_header
        named = None if header is None else _only(connection, header, most=_GROUPS_MAX)
        return [] if named is None else [each.strip() for each in named.split(",")]

    def _is_proxy(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.settings.sso_proxies)


def the_one(users: Sequence[str]) -> str:
    """The only user with an id; raises UnknownPerson if nobody has it, or several have it."""
    if len(users) == 1:
        return users[0]
    if users:
        raise UnknownPerson("you are signed in, but several people have your id: ask an administrator to fix it")
    raise UnknownPerson("you are signed in, but no person has your id: ask an administrator to import it")


def single_sign_on(settings: CenterSettings, users_of: UsersOf | None) -> SingleSignOn | None:
    """Single sign-on by the settings; None if no proxy is trusted. ConfigurationError if they are incomplete."""
    mapped_id = settings.mapped_id
    if mapped_id in _NO_MAPPED_IDS:
        raise ConfigurationError(
            f"CENTER_MAPPED_ID={mapped_id}: name {EMPLOYEE_NUMBER} or another id of the people's topic; without "
            "it the header or claim has the user id"
        )
    if not settings.sso_proxies:
        return None
    if settings.sso_corp_header is None and settings.corp_id is None:
        raise ConfigurationError("CENTER_SSO_PROXIES: set CENTER_SSO_CORP_HEADER or CENTER_CORP_ID")
    if mapped_id is not None and settings.oidc_issuer is not None:
        raise ConfigurationError(
            "CENTER_MAPPED_ID is for the ids of CENTER_SSO_PROXIES or of CENTER_OIDC_ISSUER: unset one"
        )
    return SingleSignOn(settings, users_of)


def _only(connection: HTTPConnection, name: str, *, most: int = _ID_MAX) -> str | None:
    """The header's one value, or None; Unauthorized if it is there twice, as when a proxy adds its own, or no name."""
    values = connection.headers.getlist(name)
    if not values:
        return None
    if len(values) > 1:
        raise Unauthorized(f"{name} occurs more than once: the proxy must replace the header of clients")
    try:
        value = values[0].encode("latin-1").decode().strip()
    except UnicodeDecodeError as error:
        raise Unauthorized(f"{name} is not UTF-8") from error
    if len(value) > most:
        raise Unauthorized(f"{name} is longer than {most} characters")
    return value or None
