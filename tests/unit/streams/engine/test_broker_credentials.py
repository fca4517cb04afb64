"""One Kafka properties file serves librdkafka and Faust's consumer alike."""

from __future__ import annotations

import ssl

import faust
import pytest

from taskbridge.schemas.errors import ConfigurationError
from taskbridge.streams.engine.broker_credentials import broker_credentials

SASL = {"sasl.mechanism": "SCRAM-SHA-256", "sasl.username": "edge", "sasl.password": "secret"}


def test_a_plain_connection_needs_none() -> None:
    assert broker_credentials({}) is None
    assert broker_credentials({"security.protocol": "plaintext"}) is None


def test_sasl_over_plaintext_and_over_tls() -> None:
    plain = broker_credentials({"security.protocol": "SASL_PLAINTEXT", **SASL})
    assert isinstance(plain, faust.SASLCredentials)
    assert (plain.username, plain.password, plain.ssl_context) == ("edge", "secret", None)
    encrypted = broker_credentials({"security.protocol": "sasl_ssl", **SASL})
    assert isinstance(encrypted, faust.SASLCredentials)
    assert encrypted.ssl_context is not None
    assert encrypted.ssl_context.verify_mode is ssl.CERT_REQUIRED


def test_tls_checks_the_host_unless_told_otherwise() -> None:
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
def test_what_the_consumer_cannot_do_is_said_at_the_start(properties: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        broker_credentials(properties)
