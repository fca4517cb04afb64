"""Access tokens for Faust's consumer, fetched as librdkafka fetches its own, by the same properties."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
import time
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from aiokafka.abc import AbstractTokenProvider

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX = "sasl.oauthbearer."
_NEEDED = ("token.endpoint.url", "client.id", "client.secret")
_ANSWER_S = 10.0
_FRESH = 0.8
"""Of its lifetime a token is used for so much, as librdkafka does it."""


class AccessTokens(AbstractTokenProvider):
    """The client's own token (the grant ``client_credentials``), fetched again before it is over; from any thread."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        """Fetch nothing yet.

        Raises:
            ConfigurationError: a property that is needed is missing, or says what only librdkafka could do.
        """
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
        """One that is still good.

        Raises:
            ConnectionError: the issuer gives none; aiokafka tries again.
        """
        return await asyncio.to_thread(self._current)

    def _current(self) -> str:
        with self._turn:
            if time.monotonic() >= self._fresh_until:
                asked = time.monotonic()
                self._token, lifetime_s = self._fetch()
                self._fresh_until = asked + _FRESH * lifetime_s
            return self._token

    def _fetch(self) -> tuple[str, float]:
        request = urllib.request.Request(self._url, self._body, self._headers)  # noqa: S310 - as the operator says
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_S, context=self._tls) as answer:  # noqa: S310
                told = json.load(answer)
            return str(told["access_token"]), float(told["expires_in"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConnectionError(f"{self._url} gives no access token: {error}") from error
