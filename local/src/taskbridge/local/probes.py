"""Kafka and the registry: their addresses, and probes by real requests."""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import httpx2
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

if TYPE_CHECKING:
    import ssl

# librdkafka logs every refused connection, which is expected while a broker starts.
_SILENT = logging.getLogger("taskbridge.local.probes.librdkafka")
_SILENT.disabled = True


@dataclass(frozen=True)
class Endpoints:
    """The addresses of Kafka and the registry; ``registry_url`` is the base URL of its Confluent API."""

    bootstrap_servers: str
    registry_url: str


def port_answers(host: str, port: int) -> bool:
    """Whether a program accepts connections at this address."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def kafka_answers(bootstrap_servers: str, *, timeout_s: float = 2.0) -> bool:
    """Whether a broker answers a metadata request and lists itself.

    A fenced broker (just started, session not yet open) answers, but lists no broker: it is not ready yet.
    """
    try:
        # A new client each time: an old one waits longer and longer between its attempts to connect.
        admin = AdminClient({"bootstrap.servers": bootstrap_servers}, logger=_SILENT)
        return bool(admin.list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False


def registry_answers(registry_url: str, *, timeout_s: float = 2.0, trust_env: bool = True) -> bool:
    """Whether a schema registry lists its subjects. ``trust_env=False`` ignores proxy settings."""
    try:
        response = httpx2.get(
            f"{registry_url.rstrip('/')}/subjects",
            timeout=timeout_s,
            trust_env=trust_env,
            verify=_certificates(trust_env=trust_env),
        )
        return response.is_success and isinstance(response.json(), list)
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return False


@cache
def _certificates(*, trust_env: bool) -> ssl.SSLContext:
    # Read once: it takes 20 ms, and a starting registry is probed ten times a second.
    return httpx2.create_ssl_context(trust_env=trust_env)
