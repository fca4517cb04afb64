"""Single sign-on in front: the caller whom a trusted reverse proxy names, and how one worker forwards that to another.

Where the identity provider knows people by another id than Yida does, only the people's topic says who has it.

The headers are believed from the proxies' addresses only. A worker that forwards a query is no proxy, so it signs whom
it queries, with a key that all workers share, for this one query and a minute.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from taskbridge.schemas.errors import ConfigurationError
from taskbridge.center.access.refusals import NotNow, Unauthorized, UnknownPerson
from taskbridge.streams.directories.people import EMPLOYEE_NUMBER

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from taskbridge.streams.directories.people import People
    from taskbridge.center.settings import CenterSettings

IDENTITY_HEADER = "x-taskbridge-identity"

_VALID_S = 60
_ID_MAX = 256
_NO_MAPPED_IDS = ("", "corp_id", "user_id", "name", "department")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Identity(NamedTuple):
    """Somebody who signed in."""

    corp_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class SingleSignOn:
    """Whom to believe, and in which headers. Either the corp's header is named, or the one corp."""

    proxies: tuple[Network, ...]
    user_header: str
    corp_header: str | None
    corp_id: str | None
    people: People | None = None
    """Finds the person who has the id that the proxies send, if that is not the user id."""

    def identity_of(self, connection: HTTPConnection) -> Identity | None:
        """The caller whom a trusted proxy names; None without such a header, or from another peer.

        Raises:
            Unauthorized: a proxy's word is not clear.
            UnknownPerson: no person has the id.
            NotNow: the people are not read yet.
        """
        if connection.client is None or not self._is_proxy(connection.client.host):
            return None
        user_id = _only(connection, self.user_header)
        if user_id is None:
            return None
        corp_id = self.corp_id if self.corp_header is None else _only(connection, self.corp_header)
        if corp_id is None:
            raise Unauthorized(f"the proxy names a user but no corp: {self.corp_header} is missing")
        return Identity(corp_id, user_id if self.people is None else _user_of(self.people, corp_id, user_id))

    def _is_proxy(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.proxies)


def _user_of(people: People, corp_id: str, mapped_id: str) -> str:
    # In this order: a person who was read just now, or is not read yet, may have the id too.
    users = people.users_of(corp_id, mapped_id)
    if not people.is_whole:
        raise NotNow(
            "the signed-in person is unknown while not all people are loaded: see CENTER_PEOPLE_MAX and the log"
        )
    if len(users) == 1:
        return users[0]
    if users:
        raise UnknownPerson("you are signed in, but several people have your id: ask an administrator to fix it")
    raise UnknownPerson("you are signed in, but no person has your id: ask an administrator to import it")


def single_sign_on(settings: CenterSettings, people: People | None) -> SingleSignOn | None:
    """Single sign-on by the settings; None if no proxy is trusted.

    Raises:
        ConfigurationError: a network is invalid, or the corp of the users, or the kind of id, is missing.
    """
    mapped_id = settings.sso_mapped_id
    if mapped_id in _NO_MAPPED_IDS:
        raise ConfigurationError(
            f"CENTER_SSO_MAPPED_ID={mapped_id}: name {EMPLOYEE_NUMBER} or another id of the people's topic; without "
            "it the header has the user id"
        )
    if mapped_id is not None and (people is None or not settings.people_max):
        raise ConfigurationError("CENTER_SSO_MAPPED_ID requires people: set CENTER_PEOPLE_MAX to more than 0")
    networks = [each.strip() for each in settings.sso_proxies.split(",") if each.strip()]
    if not networks:
        return None
    if (settings.sso_corp_header is None) == (settings.sso_corp_id is None):
        raise ConfigurationError("CENTER_SSO_PROXIES: set one of CENTER_SSO_CORP_HEADER and CENTER_SSO_CORP_ID")
    try:
        proxies = tuple(ipaddress.ip_network(each) for each in networks)
    except ValueError as error:
        raise ConfigurationError(f"CENTER_SSO_PROXIES: {error}") from error
    return SingleSignOn(
        proxies,
        settings.sso_user_header.lower(),
        settings.sso_corp_header,
        settings.sso_corp_id,
        people if mapped_id else None,
    )


class IdentitySeal:
    """Signs an identity for one query, and knows what another worker signed."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"taskbridge forwarded identity\0" + secret.encode()).digest()

    def seal(self, identity: Identity, target: str) -> str:
        """The header's value; ``target`` is the path and query that it holds for."""
        payload = msgspec.msgpack.encode((identity.corp_id, identity.user_id, int(time.time()) + _VALID_S))
        return ".".join(_text(each) for each in (payload, self._mac(payload, target)))

    def open(self, sealed: str, target: str) -> Identity:
        """Whom it names.

        Raises:
            Unauthorized: it was not signed with this secret, for another query, or too long ago.
        """
        try:
            payload, mac = (_bytes(each) for each in sealed.split("."))
            if not hmac.compare_digest(mac, self._mac(payload, target)):
                raise Unauthorized("the forwarded identity has no valid signature")
            corp_id, user_id, until = msgspec.msgpack.decode(payload, type=tuple[str, str, int])
        except (ValueError, msgspec.DecodeError) as error:
            raise Unauthorized("the forwarded identity cannot be read") from error
        if time.time() > until:
            raise Unauthorized("the forwarded identity is too old: check the workers' clocks")
        return Identity(corp_id, user_id)

    def _mac(self, payload: bytes, target: str) -> bytes:
        return hmac.digest(self._key, len(payload).to_bytes(4, "big") + payload + target.encode(), "sha256")


def target_of(connection: HTTPConnection) -> str:
    """Path and query exactly as they were sent."""
    path: bytes = connection.scope.get("raw_path") or connection.scope["path"].encode()
    return (path + b"?" + connection.scope["query_string"]).decode("latin-1")


def _only(connection: HTTPConnection, name: str) -> str | None:
    """The header's one value; None where it is missing or blank.

    Raises:
        Unauthorized: it is there twice, as when a proxy adds its own to the client's, or is not a name.
    """
    wanted = name.lower().encode("latin-1")
    values = [value for header, value in connection.scope["headers"] if header == wanted]
    if not values:
        return None
    if len(values) > 1:
        raise Unauthorized(f"{name} occurs more than once: the proxy must replace the header of clients")
    try:
        value = values[0].decode().strip()
    except UnicodeDecodeError as error:
        raise Unauthorized(f"{name} is not UTF-8") from error
    if len(value) > _ID_MAX:
        raise Unauthorized(f"{name} is longer than {_ID_MAX} characters")
    return value or None


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
