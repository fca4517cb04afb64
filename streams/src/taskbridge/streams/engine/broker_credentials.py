"""The extra librdkafka properties (TLS, SASL) in the form that Faust's consumer takes, so that one file serves both."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import faust
from faust.auth import OAuthCredentials

from taskbridge.schemas.errors import ConfigurationError
from taskbridge.streams.engine.access_tokens import AccessTokens

if TYPE_CHECKING:
    from collections.abc import Mapping

BrokerCredentials = faust.SASLCredentials | OAuthCredentials | faust.SSLCredentials | None

_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


def broker_credentials(properties: Mapping[str, str]) -> BrokerCredentials:
    """Faust's credentials for these librdkafka properties; None for a plain connection.

    Raises:
        ConfigurationError: a protocol or mechanism that the consumer does not speak, or a certificate it cannot load.
    """
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


def _tls_context(properties: Mapping[str, str]) -> ssl.SSLContext:
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
