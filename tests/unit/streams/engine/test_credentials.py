"""One properties file configures librdkafka and Faust's consumer; access tokens are fetched, reused and renewed."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import faust
import pytest

from taskbridge.schemas.errors import ConfigurationError
from taskbridge.streams.engine.credentials import AccessTokens, broker_credentials

if TYPE_CHECKING:
    from collections.abc import Generator

SASL = {"sasl.mechanism": "SCRAM-SHA-256", "sasl.username": "edge", "sasl.password": "secret"}


def test_sasl_over_plaintext_and_over_tls() -> None:
    plain = broker_credentials({"security.protocol": "SASL_PLAINTEXT", **SASL})
    assert isinstance(plain, faust.SASLCredentials)
    assert (plain.username, plain.password, plain.ssl_context) == ("edge", "secret", None)
    encrypted = broker_credentials({"security.protocol": "sasl_ssl", **SASL})
    assert isinstance(encrypted, faust.SASLCredentials)
    assert encrypted.ssl_context is not None
    assert encrypted.ssl_context.verify_mode is ssl.CERT_REQUIRED


def test_tls_checks_the_host_by_default() -> None:
    checked = broker_credentials({"security.protocol": "SSL"})
    unchecked = broker_credentials({"security.protocol": "SSL", "ssl.endpoint.identification.algorithm": "none"})
    assert isinstance(checked, faust.SSLCredentials)
    assert isinstance(unchecked, faust.SSLCredentials)
    assert checked.context.check_hostname
    assert not unchecked.context.check_hostname


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ({"security.protocol": "KERBEROS"}, "security.protocol KERBEROS"),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI"}, "sasl.mechanism GSSAPI"),
        ({"security.protocol": "SSL", "ssl.ca.location": "/nowhere.pem"}, "cannot load the TLS files"),
    ],
)
def test_unsupported_protocols_are_rejected_at_the_start(properties: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        broker_credentials(properties)


class Issuer:
    """Gives one token after the other, each of which is good for ``lifetime_s``."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.lifetime_s: object = 3600
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                issuer.requests.append((self.headers["Authorization"], form))
                body = json.dumps({"access_token": f"token {len(issuer.requests)}", "expires_in": issuer.lifetime_s})
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's own name
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def properties(self, **more: str) -> dict[str, str]:
        own = {
            "method": "OIDC",
            "token.endpoint.url": f"http://127.0.0.1:{self.server.server_port}/token",
            "client.id": "streams",
            "client.secret": "a:b=c",
            **more,
        }
        return {f"sasl.oauthbearer.{name}": value for name, value in own.items()}


@pytest.fixture
def issuer() -> Generator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.server.shutdown()
    issuer.server.server_close()


def test_a_valid_token_is_fetched_once(issuer: Issuer) -> None:
    tokens = AccessTokens(issuer.properties(scope="kafka all"))

    async def at_once() -> list[str]:
        return await asyncio.gather(*(tokens.token() for _ in range(5)))

    assert asyncio.run(at_once()) == ["token 1"] * 5
    who = base64.b64encode(b"streams:a:b=c").decode()
    assert issuer.requests == [(f"Basic {who}", "grant_type=client_credentials&scope=kafka+all")]


def test_an_expired_token_is_fetched_again(issuer: Issuer) -> None:
    issuer.lifetime_s = 0
    tokens = AccessTokens(issuer.properties())
    assert [asyncio.run(tokens.token()) for _ in range(2)] == ["token 1", "token 2"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"method": "default"}, "sasl.oauthbearer.method=oidc is needed"),
        ({"client.secret": ""}, "sasl.oauthbearer.client.secret is needed"),
        ({"grant.type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}, "jwt-bearer is not supported"),
    ],
)
def test_unsupported_grants_are_rejected_at_the_start(issuer: Issuer, changed: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        AccessTokens(issuer.properties(**changed))
