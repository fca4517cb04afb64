"""Signing in by OpenID Connect: the code flow with PKCE, at any provider with discovery. The protocol is Authlib's."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import httpx2
import structlog
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import StarletteOAuth2App
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from taskbridge.center.access.providers import ANSWER_S, CALLBACK, Provider, SignedIn, checked_url, read_secret
from taskbridge.center.access.refusals import ProviderUnavailable, SignInRefused
from taskbridge.center.access.sessions import SignIn
from taskbridge.center.access.sso import UsersOf, the_one
from taskbridge.runtime import extensions
from taskbridge.runtime.bounded_http import NOT_JSON, BoundedAsyncClient, certificates
from taskbridge.runtime.refusals import Unauthorized
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.center.access.providers import SignInExtension
    from taskbridge.center.settings import CenterSettings
    from taskbridge.center.tables import Person

_SIGNED = ("RS", "PS", "ES", "EdDSA", "Ed25519", "Ed448")
"""Algorithms whose private key only the provider has."""

_LEEWAY_S = 60
_KEYS_S, _KEYS_AGAIN_S, _KEYS_RETRY_S = 3600.0, 60.0, 10.0
"""How long keys are used; how soon they are read again for a key that is not among them, and where there are none."""
_NOT_KEYS = (ValueError, KeyError, TypeError, AttributeError)

log = structlog.get_logger(__name__)


class AccessToken(NamedTuple):
    """What a valid access token says."""

    person: Person
    client: str
    """To which it was issued; empty if it does not say."""
    issued_at: int


class OpenIdConnect(Provider):
    """A provider with discovery."""

    def __init__(self, settings: CenterSettings, users_of: UsersOf) -> None:
        """Raise ConfigurationError if the settings of the provider are incomplete or unsafe."""
        issuer, client_id, public_url = settings.oidc_issuer, settings.oidc_client_id, settings.public_url
        if issuer is None or client_id is None or public_url is None:
            raise ConfigurationError("CENTER_OIDC_ISSUER: set CENTER_OIDC_CLIENT_ID and CENTER_PUBLIC_URL too")
        if settings.oidc_corp_claim is None and settings.corp_id is None:
            raise ConfigurationError("CENTER_OIDC_ISSUER: set CENTER_OIDC_CORP_CLAIM or CENTER_CORP_ID")
        if "openid" not in settings.oidc_scopes.split():
            raise ConfigurationError("CENTER_OIDC_SCOPES must contain openid")
        self._settings, self._users_of = settings, users_of
        self._keys_at, self._key_set, self._reading_keys = float("-inf"), cast("KeySet | None", None), asyncio.Lock()
        self.issuer = self._issuer = checked_url("CENTER_OIDC_ISSUER", issuer)
        self._public_url = checked_url("CENTER_PUBLIC_URL", public_url)
        self._app = cast(
            "Any",
            StarletteOAuth2App(
                None,
                client_id=client_id,
                server_metadata_url=f"{self._issuer}/.well-known/openid-configuration",
                client_kwargs={
                    "scope": settings.oidc_scopes,
                    "code_challenge_method": "S256",
                    "timeout": ANSWER_S,
                    "verify": certificates(trust_env=True),  # it makes a client for each request
                },
            ),
        )

    async def authorize(self, return_to: str) -> tuple[str, str, SignIn]:
        await self._discover()
        found = await self._app.create_authorization_url(self._public_url + CALLBACK)
        return found["url"], found["state"], SignIn(found["nonce"], found["code_verifier"], return_to)

    async def redeem(self, answer: Mapping[str, str], sign_in: SignIn) -> SignedIn:
        if "code" not in answer:
            raise SignInRefused(f"the identity provider refused: {answer.get('error', 'it sent no code')}")
        await self._discover()
        try:
            token = await self._app.fetch_access_token(
                redirect_uri=self._public_url + CALLBACK, code=answer["code"], code_verifier=sign_in.code_verifier
            )
            claims = await self._app.parse_id_token(token, nonce=sign_in.nonce)
            if claims is not None:
                claims = await self._with_user_info(claims, token)
        except (httpx2.HTTPError, OSError) as error:
            raise ProviderUnavailable(f"the identity provider does not answer: {type(error).__name__}") from error
        except (AuthlibBaseError, JoseError, ValueError, KeyError, TypeError) as error:
            log.warning("sign_in_refused", problem=str(error))
            raise SignInRefused(f"the identity provider's answer is not valid: {error}") from error
        if claims is None:
            raise SignInRefused("the identity provider sent no id token")
        return await self._signed_in(claims)

    async def read_access_token(self, token: str, audience: str) -> AccessToken:
        """The person and client of an access token that the provider issued for this audience.

        Raises Unauthorized, UnknownPerson, SignInRefused if a claim is missing, ProviderUnavailable, NotNow.
        """
        keys = await self._keys(_KEYS_S)
        metadata = self._app.server_metadata
        registry = JWSRegistry(algorithms=metadata["id_token_signing_alg_values_supported"], strict_check_header=False)
        try:
            try:
                found = jwt.decode(token, keys, registry=registry)
            except InvalidKeyIdError:
                found = jwt.decode(token, await self._keys(_KEYS_AGAIN_S), registry=registry)
            claims: dict[str, Any] = found.claims
            jwt.JWTClaimsRegistry(
                leeway=_LEEWAY_S,
                iss={"essential": True, "value": metadata["issuer"]},
                aud={"essential": True, "value": audience},
                exp={"essential": True},
                iat={"essential": True},
            ).validate(claims)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            log.warning("access_token_refused", problem=str(error))
            raise Unauthorized("the access token is not valid here") from error
        named = (claims.get(each) for each in ("azp", "client_id"))
        client = next((each for each in named if isinstance(each, str)), "")
        return AccessToken((await self._signed_in(claims)).person, client, int(claims["iat"] * 1000))

    async def _keys(self, used_s: float) -> KeySet:
        """The provider's keys, read again if they were read longer ago; those that there were if it does not answer.

        One request reads them for all that wait. A provider that does not answer is asked again after some seconds.
        """
        if self._key_set is not None and self._keys_at + used_s >= time.monotonic():
            # Anybody can send an unknown key: whose key is known does not wait until the provider answers that.
            return self._key_set
        async with self._reading_keys:
            if self._keys_at + (used_s if self._key_set else _KEYS_RETRY_S) < time.monotonic():
                try:
                    await self._discover()
                    async with BoundedAsyncClient(timeout_s=ANSWER_S) as http:
                        answer = await http.get(self._app.server_metadata["jwks_uri"])
                    self._key_set = KeySet.import_key_set(answer.raise_for_status().json())
                except (ProviderUnavailable, httpx2.HTTPError, OSError, JoseError, *NOT_JSON, *_NOT_KEYS) as error:
                    log.warning("identity_provider_keys_unreadable", problem=str(error) or type(error).__name__)
                self._keys_at = time.monotonic()
        if self._key_set is None:
            raise ProviderUnavailable("the identity provider does not answer: try again later")
        return self._key_set

    async def sign_out_url(self) -> str:
        home = f"{self._public_url}/"
        try:
            await self._discover()
            url = (await self._app.create_logout_url(home, client_id=self._app.client_id))["url"]
        except (ProviderUnavailable, RuntimeError):
            return home
        return cast("str", url)

    async def _with_user_info(self, claims: Mapping[str, Any], token: Any) -> Mapping[str, Any]:
        """With claims that some providers return from their user info endpoint only."""
        wanted = {self._settings.oidc_user_claim, self._settings.oidc_corp_claim, self._settings.oidc_groups_claim}
        if wanted - {None} <= claims.keys() or "userinfo_endpoint" not in self._app.server_metadata:
            return claims
        more = await self._app.userinfo(token=token)
        if more.get("sub") != claims["sub"]:
            raise ValueError("its user info is about somebody else")
        return {**more, **claims}

    async def _signed_in(self, claims: Mapping[str, Any]) -> SignedIn:
        settings = self._settings
        corp_id = _text(claims, claim) if (claim := settings.oidc_corp_claim) else settings.corp_id
        assert corp_id is not None, "the settings have one of them"
        user_id = _text(claims, settings.oidc_user_claim)
        users = await self._users_of(corp_id, settings.mapped_id, user_id)
        named: Any = claims.get(settings.oidc_groups_claim)
        groups = cast("list[object]", named if isinstance(named, list) else [named])
        return SignedIn((corp_id, the_one(users)), groups)

    async def _discover(self) -> None:
        try:
            found = await self._app.load_server_metadata()
        except (httpx2.HTTPError, OSError, ValueError, TypeError) as error:
            log.warning("identity_provider_unavailable", problem=str(error) or type(error).__name__)
            raise ProviderUnavailable("the identity provider does not answer: try again later") from error
        is_complete = {"authorization_endpoint", "token_endpoint", "jwks_uri"} <= found.keys()
        if not is_complete or str(found.get("issuer")).rstrip("/") != self._issuer:
            found.pop("_loaded_at", None)  # it is read again
            raise ProviderUnavailable(f"the identity provider does not describe itself as {self._issuer}")
        offered = found.get("id_token_signing_alg_values_supported") or ["RS256"]
        found["id_token_signing_alg_values_supported"] = [each for each in offered if each.startswith(_SIGNED)]
        if (path := self._settings.oidc_client_secret_file) is not None:
            self._app.client_secret = read_secret(path, "CENTER_OIDC_CLIENT_SECRET_FILE")


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise SignInRefused(f"the identity provider sent no claim {name!r} with a text")


def provider_of(settings: CenterSettings, users_of: UsersOf) -> Provider | None:
    """The identity provider that the settings name; None if people sign in elsewhere, or not at all.

    Raises ConfigurationError if its settings are incomplete or unsafe, or name two.
    """
    installed: list[SignInExtension] = extensions.load_all(extensions.SIGN_IN)
    found = [each for each in (extension(settings, users_of) for extension in installed) if each is not None]
    if settings.oidc_issuer is not None:
        found.append(OpenIdConnect(settings, users_of))
    if len(found) > 1:
        named = " and ".join(type(each).__name__ for each in found)
        raise ConfigurationError(f"people can sign in at one provider only: remove the settings of one of {named}")
    return found[0] if found else None
