"""The librdkafka properties for TLS and SASL in the form of Faust's consumer, so that one file configures both."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import faust
from aiokafka.abc import AbstractTokenProvider
from faust.auth import OAuthCredentials

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

BrokerCredentials = faust.SASLCredentials | OAuthCredentials | faust.SSLCredentials | None

_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
_PREFIX = "sasl.oauthbearer."
_NEEDED = ("token.endpoint.url", "client.id", "client.secret")
_ANSWER_S = 10.0
_FRESH = 0.8
"""Share of a token's lifetime for which it is used, as in librdkafka."""


def broker_credentials(properties: Mapping[str, Any]) -> BrokerCredentials:
    """Faust's credentials for these librdkafka properties; None for a plain connection. Raises ConfigurationError."""
    protocol = properties.get("security.protocol", "plaintext").upper()
    if protocol == "PLAINTEXT":
        return None
    if protocol == "SSL":
        return faust.SSLCredentials(_tls_context(properties))
    if protocol not in ("SASL_PLAINTEXT", "SASL_SSL"):
        raise ConfigurationError(f"Kafka config: security.protocol {protocol} is not supported")
    mechanism = properties.get("sasl.mechanism", properties.get("sasl.mechanisms", "PLAIN")).upper()
    if mechanism not in _MECHANISMS:
        raise ConfigurationError(f"Kafka config: sasl.mechanism {mechanism} is not one of {', '.join(_MECHANISMS)}")
    context = _tls_context(properties) if protocol == "SASL_SSL" else None
    if mechanism == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=AccessTokens(properties), ssl_context=context)
    return faust.SASLCredentials(
        username=properties.get("sasl.username", ""),
        password=properties.get("sasl.password", ""),
        mechanism=mechanism,
        ssl_context=context,
    )


def _tls_context(properties: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=properties.get("ssl.ca.location"))
        certificate = properties.get("ssl.certificate.location")
        if certificate is not None:
            context.load_cert_chain(certificate, properties.get("ssl.key.location"), properties.get("ssl.key.password"))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"Kafka config: cannot load the TLS files: {error}") from error
    if properties.get("ssl.endpoint.identification.algorithm", "https") == "none":
        context.check_hostname = False
    return context


class AccessTokens(AbstractTokenProvider):
    """Fetches access tokens as librdkafka does: by ``client_credentials``, again before they expire. Thread-safe."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        """Fetch nothing yet; ConfigurationError if a property is missing, or only librdkafka supports its value."""
        given = {name: value for name, value in properties.items() if name.startswith(_PREFIX) and value}
        own = {name.removeprefix(_PREFIX): value for name, value in given.items()}
        if own.get("method", "").lower() != "oidc":
            raise ConfigurationError(f"Kafka config: with OAUTHBEARER, {_PREFIX}method=oidc is needed")
        if own.get("grant.type", "client_credentials") != "client_credentials":
            raise ConfigurationError(f"Kafka config: {_PREFIX}grant.type {own['grant.type']} is not supported")
        if missing := [_PREFIX + name for name in _NEEDED if name not in own]:
            raise ConfigurationError(f"Kafka config: with OAUTHBEARER, {', '.join(missing)} is needed")
        self._url = own["token.endpoint.url"]
        pair = f"{own['client.id']}:{own['client.secret']}"
        self._headers = {
            "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
            "Accept": "application/json",
        }
        form = {"grant_type": "client_credentials"} | ({"scope": own["scope"]} if "scope" in own else {})
        self._body = urlencode(form).encode()
        try:
            self._tls = ssl.create_default_context(cafile=properties.get("https.ca.location"))
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"Kafka config: cannot load https.ca.location: {error}") from error
        self._turn = threading.Lock()
        self._token, self._fresh_until = "", 0.0

    async def token(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride] - typed as returning nothing
        """A token that is still valid; ConnectionError if the issuer returned none: aiokafka retries."""
        return await asyncio.to_thread(self._current)

    def _current(self) -> str:
        with self._turn:
            if time.monotonic() >= self._fresh_until:
                requested = time.monotonic()
                self._token, lifetime_s = self._fetch()
                self._fresh_until = requested + _FRESH * lifetime_s
            return self._token

    def _fetch(self) -> tuple[str, float]:
        request = urllib.request.Request(self._url, self._body, self._headers)  # noqa: S310 - the operator's URL
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_S, context=self._tls) as answer:  # noqa: S310
                found = json.load(answer)
            return str(found["access_token"]), float(found["expires_in"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConnectionError(f"{self._url} gives no access token: {error}") from error
